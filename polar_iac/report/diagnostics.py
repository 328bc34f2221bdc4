"""Errors as text, with the line they are about."""

from __future__ import annotations

import re
from collections.abc import Sequence

from click import style

from polar_iac.errors import Diagnostic
from polar_iac.report.layout import display_width
from polar_iac.report.wording import WIDTH
from polar_iac.sanitize import printable, printable_lines

_COLORS = {"error": "red", "warning": "yellow", "info": "cyan"}


def error_text(message: str) -> str:
    """Return an error without a place in a file. A message that starts with its place stays as it is."""
    message = printable_lines(message)
    if re.match(r"\S+: error: ", message):
        return message + "\n"
    return style("error", fg="red", bold=True) + f": {message}\n"


def diagnostics_text(diagnostics: Sequence[Diagnostic], width: int = WIDTH) -> str:
    """Return `FILE:LINE:COL: SEVERITY: message` for each, with its line, clipped if long, and a caret."""
    return "".join(_diagnostic(d, width) for d in diagnostics)


def _diagnostic(diagnostic: Diagnostic, width: int) -> str:
    span = diagnostic.span
    color = _COLORS[diagnostic.severity]
    severity = style(diagnostic.severity, fg=color, bold=True)
    head = f"{printable(span.file)}:{span.line}:{span.column}: {severity}"
    text = f"{head}: {printable(diagnostic.text)}\n"
    if not diagnostic.excerpt.strip():
        return text
    margin = f"{span.line:>5} | "
    room = max(width - len(margin) - 2, 20)
    before, marked, after = _clipped(diagnostic.excerpt, span.column - 1, span.end_column - 1, room)
    caret = " " * display_width(before) + "^" * max(1, display_width(marked))
    blank = " " * (len(margin) - 2) + "| "
    return f"{text}{margin}{before}{marked}{after}\n{blank}{style(caret, fg=color)}\n"


def _clipped(line: str, start: int, end: int, room: int) -> tuple[str, str, str]:
    """Cut a line to `room` around the marked part. Return before, marked and after, each printable."""
    start = min(start, len(line))
    end = min(max(end, start), len(line), start + room // 2)
    first = max(0, start - room // 2) if len(line) > room else 0
    last = min(len(line), max(end, first + room))
    before, marked, after = (printable(line[a:b]) for a, b in ((first, start), (start, end), (end, last)))
    return ("…" if first else "") + before, marked, after + ("…" if last < len(line) else "")
