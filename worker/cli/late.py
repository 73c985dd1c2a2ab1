"""What became known of a campaign's mails after the relay took them, laid out for a report.

Owns the names of these lines: late bounces, complaints, opt-outs. Refuses: to change how a delivery ended.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from rich.table import Table
from rich.text import Text

from worker.cli import terminal
from worker.cli.terminal import Column, count

#: How many deliveries have each fact, by its kind and its reason or way.
Facts: TypeAlias = Mapping[tuple[str, str], int]


def table(facts: Facts) -> Table:
    """Lay out each kind with its total, and beneath it how that came about, where there are several ways."""
    rows: list[tuple[str | Text, str]] = []
    for kind, total in by_kind(facts).items():
        sources = sorted((-number, source) for (one, source), number in facts.items() if one == kind)
        alone = len(sources) == 1
        rows.append((f"{kind}: {sources[0][1]}" if alone else kind, count(total)))
        if not alone:
            rows += [(Text(f"  {terminal.clean(source)}", "dim"), count(-less)) for less, source in sources]
    return terminal.table((Column("Known since"), Column("People", number=True)), rows)


def by_kind(facts: Facts) -> Mapping[str, int]:
    """Return how many deliveries have each kind of fact."""
    totals = Counter[str]()
    for (kind, _), number in sorted(facts.items()):
        totals[kind] += number
    return dict(totals)


def lines(facts: Facts) -> Sequence[Mapping[str, object]]:
    """Return the counts for programs."""
    return [{"kind": kind, "source": way, "count": number} for (kind, way), number in sorted(facts.items())]
