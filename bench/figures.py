"""What `bench/dispatch.py` measured, and what it comes to: the table of what must be reached, and the rest.

Owns the figures, their medians and ratios, and how they are told: on a terminal, as JSON, in
docs/performance.md. Refuses: measuring.
"""

import datetime as dt
import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from office import Run
from rivals import Choice
from sinks import Pass, middle

YARDSTICK: Final = "smtp-source -d -s 10"
SQLITE: Final = "Tocsin, 2 processes, SQLite"
POSTGRES: Final = "Tocsin, 2 processes, PostgreSQL"
ONE: Final = "Tocsin, 1 process, SQLite"
FAR: Final = "Tocsin, 2 processes, replies 50 ms late"
NAIVE: Final = "Jinja + premailer + EmailMessage + smtplib"
#: django-post_office with the Celery task that ships, which is one process; and with a task of ours that uses
#: the two processes its command line knows. Which is faster is for the run to say.
WHOLE: Final = {
    "django-post_office, its Celery task": Choice(1),
    "django-post_office, two processes": Choice(2, late=True, bulk=5000),
}
SENDING: Final = {
    "django-post_office, its Celery task, sending alone": Choice(1),
    "django-post_office, two processes, sending alone": Choice(2),
}


@dataclass
class Figures:
    """Everything that was measured, by contestant and round."""

    steady: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  #: mails a second
    overall: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    processor: dict[str, list[Mapping[str, float]]] = field(default_factory=lambda: defaultdict(list))
    proxy: list[float] = field(default_factory=list)  #: share of a processor that the proxy used
    faults: list[str] = field(default_factory=list)  #: what did not add up
    counted: int = 0  #: mails of ours that the sink took and that the ledger knows, one for one
    looked_up: int = 0  #: recipients looked up in what the sink took
    lost: int = 0
    twice: int = 0
    cost: dict[str, Any] = field(default_factory=dict)  #: by database, see `microseconds.Cost`

    def note(self, who: str, run: Run) -> None:
        """Keep a campaign of ours."""
        self.note_pass(who, run.taken)
        self.overall[who][-1] = run.overall
        self.processor[who].append(run.processor)
        self.check(who, run)

    def check(self, who: str, run: Run) -> None:
        """Count a campaign, and keep what does not add up."""
        self.counted += run.taken.mails
        self.faults += [f"{who}: {fault}" for fault in run.faults]

    def note_pass(self, who: str, taken: Pass) -> None:
        """Keep a run of anybody's."""
        self.steady[who].append(taken.steady)
        self.overall[who].append(taken.overall)

    def ratio(self, one: str, other: str, *, whole: bool = False) -> float:
        """Return the median over the rounds of one's rate over another's."""
        rates = self.overall if whole else self.steady
        return middle([ours / theirs for ours, theirs in zip(rates[one], rates[other], strict=True)])

    def parts(self, who: str) -> Mapping[str, float]:
        """Return what each part of ours uses of the processor, in microseconds per mail."""
        shots = self.processor[who]
        return {part: middle([shot[part] for shot in shots]) for part in shots[0]}

    @property
    def wrong(self) -> int:
        """Return how much of it breaks a promise."""
        return self.lost + self.twice + len(self.faults)


@dataclass(frozen=True)
class Line:
    """One line of the table: a figure, what it must reach, and what it should."""

    figure: str
    value: float
    must: float
    aim: float
    unit: str = " times"
    less: bool = False  #: less is better

    @property
    def verdict(self) -> str:
        """Say which of the two it reached."""
        if self._reaches(self.aim):
            return "aim reached"
        return "reached" if self._reaches(self.must) else "**missed**"

    def _reaches(self, mark: float) -> bool:
        return self.value <= mark if self.less else self.value >= mark


def table(figures: Figures) -> Sequence[Line]:
    """Return the table of what must be reached."""
    ratio = figures.ratio
    jobs = [(ours, min(ratio(ours, who, whole=True) for who in WHOLE)) for ours in (SQLITE, POSTGRES)]
    return [
        Line("mails/s over smtp-source's, 2 processes, SQLite", ratio(SQLITE, YARDSTICK), 0.5, 1.0),
        Line("mails/s over smtp-source's, 2 processes, PostgreSQL", ratio(POSTGRES, YARDSTICK), 0.5, 1.0),
        Line("mails/s over the naive loop, one process each", ratio(ONE, NAIVE), 25, 50),
        *(
            Line(f"mails/s over django-post_office's, the whole job, {ours.split()[-1]}", job, 8, 20)
            for ours, job in jobs
        ),
        Line("mails/s, replies 50 ms late, 32 connections", middle(figures.steady[FAR]), 500, 600, ""),
        *(
            Line(
                f"µs for ledger, journal, claim, suppression check; {database}",
                cost["certainty"],
                60,
                25,
                "",
                less=True,
            )
            for database, cost in figures.cost.items()
        ),
        Line("lost, mailed twice, or not adding up", figures.wrong, 0, 0, "", less=True),
    ]


