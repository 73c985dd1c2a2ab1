"""`send`: a campaign planned, shown, agreed to and started; or one mail tried on the operator.

Owns what an operator must have seen before anybody is mailed. Refuses: to start without a yes, and to send
our own examples to real people.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import typer

from worker import calendar
from worker.campaigns import Plan
from worker.cli import accounts, checking, completion, grammar, session, statuses, terminal, trying, watching
from worker.content import appeals
from worker.content.checks.findings import Severity
from worker.content.editions import Edition
from worker.errors import Refused, Unavailable, WrongUse
from worker.planning import Order
from worker.store.plans import Campaign
from worker.wiring import Wiring

app = grammar.commands()


@grammar.command(
    app,
    "send",
    "tocsin send chechnya-report --list supporters --dry-run",
    "tocsin send chechnya-report --test-to me@example.org --language ru",
    'tocsin send chechnya-report --list supporters --at "2026-12-01 09:00" \\',
    "    --tz Europe/London",
    "tocsin send chechnya-report --list supporters --yes --wait",
)
def send(  # noqa: PLR0913 - each is an option of the command
    *,
    appeal: grammar.Appeal,
    lists: Annotated[
        list[str] | None,
        typer.Option(
            "--list",
            metavar="SLUG",
            help="Whom to write to; may be repeated.",
            autocompletion=completion.lists,
        ),
    ] = None,
    at: Annotated[str, typer.Option(metavar="TIME", help='When to start, as in "2026-12-01 09:00".')] = "",
    tz: Annotated[str, typer.Option(metavar="ZONE", help="Time zone of the times given.")] = "UTC",
    not_after: Annotated[
        str, typer.Option(metavar="TIME", help="When it is too late; by default sending.not_after_hours.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Write to the first N people only.")
    ] = None,
    dry_run: Annotated[bool, grammar.flag("--dry-run", help="Show everything, record nothing.")] = False,
    test_to: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Send one mail there, for an invented reader; record nothing."),
    ] = "",
    language: Annotated[str, typer.Option(metavar="CODE", help="With --test-to: in that language.")] = "",
    discreet: Annotated[
        bool, grammar.flag("--discreet", help="The discreet form, for everybody or with --test-to.")
    ] = False,
    waive: checking.Waive = None,
    yes: grammar.Yes = False,
    wait: Annotated[
        bool, grammar.flag("--wait", help="Follow it to its end; exit 1 if it does not add up.")
    ] = False,
    as_json: grammar.Json = False,
) -> int:
    """Plan a campaign, show whom it reaches, and start it.

    Shows the subject, how many people it reaches and why others are left out, start and deadline, and asks.
    Content, audience rule and schedule are frozen when you say yes. Without --at it starts now. An appeal in
    which `appeals check` finds errors is refused, unless each is waived by its name; the campaign keeps what
    was waived.

    JSON: {appeal, subjects: {LANGUAGE: text}, topics, lists, recipients, left_out: {reason: count}, start_at,
    time_zone, not_after, findings, waived, digest, campaign (null in a dry run)}; with --wait also {holds}.
    With --test-to: {appeal, form, language, discreet, findings, waived, taken}.
    """
    if test_to:
        _try(trying.Manner(appeal, test_to, language, discreet, waive or ()), as_json=as_json)
        return 0
    if not lists:
        raise WrongUse("say whom to write to", remedy="Give --list SLUG; see `tocsin lists`.")
    order = Order(appeal, lists, at or None, tz, not_after or None, limit, waive or (), discreet)
    with session.opened() as tocsin:
        return _send(tocsin, order, _Manner(dry_run=dry_run, yes=yes, wait=wait, as_json=as_json))


def _try(manner: trying.Manner, *, as_json: bool) -> None:
    told = trying.send(manner)
    if as_json:
        terminal.show_json(told)
    else:
        terminal.say(f"The relay took one test mail ({told['form']}). Nothing was recorded.")


@dataclass(frozen=True, slots=True)
class _Manner:
    """How to go about it."""

    dry_run: bool
    yes: bool
    wait: bool
    as_json: bool


def _send(tocsin: Wiring, order: Order, manner: _Manner) -> int:
    with terminal.busy("Trying the appeal on everybody on these lists…"):
        plan = tocsin.planner.plan(order)
    told = _facts(plan, order)
    if not manner.as_json:
        _show(plan, order)
    session.mind_examples(tocsin, dry_run=manner.dry_run)
    if not plan.recipients:
        raise Refused("nobody on these lists would be written to", remedy=_why_nobody(plan))
    if manner.dry_run:
        _conclude(told, "A dry run: nothing was recorded.", as_json=manner.as_json)
        return 0
    terminal.ask(f"Send it to {terminal.people(plan.recipients)}", agreed=manner.yes)
    campaign = tocsin.campaigns.start(plan, session.operator())
    told["campaign"] = campaign.name
    if manner.wait:
        return _see_it_through(tocsin, campaign, told, as_json=manner.as_json)
    _conclude(told, _next(campaign), as_json=manner.as_json)
    _roll_call(tocsin)
    return 0


def _show(plan: Plan, order: Order) -> None:
    """Print the plan as an operator must see it."""
    subjects = [
        ("" if position else "Subject", f"{language}: {subject}")
        for position, (language, subject) in enumerate(_subjects(plan).items())
    ]
    left_out = [f"{terminal.count(number)} {why}" for why, number in plan.left_out.items()]
    zone = plan.time_zone
    rows = [
        ("Appeal", plan.appeal),
        *subjects,
        *([("Topics", ", ".join(plan.rule.topics))] if plan.rule.topics else []),
        ("Lists", ", ".join(order.lists)),
        ("Recipients", terminal.people(plan.recipients)),
        ("Left out", ", ".join(left_out) or "nobody"),
        ("Start", calendar.show(plan.start_at, zone) if order.at else "now"),
        ("Not after", calendar.show(plan.not_after, zone) if plan.not_after else "no deadline"),
        ("Digest", plan.digest[: statuses.DIGEST]),
        *_found(plan),
    ]
    terminal.show(terminal.facts(rows))


def _found(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield what was found in the mails: what is waived, and what is only worth a look."""
    if plan.waived:
        yield "Waived", ", ".join(plan.waived)
    told = [one for one in plan.findings if one.severity is not Severity.NOTE and one.name not in plan.waived]
    for position, one in enumerate(told):
        yield "" if position else "Warnings", f"{one.name}: {one.where}: {one.what}"


