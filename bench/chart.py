"""A bar chart as SVG, drawn by hand: a library for one picture would be a dependency too many.

Pure: figures in, text out.
"""

from collections.abc import Mapping
from html import escape
from typing import Final

_LEFT, _WIDTH, _BAR, _GAP, _TOP = 400, 940, 22, 12, 46  # pixels
_ROOM: Final = _WIDTH - _LEFT - 90
_OURS, _THEIRS = "#6f4cc0", "#8a8f98"
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#1f2127}.title{font-weight:600;font-size:15px}"
    "@media(prefers-color-scheme:dark){text{fill:#ecebe8}}"
)


def bars(rates: Mapping[str, float], title: str) -> str:
    """Draw one bar for each rate, the longest first, from nought on."""
    rows = sorted(rates.items(), key=lambda row: -row[1])
    height = _TOP + len(rows) * (_BAR + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
    ]
    for number, (who, rate) in enumerate(rows):
        y, length = _TOP + number * (_BAR + _GAP), _ROOM * rate / rows[0][1]
        colour = _OURS if who.startswith("Tocsin") else _THEIRS
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 16}" text-anchor="end">{escape(who)}</text>')
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + length + 8:.1f}" y="{y + 16}">{rate:,.0f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