# -- told ---------------------------------------------------------------------------------------------


def machine() -> Mapping[str, Any]:
    """Describe the machine, naming nobody."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in told if line.startswith("model name")), "unknown"
    )
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def as_json(figures: Figures, about: Mapping[str, Any]) -> str:
    """Return everything, with every round."""
    lines = [{**asdict(line), "verdict": line.verdict.strip("*")} for line in table(figures)]
    text = json.dumps({**about, "table": lines, **vars(figures)})
    rounded = json.loads(text, parse_float=lambda number: round(float(number), 3))
    return json.dumps(rounded, indent=1, ensure_ascii=False) + "\n"


def markdown(figures: Figures, about: Mapping[str, Any]) -> str:
    """Return the tables for docs/performance.md."""
    parts = (_place, _reached, _rates, _processor, _steps)
    return "\n".join(line for part in parts for line in (*part(figures, about), ""))


def _place(figures: Figures, about: Mapping[str, Any]) -> Iterator[str]:
    there = about["machine"]
    yield f"Measured {there['date']} on {there['cores']} cores of {there['processor']} ({there['system']}),"
    yield f"Python {there['python']}, with a load of {there['load_before']} before it."
    rounds = len(figures.steady[YARDSTICK])
    yield f"Mails of {about['mail_octets']:,} octets; each figure is the median of {rounds} rounds."


def _reached(figures: Figures, _about: Mapping[str, Any]) -> Iterator[str]:
    yield from _rows(
        ("figure", "now", "must", "aim", ""),
        [
            (line.figure, _number(line.value) + line.unit, f"{line.must:g}", f"{line.aim:g}", line.verdict)
            for line in table(figures)
        ],
    )
    yield ""
    yield f"{figures.counted:,} mails of ours were counted at the sink and in the ledger, one for one."
    yield f"Of these, {figures.looked_up:,} were looked up by recipient:"
    yield f"{figures.lost} lost, {figures.twice} mailed twice."
    yield ""
    bare = min(figures.ratio(SQLITE, who) for who in SENDING)
    yield "Were django-post_office's mails made beforehand, and only its sending counted, against all that"
    yield f"Tocsin does for a mail, it would still take {bare:.1f} times as long."


def _rates(figures: Figures, _about: Mapping[str, Any]) -> Iterator[str]:
    yield from _rows(
        ("who", "mails/s, steady", "mails/s, from order to last mail"),
        [
            (who, f"{middle(rates):,.0f}", f"{middle(figures.overall[who]):,.0f}")
            for who, rates in figures.steady.items()
        ],
    )


def _processor(figures: Figures, _about: Mapping[str, Any]) -> Iterator[str]:
    yield from ("Processor time of each part, µs per mail:", "")
    names = list(figures.parts(POSTGRES))
    yield from _rows(
        ("", *names),
        [
            (who, *(f"{parts[name]:.0f}" if name in parts else "" for name in names))
            for who in figures.processor
            for parts in (figures.parts(who),)
        ],
    )


def _steps(figures: Figures, _about: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        "Where a sending process spends it, µs per mail (one process, sampled by processor time):",
        "",
    )
    costs = figures.cost.values()
    names = dict.fromkeys(name for cost in costs for name in cost["steps"])
    yield from _rows(
        ("step", *figures.cost),
        [
            *((name, *(f"{cost['steps'].get(name, 0):.1f}" for cost in costs)) for name in names),
            ("**all**", *(f"**{sum(cost['steps'].values()):.0f}**" for cost in costs)),
        ],
    )
    for database, cost in figures.cost.items():
        if cost["server"]:
            yield ""
            yield f"Beside it, {database}'s own processes use {middle(cost['server']):.0f} µs per mail."


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.2f}"


def replaced(page: str, tables: str) -> str:
    """Put the tables into a page, between its two marks."""
    head, begin, rest = page.partition("<!-- figures -->\n")
    _, end, tail = rest.partition("<!-- end of figures -->")
    assert begin, "the page has no place for figures"
    assert end, "the page's place for figures has no end"
    return f"{head}{begin}\n{tables}\n{end}{tail}"
