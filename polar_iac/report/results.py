"""Results of an apply as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from polar_iac.apply.events import Applied, Event, Failed, Skipped, Unconfirmed, Unknown
from polar_iac.report.diagnostics import diagnostics_text
from polar_iac.report.layout import SIGNS, paint
from polar_iac.report.wording import agree, listed
from polar_iac.sanitize import printable

_KEYS = 5
"""Most keys that are listed when many share one result."""
_PAST = {
    "create": "created",
    "update": "updated",
    "archive": "archived",
    "unarchive": "unarchived",
    "adopt": "adopted",
    "forget": "forgotten",
    "moved": "moved",
    "mark": "marked",
    "release": "released",
    "refresh": "recorded",
    "settle": "duplicate archived",
}


def event_text(event: Event) -> str:
    """Return what an apply did, or failed to do, with one meter."""
    if isinstance(event, Unknown):
        return paint("blocked", f"  ! {printable(event.message)}") + "\n"
    if isinstance(event, Skipped):
        return skipped_text([event])
    key = printable(event.key)
    match event:
        case Applied():
            sign = event.action if event.action in SIGNS else "bookkeeping"
            return paint(sign, f"  {SIGNS[sign]} {key} {_PAST[event.action]} {event.id}") + "\n"
        case Unconfirmed():
            return paint("blocked", f"  ! {key} unconfirmed:") + f"\n    {printable(event.message)}\n"
        case Failed():
            cause = diagnostics_text(event.diagnostics) or f"    {printable(event.message)}\n"
            return paint("blocked", f"  ! {key}: {event.action} failed:") + f"\n{cause}"


def skipped_text(events: Sequence[Skipped]) -> str:
    """List the meters that an apply skipped. Those of one reason share a line, unless they have a place."""
    keys_by_reason: dict[str, list[str]] = {}
    lines = []
    for event in events:
        if event.diagnostics:
            lines.append(diagnostics_text(event.diagnostics))
        else:
            keys_by_reason.setdefault(event.reason, []).append(printable(event.key))
    for reason, keys in keys_by_reason.items():
        unchanged = agree(len(keys), "left as it is", "left as they are")
        lines.append(paint("blocked", f"  ! {listed(keys, _KEYS)}") + f" {unchanged}: {printable(reason)}\n")
    return "".join(lines)


def result_text(events: Sequence[Event]) -> str:
    """Sum up an apply in one line."""
    done = Counter(_PAST[event.action] for event in events if isinstance(event, Applied))
    kinds = Counter(type(event) for event in events)
    counts = [f"{count:,} {verb}" for verb, count in done.items()] or ["nothing done"]
    if kinds[Failed]:
        counts.append(paint("blocked", f"{kinds[Failed]:,} failed"))
    if kinds[Unconfirmed]:
        counts.append(paint("blocked", f"{kinds[Unconfirmed]:,} unconfirmed"))
    if kinds[Unknown]:
        counts.append(paint("blocked", "some outcomes are unknown"))
    if kinds[Skipped]:
        counts.append(paint("blocked", f"{kinds[Skipped]:,} not done"))
    return f"Apply: {', '.join(counts)}."