def _subjects(plan: Plan) -> Mapping[str, str]:
    """Return the subjects by language, as the author wrote them; the discreet ones beside them."""
    edition = Edition.from_json(plan.edition)
    found = {}
    for language, version in appeals.parse(edition.slug, edition.appeal).languages.items():
        if not edition.all_discreet:
            found[language] = version.subject
        if edition.discreet and version.discreet and version.discreet.subject:
            found[f"{language}, discreet"] = version.discreet.subject
    return found


def _facts(plan: Plan, order: Order) -> dict[str, object]:
    return {
        "appeal": plan.appeal,
        "subjects": dict(_subjects(plan)),
        "topics": list(plan.rule.topics),
        "lists": list(order.lists),
        "recipients": plan.recipients,
        "left_out": dict(plan.left_out),
        "start_at": terminal.iso(plan.start_at),
        "time_zone": plan.time_zone,
        "not_after": terminal.iso(plan.not_after),
        "findings": [checking.fact(one) for one in plan.findings],
        "waived": list(plan.waived),
        "digest": plan.digest,
        "campaign": None,
    }


def _why_nobody(plan: Plan) -> str:
    if "no consent" in plan.left_out:
        return (
            "Import them again with --basis, --source and --when of their consent; "
            "see what a list asks for: tocsin lists policy LIST"
        )
    return "See who is on them: tocsin lists"


def _conclude(told: Mapping[str, object], line: str, *, as_json: bool) -> None:
    if as_json:
        terminal.show_json(told)
    else:
        terminal.say(f"\n{line}")


def _next(campaign: Campaign) -> str:
    """Say what happens now, and what the operator may do."""
    name = campaign.name
    if campaign.state == "awaiting":
        digest = campaign.digest[: statuses.DIGEST]
        return f"{name} awaits a colleague's approval: tocsin approve {name} --digest {digest}"
    if campaign.state == "scheduled":
        start = calendar.show(campaign.start_at, campaign.time_zone)
        return f"{name} starts {start}. See it: tocsin status {name}"
    return f"{name} has started. Follow it: tocsin status {name} --watch"


def _roll_call(tocsin: Wiring) -> None:
    """Say how to start the workers where none answers."""
    bell = tocsin.doorbell
    if isinstance(bell, session.Bell) and bell.is_mute:
        return  # said already, in the same words
    try:
        if session.workers(tocsin.settings):
            return
    except Unavailable:
        pass
    terminal.warn("No worker answers: nothing is sent before you start them with `tocsin up`.")


def _see_it_through(tocsin: Wiring, campaign: Campaign, told: dict[str, object], *, as_json: bool) -> int:
    _roll_call(tocsin)
    expected = sum(tocsin.campaigns.count(campaign.rule).values())
    proof = watching.follow(tocsin, campaign.name, expected=expected)
    told["holds"] = proof.holds
    if as_json:
        terminal.show_json(told)
    else:
        terminal.say()
        accounts.show_proof(proof)
        terminal.say(f"The whole account: tocsin report {campaign.name}")
    return 0 if proof.holds else 1
