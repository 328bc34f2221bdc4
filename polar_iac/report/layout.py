"""Lines of a terminal: colors, columns, wrapping, width."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from click import style

from polar_iac.report.filters import Line
from polar_iac.report.risks import Grade
from polar_iac.report.wording import ORIGINS

SIGNS = {
    "create": "+",
    "update": "~",
    "archive": "-",
    "unarchive": "^",
    "mark": "@",
    "settle": "x",
    "release": ">",
    "bookkeeping": "=",
    "blocked": "!",
}
COLORS = {
    "create": "green",
    "update": "yellow",
    "archive": "red",
    "unarchive": "cyan",
    "mark": "blue",
    "settle": "red",
    "release": "blue",
    "bookkeeping": "bright_black",
    "blocked": "red",
}
_REMARK_COLUMN = 66
"""Column at which the right-hand notes begin."""
VALUE_COLUMN = 19
"""Column at which the values of a meter begin, after the field names."""


def paint(action: str, text: str) -> str:
    """Color a text by its action."""
    return style(text, fg=COLORS[action], bold=action == "blocked")


def labeled(label: str, text: str) -> str:
    """Return a line of a change: a label, and its text in the column of values."""
    return (f"      {label}".ljust(VALUE_COLUMN) + text).rstrip()


def filter_lines(lines: Iterator[Line]) -> Iterator[str]:
    """Yield the lines of a filter or of a difference, indented under their change."""
    for line in lines:
        text = f"        {line.sign} {'  ' * line.depth}{line.text}"
        yield style(text, fg={"-": "red", "+": "green"}.get(line.sign))


def in_columns(left: str, remarks: Sequence[str], width: int, action: str | None = None) -> str:
    """Put remarks after a line: in their column if there is room, else at the right edge, or below."""
    taken, needed = display_width(left), display_width(", ".join(remarks))
    gap = " " * max(2, min(_REMARK_COLUMN, width - needed) - taken)
    if taken + len(gap) + needed > max(width, _REMARK_COLUMN):
        # Keep them off the left edge, where a file name could look like a line of our own output.
        gap = "\n" + " " * max(6, min(_REMARK_COLUMN, width - needed))
    painted = paint(action, left) if action else left
    return painted + gap + ", ".join(map(_remark, remarks)) if remarks else painted


def _remark(text: str) -> str:
    """Color a remark by how much it matters: what decides bills stands out, what is routine is dim."""
    if text == "billing":
        return style(text, fg="bright_yellow", bold=True)
    return warning(text) if text in ORIGINS.values() else style(text, dim=True)


def emphasized(grade: Grade, text: str) -> str:
    """Color a headline by its grade: what decides bills is the brightest."""
    if grade == "blocked":
        return paint("blocked", text)
    return style(text, fg="bright_yellow" if grade == "billing" else None, bold=grade != "internal")


def warning(text: str) -> str:
    """Color what a reviewer is warned of."""
    return style(text, fg="yellow")


def wrapped(text: str, indent: str, width: int) -> Iterator[str]:
    """Wrap prose to `width` columns. The first line starts with `indent`, the others align with its text."""
    line, rest = indent, " " * len(indent)
    for word in text.split(" "):
        if display_width(line) + display_width(word) > width and line.strip():
            yield line.rstrip()
            line = rest
        line += word + " "
    yield line.rstrip()


def display_width(text: str) -> int:
    """Return the approximate number of columns that `text` takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )
