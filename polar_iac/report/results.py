"""Results of an apply as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from polar_iac.apply.events import Applied, Event, Failed, Skipped, Unconfirmed, Unknown
from polar_iac.report.diagnostics import diagnostics_text
from polar_iac.report.layout import SIGNS, paint
from polar_iac.sanitize import printable

_NAMED = 5
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
    "refresh": "recorded",
    "settle": "duplicate archived",
}


def event_text(event: Event) -> str:
    """Return what an apply did, or failed to do, with one meter."""
    if isinstance(event, Unknown):
        return paint("blocked", f"  ! {printable(event.message)}") + "\n"
    sign = event.action if event.action in SIGNS else "bookkeeping"
    head = f"  {SIGNS[sign]} {printable(event.key)}"
    match event:
        case Applied():
            return paint(sign, f"{head} {_PAST[event.action]} {event.id}") + "\n"
        case Skipped():
            return left_text([event])
        case Unconfirmed():
            head = f"  ! {printable(event.key)} unconfirmed:"
            return paint("blocked", head) + f"\n    {printable(event.message)}\n"
        case Failed():
            told = diagnostics_text(event.diagnostics) or f"    {printable(event.message)}\n"
            return paint("blocked", f"  ! {printable(event.key)} failed to {event.action}:") + f"\n{told}"


def left_text(events: Sequence[Skipped]) -> str:
    """List the meters that an apply left alone. Meters left for the same reason share a line."""
    lines = []
    for reason, told in _by_reason(events).items():
        named = ", ".join(printable(event.key) for event in told[:_NAMED])
        more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        be = "as it is" if len(told) == 1 else "as they are"
        lines.append(paint("blocked", f"  ! {named}") + f"{more} left {be}: {printable(reason)}\n")
    return "".join(lines)


def _by_reason(events: Sequence[Skipped]) -> Mapping[str, Sequence[Skipped]]:
    told: dict[str, list[Skipped]] = {}
    for event in events:
        told.setdefault(event.reason, []).append(event)
    return told


def result_text(events: Sequence[Event]) -> str:
    """Sum up an apply in one line."""
    done = Counter(_PAST[event.action] for event in events if isinstance(event, Applied))
    failed = sum(isinstance(event, Failed) for event in events)
    unconfirmed = sum(isinstance(event, Unconfirmed) for event in events)
    left = sum(isinstance(event, Skipped) for event in events)
    told = [f"{count} {verb}" for verb, count in done.items()] or ["nothing done"]
    if failed:
        told.append(paint("blocked", f"{failed} failed"))
    if unconfirmed:
        told.append(paint("blocked", f"{unconfirmed} unconfirmed"))
    if any(isinstance(event, Unknown) for event in events):
        told.append(paint("blocked", "some outcomes are unknown"))
    if left:
        told.append(paint("blocked", f"{left} not done"))
    return f"Apply: {', '.join(told)}."
