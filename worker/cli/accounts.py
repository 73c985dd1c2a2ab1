"""`report`, `verify`, `unconfirmed`: what became of everybody, in columns that add up.

Owns how the counts are laid out and the one sum that proves them. Refuses: any count that the store did not
give, and naming a person.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

from rich.table import Table
from rich.text import Text

from worker import calendar
from worker.campaigns import Proof
from worker.cli import grammar, late, session, terminal
from worker.cli.terminal import Column, cell, count
from worker.deliveries import OPEN, State
from worker.errors import Refused, WrongUse
from worker.store.plans import Campaign
from worker.wiring import Wiring

if TYPE_CHECKING:
    from worker.visits import Line

app = grammar.commands()

_Key = TypeVar("_Key", int, str)

#: The terms of the sum, in its order; whatever is open is none of them.
TERMS = (State.SENT, State.BOUNCED, State.SKIPPED, State.EXPIRED, State.UNCONFIRMED)
#: The column of all that may still change.
_OPEN = "open"
_STYLES = {
    State.SENT: terminal.GOOD,
    State.BOUNCED: terminal.BAD,
    State.UNCONFIRMED: terminal.DOUBTFUL,
    State.EXPIRED: terminal.DOUBTFUL,
}


def the_sum(proof: Proof) -> str:
    """Return the sum in one line: audience = sent + bounced + skipped + expired + unconfirmed."""
    terms = [f"{count(proof.by_state.get(state, 0))} {state}" for state in TERMS]
    if proof.open:
        terms.append(f"{count(proof.open)} open")
    sign = "=" if proof.audience == sum(proof.by_state.values()) else "is not"
    return f"audience {count(proof.audience)} {sign} {' + '.join(terms)}"


@grammar.command(app, "verify", "tocsin verify chechnya-report-1", "tocsin verify chechnya-report-1 --json")
def verify(*, name: grammar.Campaign, as_json: grammar.Json = False) -> int:
    """Prove that everybody is accounted for, and print the sum.

    Exits 0 only when audience = sent + bounced + skipped + expired + unconfirmed, with nothing open.

    JSON: {campaign, holds, audience, open, sent, bounced, skipped, expired, unconfirmed}.
    """
    with session.opened() as tocsin:
        proof = tocsin.campaigns.verify(name)
    if as_json:
        terms = {str(state): proof.by_state.get(state, 0) for state in TERMS}
        facts = {"campaign": name, "holds": proof.holds, "audience": proof.audience, "open": proof.open}
        terminal.show_json({**facts, **terms})
    else:
        show_proof(proof)
    return 0 if proof.holds else 1


def show_proof(proof: Proof) -> None:
    """Print the sum and whether it holds."""
    terminal.say(the_sum(proof))
    if proof.holds:
        terminal.say("It adds up, and nothing is open.", terminal.GOOD)
    else:
        terminal.say(f"It does not hold{_why_not(proof)}.", terminal.BAD)


def _why_not(proof: Proof) -> str:
    if proof.open:
        return f" yet: {count(proof.open)} are open, and the campaign is {proof.campaign.state}"
    if proof.campaign.launched_at is None:
        return f" yet: the campaign is {proof.campaign.state}, and its launch is not whole"
    return ": the store has lost or doubled somebody; restore it from a backup and tell us"


@grammar.command(app, "report", "tocsin report chechnya-report-1", "tocsin report chechnya-report-1 --json")
def report(*, name: grammar.Campaign, as_json: grammar.Json = False) -> None:
    """Show what became of everybody, in columns that add up.

    By outcome and reason, by mailbox provider, and by hour (in the campaign's time zone). "sent" means that
    the relay took it; nobody can promise more. Links are there where the appeal has them counted; programs
    that open every link count too.

    JSON: {campaign, appeal, state, audience, open, holds, outcomes: [{state, reason, count}],
    providers: [{provider, STATE: count, total}], hours: [{hour, STATE: count, total}],
    facts: {kind: count}, known_since: [{kind, source, count}],
    links: [{variant, link, target, count}]}. STATE stands for each state's name; hours are
    UTC.
    """
    with session.opened() as tocsin:
        account = read(tocsin, name)
    if as_json:
        terminal.show_json(_facts(account))
    else:
        show(account)


@dataclass(frozen=True, slots=True)
class Account:
    """One campaign's counts, read once."""

    #: What they are the counts of, and its sum.
    proof: Proof
    #: By state and reason.
    outcomes: Mapping[tuple[str, str], int]
    #: By mailbox provider and state.
    providers: Mapping[tuple[str, str], int]
    #: By hour (UTC seconds) and state; of those that are settled.
    hours: Mapping[tuple[int, str], int]
    #: What became known later.
    facts: late.Facts
    #: How often its links were followed.
    links: "Sequence[Line]"

    @property
    def campaign(self) -> Campaign:
        """Return the campaign."""
        return self.proof.campaign


def read(tocsin: Wiring, name: str) -> Account:
    """Read a campaign's counts; Refused when there is no such campaign."""
    proof = tocsin.campaigns.verify(name)
    tallies, number = tocsin.tallies, proof.campaign.id
    return Account(
        proof=proof,
        outcomes=tallies.tally(number),
        providers=tallies.providers(number),
        hours=tallies.hours(number),
        facts=tallies.facts(number),
        links=tocsin.followed(number),
    )


def show(account: Account) -> None:
    """Print the report."""
    campaign = account.campaign
    terminal.say(f"{campaign.name}: {campaign.state}", terminal.STRONG)
    if campaign.notice:
        terminal.say(campaign.notice, terminal.DOUBTFUL)
    columns = (Column("Outcome"), Column("People", number=True), Column("Share", number=True))
    terminal.say()
    terminal.show(terminal.table(columns, _outcome_rows(account), total=True))
    if account.providers:
        terminal.say()
        terminal.show(_crossed("Provider", _lines(account.providers, str)))
    if account.hours:
        terminal.say()
        terminal.show(_crossed("Hour", _lines(account.hours, _hour_in(campaign.time_zone))))
    if account.facts:
        terminal.say()
        terminal.show(late.table(account.facts))
    if account.links:
        terminal.say()
        titles = (Column("Link"), Column("In"), Column("Followed", number=True))
        rows = [(one.target, one.variant, count(one.count)) for one in account.links]
        terminal.show(terminal.table(titles, rows))
    terminal.say()
    show_proof(account.proof)


def _outcome_rows(account: Account) -> Sequence[tuple[str | Text, str, str]]:
    """Return each state with its total, its reasons beneath, and the audience."""
    rows: list[tuple[str | Text, str, str]] = []
    audience = sum(account.outcomes.values())
    for state in (*TERMS, *sorted(OPEN)):
        reasons = {why: number for (one, why), number in account.outcomes.items() if one == state}
        if not reasons:
            continue
        total = sum(reasons.values())
        rows.append((cell(state, _STYLES.get(state, "")), count(total), f"{100 * total / audience:.1f}%"))
        # One way to be sent, or none given, needs no line of its own.
        if len(reasons) > 1 or (state is not State.SENT and "" not in reasons):
            by_count = sorted(reasons.items(), key=lambda one: -one[1])
            rows += [
                (Text(f"  {terminal.clean(why) or '-'}", "dim"), count(each), "") for why, each in by_count
            ]
    return [*rows, ("audience", count(audience), "")]


#: What each line of a table is about, and how many stand in each state there.
_Lines: TypeAlias = Sequence[tuple[str, Mapping[str, int]]]


def _lines(counts: Mapping[tuple[_Key, str], int], label: Callable[[_Key], str]) -> _Lines:
    """Bring counts by something and by state into lines, in the order of that something."""
    lines: dict[_Key, dict[str, int]] = {}
    for (key, state), number in counts.items():
        lines.setdefault(key, {})[state] = number
    return [(label(key), lines[key]) for key in sorted(lines)]


def _crossed(title: str, lines: _Lines) -> Table:
    """Lay out lines by state, with totals on both sides; whatever is open is one column."""
    folded = [(label, _folded(line)) for label, line in lines]
    terms = [term for term in (*map(str, TERMS), _OPEN) if any(line[term] for _, line in folded)]
    rows = [(label, *map(count, (*(line[term] for term in terms), line.total()))) for label, line in folded]
    everything: Counter[str] = sum((line for _, line in folded), Counter())
    rows.append(("all", *map(count, (*(everything[term] for term in terms), everything.total()))))
    columns = [Column(title), *(Column(term, number=True) for term in [*terms, "all"])]
    return terminal.table(columns, rows, total=True)


def _folded(line: Mapping[str, int]) -> Counter[str]:
    folded = Counter[str]()
    for state, number in line.items():
        folded[_OPEN if state in OPEN else state] += number
    return folded


def _hour_in(zone: str) -> Callable[[int], str]:
    return lambda hour: calendar.show(hour, zone)


def _hour_in_utc(hour: int) -> str:
    return str(terminal.iso(hour))


def _facts(account: Account) -> dict[str, object]:
    campaign, proof = account.campaign, account.proof
    return {
        "campaign": campaign.name,
        "appeal": campaign.appeal,
        "state": campaign.state,
        "audience": proof.audience,
        "open": proof.open,
        "holds": proof.holds,
        "outcomes": [
            {"state": state, "reason": why, "count": number}
            for (state, why), number in sorted(account.outcomes.items())
        ],
        "providers": _whole("provider", _lines(account.providers, str)),
        "hours": _whole("hour", _lines(account.hours, _hour_in_utc)),
        "facts": late.by_kind(account.facts),
        "known_since": late.lines(account.facts),
        "links": [asdict(one) for one in account.links],
    }


def _whole(name: str, lines: _Lines) -> Sequence[Mapping[str, object]]:
    """Return one object a line, with every state, so that the keys are always the same."""
    rows = []
    for label, line in lines:
        numbers = {str(state): line.get(state, 0) for state in State}
        rows.append({name: label, **numbers, "total": sum(numbers.values())})
    return rows


@grammar.command(
    app,
    "unconfirmed",
    "tocsin unconfirmed chechnya-report-1",
    "tocsin unconfirmed chechnya-report-1 --json",
    "tocsin unconfirmed chechnya-report-1 --accept",
    "tocsin unconfirmed chechnya-report-1 --resend",
)
def unconfirmed(
    *,
    name: grammar.Campaign,
    accept: Annotated[bool, grammar.flag("--accept", help="Call them all sent: you know they were.")] = False,
    resend: Annotated[
        bool, grammar.flag("--resend", help="Send them all again, with the same Message-ID.")
    ] = False,
    yes: grammar.Yes = False,
    as_json: grammar.Json = False,
) -> None:
    """List or settle the mails of which nobody can know whether they were taken.

    A link was lost, or a process died, between a mail's last byte and the relay's answer. They are never sent
    again by themselves: some may have arrived. The relay's own log tells. Sent again, a mail keeps its
    Message-ID, so that many mailboxes show the two as one.

    JSON: an array of {delivery, reason, at}.
    """
    if accept and resend:
        raise WrongUse("--accept and --resend exclude each other", remedy="Give one of them.")
    with session.opened() as tocsin:
        campaign = tocsin.campaigns.find(name)
        found = tocsin.tallies.unconfirmed(campaign.id)
        if (accept or resend) and found:
            _settle(tocsin, campaign, len(found), resend=resend, yes=yes)
            return
    if as_json:
        keys = [{"delivery": one, "reason": why, "at": terminal.iso(at)} for one, why, at in found]
        terminal.show_json(keys)
    elif not found:
        terminal.say(f"None in {name}.")
    else:
        columns = (Column("Delivery", number=True), Column("Reason"), Column("When"))
        rows = [(str(one), why, calendar.show(at, campaign.time_zone)) for one, why, at in found]
        terminal.show(terminal.table(columns, rows))


def _settle(tocsin: Wiring, campaign: Campaign, number: int, *, resend: bool, yes: bool) -> None:
    """Settle what is unconfirmed by an operator's word, once they are sure."""
    mails = f"{count(number)} unconfirmed"
    if not resend:
        terminal.ask(f"Call {mails} sent", agreed=yes)
        accepted = tocsin.campaigns.accept(campaign.name, session.operator())
        terminal.say(f"{campaign.name}: {count(accepted)} called sent.")
        return
    if campaign.not_after is not None and campaign.not_after <= tocsin.clock():
        raise Refused(f"the deadline of {campaign.name} is past", remedy="Call them sent with --accept.")
    terminal.ask(f"Send {mails} again; who has one may get two", agreed=yes)
    found = tocsin.campaigns.retry(campaign.name, [State.UNCONFIRMED], None, session.operator())
    terminal.say(f"{campaign.name}: {count(found.opened)} will be sent again.")
    if found.left_out:
        terminal.say(f"{count(found.left_out)} left out: they said no, or their address is gone.")
