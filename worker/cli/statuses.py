"""`status`: how campaigns stand, once or for as long as somebody watches.

Refuses: to change anything.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table

from worker import calendar
from worker.campaigns import Proof
from worker.cli import completion, grammar, pacing, session, terminal, watching
from worker.cli.terminal import Column, count
from worker.deliveries import State
from worker.store.plans import Campaign
from worker.wiring import Wiring

app = grammar.commands()

#: Seconds between two looks at all campaigns.
_LOOK = 2.0
#: Characters of a digest that are shown, and enough to approve by.
DIGEST = 12


@grammar.command(
    app, "status", "tocsin status", "tocsin status chechnya-report-1 --watch", "tocsin status --json"
)
def status(
    *,
    name: Annotated[
        str,
        typer.Argument(
            metavar="[CAMPAIGN]", help="One campaign; by default all.", autocompletion=completion.campaigns
        ),
    ] = "",
    watch: Annotated[
        bool, grammar.flag("--watch", help="Go on showing it until it ends, or Ctrl-C.")
    ] = False,
    as_json: grammar.Json = False,
) -> None:
    """Show how campaigns stand.

    JSON: an array (with CAMPAIGN, one object) of {campaign, appeal, lists, state, notice, created_at,
    created_by, approved_by, start_at, time_zone, not_after, launched_at, finished_at, audience, digest,
    waived, open, counts: {STATE: count}, slowed: [{kind, name, rests, pace, why}]}. Times are UTC; a relay
    or provider in slowed rests for so many seconds, then goes at pace mails a second, which grows.
    """
    with session.opened() as tocsin:
        if name and watch and not as_json:
            watching.follow(tocsin, name)
        if as_json:
            found = [facts(tocsin, one) for one in _proofs(tocsin, name)]
            terminal.show_json(found[0] if name else found)
        elif name:
            show(tocsin, tocsin.campaigns.verify(name))
        elif watch:
            _watch_all(tocsin)
        else:
            _show_all(tocsin)


def _proofs(tocsin: Wiring, name: str) -> Iterator[Proof]:
    names = [name] if name else [one.name for one in tocsin.campaigns.all()]
    yield from map(tocsin.campaigns.verify, names)


def facts(tocsin: Wiring, proof: Proof) -> Mapping[str, object]:
    """Return a campaign for programs."""
    campaign = proof.campaign
    return {
        "campaign": campaign.name,
        "appeal": campaign.appeal,
        "lists": list_names(tocsin, campaign),
        "state": campaign.state,
        "notice": campaign.notice,
        "created_at": terminal.iso(campaign.created_at),
        "created_by": campaign.created_by,
        "approved_by": campaign.approved_by,
        "start_at": terminal.iso(campaign.start_at),
        "time_zone": campaign.time_zone,
        "not_after": terminal.iso(campaign.not_after),
        "launched_at": terminal.iso(campaign.launched_at),
        "finished_at": terminal.iso(campaign.finished_at),
        "audience": campaign.audience,
        "digest": campaign.digest,
        "waived": _waived(tocsin, campaign),
        "open": proof.open,
        "counts": {str(state): proof.by_state.get(state, 0) for state in State},
        "slowed": [pacing.facts(one) for one in pacing.strains(tocsin)] if _going(proof) else [],
    }


def _waived(tocsin: Wiring, campaign: Campaign) -> Sequence[str]:
    """Return the errors that it was sent in spite of."""
    # The JSON itself: what reads an edition takes longer to load than all the rest of this command.
    return list(json.loads(tocsin.plans.frozen(campaign.id)).get("waived", ()))


def _going(proof: Proof) -> bool:
    return proof.campaign.state == "running"


def list_names(tocsin: Wiring, campaign: Campaign) -> Sequence[str]:
    """Return the names of a campaign's lists."""
    return [one.slug for one in tocsin.people.lists() if one.id in campaign.rule.lists]


def show(tocsin: Wiring, proof: Proof) -> None:
    """Print one campaign."""
    campaign = proof.campaign
    zone = campaign.time_zone
    rows = [
        ("Campaign", campaign.name),
        ("State", f"{campaign.state} ({campaign.notice})" if campaign.notice else campaign.state),
        ("Appeal", campaign.appeal),
        ("Lists", ", ".join(list_names(tocsin, campaign))),
        ("Start", calendar.show(campaign.start_at, zone)),
        ("Not after", calendar.show(campaign.not_after, zone) if campaign.not_after else "no deadline"),
        ("Planned by", campaign.created_by),
        ("Approved by", campaign.approved_by or "nobody yet"),
        ("Digest", campaign.digest[:DIGEST]),
    ]
    if waived := _waived(tocsin, campaign):
        rows.append(("Waived", ", ".join(waived)))
    if campaign.audience is not None:
        rows.append(("Audience", terminal.people(campaign.audience)))
    rows.append(("So far", watching.counts(proof)))
    if _going(proof):
        rows += [("Slowed", pacing.line(one)) for one in pacing.strains(tocsin)]
    terminal.show(terminal.facts(rows))


def _show_all(tocsin: Wiring) -> None:
    if tocsin.campaigns.all():
        terminal.show(_all(tocsin))
        for one in pacing.strains(tocsin):
            terminal.say(f"Slowed: {pacing.line(one)}")
    else:
        terminal.say("There is no campaign yet. Plan one: tocsin send APPEAL --list LIST --dry-run")


def _all(tocsin: Wiring) -> Table:
    columns = (
        Column("Campaign"),
        Column("State"),
        Column("Start"),
        Column("Done", number=True),
        Column("Of", number=True),
    )
    rows = []
    for proof in _proofs(tocsin, ""):
        campaign = proof.campaign
        everyone = sum(proof.by_state.values())
        state = f"{campaign.state}: {campaign.notice}" if campaign.notice else campaign.state
        start = calendar.show(campaign.start_at, campaign.time_zone)
        audience = count(campaign.audience) if campaign.audience is not None else "?"
        rows.append((campaign.name, state, start, count(everyone - proof.open), audience))
    return terminal.table(columns, rows)


def _watch_all(tocsin: Wiring) -> None:
    console = terminal.out()
    with Live(console=console, auto_refresh=False, screen=False) as live:
        try:
            while True:
                live.update(_all(tocsin), refresh=True)
                time.sleep(_LOOK)
        except KeyboardInterrupt as stop:
            raise terminal.Stopped("stopped watching") from stop
