"""Risks: reasons for which a reviewer must look at a change."""

from __future__ import annotations

from typing import Literal

from polar_iac.plan.model import Change

Risk = Literal["billing", "archive", "blocked", "outside", "warning"]
RISKS: tuple[Risk, ...] = ("billing", "archive", "blocked", "outside", "warning")

RISK_PHRASES = {
    "billing": ("changes what is billed", "change what is billed"),
    "archive": ("archives a meter", "archive meters"),
    "blocked": ("is blocked", "are blocked"),
    "outside": ("overwrites a change made at Polar", "overwrite changes made at Polar"),
    "warning": ("has a warning", "have warnings"),
}
"""Predicate of one change, and of several, that have a risk."""


def risk(change: Change) -> Risk | None:
    """Return why a reviewer must look at a change, or None.

    A create is not a billing risk: a new meter bills nothing until a price points at it.
    """
    if change.action in ("archive", "settle"):
        return "archive"
    if change.action == "blocked":
        return "blocked"
    if change.action == "unarchive":
        return "billing"
    fields = () if change.action == "create" else change.fields
    if any(field.impact == "billing" for field in fields):
        return "billing"
    if any(field.origin != "manifest" for field in fields):
        return "outside"
    return "warning" if any(note.severity == "warning" for note in change.notes) else None
