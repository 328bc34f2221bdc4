"""Risks: reasons for which a reviewer must look at a change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from polar_iac.plan.model import Change
from polar_iac.report.wording import agree

Risk = Literal["billing", "archive", "blocked", "outside", "warning"]
RISKS: tuple[Risk, ...] = ("billing", "archive", "blocked", "outside", "warning")

RISK_PHRASES = {
    "billing": ("changes what is billed", "change what is billed"),
    "archive": ("archives a meter", "archive meters"),
    "blocked": ("is blocked", "are blocked"),
    "outside": ("overwrites a change made at Polar", "overwrite changes made at Polar"),
    "warning": ("has another warning", "have other warnings"),
}
"""Predicate of one change, and of several, that have a risk."""
SEVERITIES: Mapping[Risk, Literal["error", "warning"]] = {
    "billing": "warning",
    "archive": "warning",
    "blocked": "error",
    "outside": "warning",
    "warning": "warning",
}
"""Severity of each risk, the same in text, comment and annotations.

An error (🛑, red) is what is not carried out, a warning (⚠️, yellow) what to look at. Notes that are neither
(ℹ️) are no risk.
"""
_IMPLIED = frozenset({"archive", "freeze", "gap", "outside", "rematch"})
"""Kinds of the warnings that come with another risk, and add none."""


def risks(change: Change) -> list[Risk]:
    """List why a reviewer must look at a change, most serious first. Empty if there is no risk.

    A create is not a billing risk: a new meter bills nothing until a price points at it.
    """
    archives, blocked = change.action in ("archive", "settle"), change.action == "blocked"
    fields = () if blocked or change.action == "create" else change.fields
    warnings = {note.kind for note in change.notes if note.severity == "warning"}
    found: dict[Risk, bool] = {
        "billing": not archives
        and (change.action == "unarchive" or any(field.impact == "billing" for field in fields)),
        "archive": archives,
        "blocked": blocked,
        "outside": not blocked
        and (any(field.origin != "manifest" for field in fields) or "outside" in warnings),
        "warning": bool(warnings - _IMPLIED),
    }
    return [kind for kind in RISKS if found[kind]]


def risk(change: Change) -> Risk | None:
    """Return the most serious reason to look at a change, or None."""
    return next(iter(risks(change)), None)


def risk_counts(risks_by_change: Iterable[Sequence[Risk]]) -> list[str]:
    """Say for each risk how many changes have it: `2 change what is billed`, `1 archives a meter`.

    A change that has several is counted under each, so that every number counts what it says.
    """
    counts = Counter(kind for kinds in risks_by_change for kind in kinds)
    if counts.keys() == {"warning"}:  # no other risk that "another" could refer to
        return [f"{counts['warning']:,} {agree(counts['warning'], 'has a warning', 'have warnings')}"]
    return [f"{counts[kind]:,} {agree(counts[kind], *RISK_PHRASES[kind])}" for kind in RISKS if counts[kind]]
