"""From a returned mail's bytes to a verdict: the order in which the questions are asked.

Reports first, because they are labelled as automatic answers too; programs before people, so that no vacation
notice opts anybody out. Refuses: to answer anything without a mark of ours.
"""

from collections.abc import Iterable
from typing import Final

from worker.returns import reports, shapes
from worker.returns.opened import Fields, Opened, blocks, open_mail, returned_fields
from worker.returns.reports import Action, Report
from worker.returns.traces import Tracer
from worker.returns.verdicts import Bounce, Complaint, Delivered, Foreign, OptOut, Personal, Quiet, Verdict
from worker.tokens import Marks, Purpose

_FEEDBACK: Final = "message/feedback-report"


def sort(data: bytes, marks: Marks, recipients: Iterable[str] = ()) -> Verdict:
    """Tell what a returned mail is. Any bytes have an answer, within a second.

    Args:
        data: the mail as it was delivered, with the headers of the last server.
        marks: what proves our marks.
        recipients: its envelope's recipients, where they are known otherwise.
    """
    mail = open_mail(data)
    tracer = Tracer(mail, marks, recipients)
    if (part := mail.part(_FEEDBACK)) is not None:
        return _complaint(tracer, next(blocks(part.text), Fields(())), _returned(mail))
    if (report := reports.read(mail)) is not None:
        return _reported(tracer, report, _returned(mail))
    return _answer(mail, tracer)


def _returned(mail: Opened) -> Fields:
    """Return the headers of the mail that a report returns."""
    part = mail.part(*reports.RETURNED)
    return returned_fields(part.text) if part else Fields(())


def _complaint(tracer: Tracer, report: Fields, returned: Fields) -> Verdict:
    delivery = tracer.complained_of(report, returned)
    kinds = [*report.all("feedback-type")]
    if delivery is None or len(kinds) != 1:  # more than one says nothing (RFC 5965 section 3.1)
        return Foreign()
    return Complaint(delivery, kinds[0].strip().lower())


def _reported(tracer: Tracer, report: Report, returned: Fields) -> Verdict:
    trace = tracer.reported(report.envelope_ids, returned)
    fate = report.judged()
    if trace is None:
        return Foreign()
    if fate is None or fate.action is Action.DELAYED:
        return Quiet(trace.delivery)
    if fate.action is not Action.FAILED:
        return Delivered(trace.delivery)
    # Strangers who saw an answer know its Message-ID: enough to end a delivery, not to silence anyone.
    reason = fate.reason if trace.sure else reports.spared(fate.reason)
    return Bounce(trace.delivery, reason, fate.code, fate.reply.status, fate.text)


def _answer(mail: Opened, tracer: Tracer) -> Verdict:
    """Sort what is no report: a program's words, an opt-out, a person's words."""
    automatic = tracer.is_our_own() or shapes.is_automatic(mail)
    if not automatic:
        for find in (tracer.by_envelope, tracer.by_subject):
            if (delivery := find(Purpose.OPT_OUT)) is not None:
                return OptOut(delivery)
    delivery = tracer.answered()
    if delivery is None:
        return Foreign(personal=not automatic and "from" in mail.fields)
    if automatic:
        return Quiet(delivery, new_address=shapes.names_a_new_address(mail))
    return Personal(delivery, shapes.asks_to_stop(mail))
