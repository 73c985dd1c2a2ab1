"""`approve`, `pause`, `resume`, `cancel`, `retry`: one campaign moved on.

Refuses: to send anything itself; the workers do.
"""

from typing import Annotated

import typer

from worker import calendar
from worker.cli import grammar, session, terminal, watching
from worker.deliveries import State
from worker.errors import WrongUse
from worker.store.plans import Campaign
from worker.wiring import Wiring

app = grammar.commands()


@grammar.command(app, "approve", "tocsin approve chechnya-report-1 --digest 1f3a9c0b77aa")
def approve(
    *,
    name: grammar.Campaign,
    digest: Annotated[
        str,
        typer.Option(metavar="HEX", help="As `tocsin status` shows it: names exactly what is approved."),
    ],
) -> None:
    """Approve a campaign that a colleague has planned.

    The digest names the content, the audience rule and the schedule: what is sent is what you looked at.
    Needed where sending.approval is "two". Who you are is TOCSIN_OPERATOR, else this machine's user.
    """
    with session.opened() as tocsin:
        _tell(tocsin.campaigns.approve(name, session.operator(), digest.strip().lower()))


@grammar.command(app, "pause", "tocsin pause chechnya-report-1")
def pause(*, name: grammar.Campaign) -> None:
    """Let nothing more of a campaign begin, until it is resumed.

    Safe to repeat. Mails already on their way to the relay, a few a connection, are finished.
    """
    with session.opened() as tocsin:
        _tell(tocsin.campaigns.pause(name, session.operator()))


@grammar.command(app, "resume", "tocsin resume chechnya-report-1")
def resume(*, name: grammar.Campaign) -> None:
    """Go on with a paused campaign exactly where it stopped."""
    with session.opened() as tocsin:
        _tell(tocsin.campaigns.resume(name, session.operator()))


@grammar.command(app, "cancel", "tocsin cancel chechnya-report-1", "tocsin cancel chechnya-report-1 --yes")
def cancel(*, name: grammar.Campaign, yes: grammar.Yes = False) -> None:
    """End a campaign for good: what has not begun is skipped."""
    with session.opened() as tocsin:
        proof = tocsin.campaigns.verify(name)
        terminal.say(f"{watching.standing(proof.campaign)}. So far: {watching.counts(proof)}.")
        terminal.ask(f"Cancel {name} for good", agreed=yes)
        _tell(tocsin.campaigns.cancel(name, session.operator()))


@grammar.command(
    app,
    "retry",
    "tocsin retry chechnya-report-1 --bounced",
    'tocsin retry chechnya-report-1 --expired --not-after "2026-12-05 18:00"',
)
def retry(
    *,
    name: grammar.Campaign,
    bounced: Annotated[bool, grammar.flag("--bounced", help="Those who bounced.")] = False,
    expired: Annotated[bool, grammar.flag("--expired", help="Those for whom it got too late.")] = False,
    not_after: Annotated[
        str,
        typer.Option(metavar="TIME", help="A new deadline, in the campaign's time zone."),
    ] = "",
) -> None:
    """Send again to exactly those who bounced or expired.

    Everybody who was sent it stays sent. Whoever has said no since, or whose address is
    gone, is left out.
    """
    wanted = {State.BOUNCED: bounced, State.EXPIRED: expired}
    states = [state for state, chosen in wanted.items() if chosen]
    if not states:
        raise WrongUse("say whom to try again", remedy="Give --bounced, --expired or both.")
    with session.opened() as tocsin:
        campaign = tocsin.campaigns.find(name)
        deadline = _deadline(tocsin, campaign, not_after)
        found = tocsin.campaigns.retry(name, states, deadline, session.operator())
    if found.opened:
        terminal.say(f"{name}: {terminal.people(found.opened)} will be tried again.")
    else:
        who = "nobody else is" if found.left_out else "nobody is"
        terminal.say(f"{name}: {who} {' or '.join(states)}; nothing was changed.")
    if found.left_out:
        terminal.say(f"{terminal.people(found.left_out)} left out: they said no, or their address is gone.")
    if found.opened:
        terminal.say(f"Follow it: tocsin status {name} --watch")


def _deadline(tocsin: Wiring, campaign: Campaign, text: str) -> float | None:
    """Read the new deadline; without one, the old must still lie ahead."""
    now = tocsin.clock()
    if text:
        return calendar.moment(text, campaign.time_zone, now)
    if campaign.not_after is not None and campaign.not_after <= now:
        was = calendar.show(campaign.not_after, campaign.time_zone)
        raise WrongUse(
            f"the deadline of {campaign.name} is past ({was})", remedy="Give --not-after a later one."
        )
    return None


def _tell(campaign: Campaign) -> None:
    terminal.say(watching.standing(campaign))
