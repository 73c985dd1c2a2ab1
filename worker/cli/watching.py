"""A campaign followed while it goes: a bar on a terminal, a line at each change elsewhere.

Owns how often the store is asked. Refuses: to change anything; whoever stops watching stops nothing else.
"""

import datetime as dt
import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker import calendar
from worker.campaigns import Proof
from worker.cli import pacing, terminal
from worker.cli.terminal import count
from worker.deliveries import OPEN, State
from worker.store.plans import Campaign
from worker.throttle import Strain
from worker.wiring import Wiring

#: Seconds between two looks; and at least this many times what a look costs, so that watching never slows.
_LOOK, _TIMES_ITS_COST = 0.5, 10
#: Seconds to look before guessing how long the rest will take.
_LEARNING = 3.0


def ended(proof: Proof) -> bool:
    """Tell whether nothing more happens by itself."""
    return proof.campaign.state in {"finished", "cancelled"} and not proof.open


def follow(tocsin: Wiring, name: str, *, expected: int = 0) -> Proof:
    """Show a campaign until it has ended, and return its sum.

    Args:
        tocsin: the workspace.
        name: the campaign.
        expected: how many people it will come to, as far as is known before its launch is whole.

    Raises:
        Stopped: Ctrl-C; the campaign goes on.
    """
    console = terminal.err()
    try:
        if not console.is_terminal:
            return _each_look(tocsin, name, _Lines(console).show)
        with Live(console=console, transient=True, auto_refresh=False) as live:
            bar = _Bar(expected)
            return _each_look(
                tocsin, name, lambda proof: live.update(bar.view(proof, pacing.strains(tocsin)), refresh=True)
            )
    except KeyboardInterrupt as stop:
        raise terminal.Stopped(f"stopped watching; {name} is left to itself") from stop


def _each_look(tocsin: Wiring, name: str, show: Callable[[Proof], None]) -> Proof:
    while True:
        began = time.monotonic()
        proof = tocsin.campaigns.verify(name)
        show(proof)
        if ended(proof):
            return proof
        time.sleep(max(_LOOK, _TIMES_ITS_COST * (time.monotonic() - began)))


class _Lines:
    """What is shown where there is no terminal: one line at each change of state or notice."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def show(self, proof: Proof) -> None:
        line = standing(proof.campaign)
        if line != self._last:
            self._last = line
            self._console.print(Text(terminal.clean(line)), soft_wrap=True)


def standing(campaign: Campaign) -> str:
    """Return in one line how a campaign stands."""
    line = f"{campaign.name}: {campaign.state}"
    if campaign.state in {"scheduled", "awaiting"}:
        line += f", to start {calendar.show(campaign.start_at, campaign.time_zone)}"
    return f"{line} ({campaign.notice})" if campaign.notice else line


class _Bar:
    """What is shown on a terminal: how it stands, a bar with the time left, the counts."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        #: When we began to look, and how many were done by then.
        self._began: tuple[float, int] | None = None

    def view(self, proof: Proof, slowed: Sequence[Strain]) -> Group:
        total = proof.campaign.audience or max(self._expected, sum(proof.by_state.values()))
        done = sum(proof.by_state.values()) - proof.open
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        left = self._left(done, total) if proof.campaign.state == "running" else ""
        told = f"{count(done)} of {count(total)}{left}"
        bar.add_row(ProgressBar(total=total or 1, completed=done), told)
        notice = Text(terminal.clean(standing(proof.campaign)), "yellow" if proof.campaign.notice else "bold")
        slow = [Text(terminal.clean(pacing.line(one)), "yellow") for one in slowed]
        return Group(notice, bar, Text(counts(proof), "dim"), *slow)

    def _left(self, done: int, total: int) -> str:
        """Guess the time that is left from what was done since we began to look."""
        now = time.monotonic()
        began, at_first = self._began = self._began or (now, done)
        if done <= at_first or done >= total or now - began < _LEARNING:
            return ""
        seconds = (total - done) * (now - began) / (done - at_first)
        return f", {dt.timedelta(seconds=round(seconds))} left"


def counts(proof: Proof) -> str:
    """Return how many stand in each state that somebody is in."""
    present = [state for state in State if proof.by_state.get(state)]
    ordered = sorted(present, key=lambda state: state in OPEN)
    return ", ".join(f"{count(proof.by_state[state])} {state}" for state in ordered) or "nobody yet"
