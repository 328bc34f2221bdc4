"""Risks: reasons why a reviewer must look at a change, and the grades that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from polar_iac.meter.fields import FROZEN_FIELDS
from polar_iac.plan.model import Change
from polar_iac.report.evidence import evidence
from polar_iac.report.wording import action_counts, agree

Risk = Literal["billing", "archive", "blocked", "nothing", "invoice", "outside", "warning"]
RISKS: tuple[Risk, ...] = ("billing", "archive", "blocked", "nothing", "invoice", "outside", "warning")
Grade = Literal["billing", "blocked", "invoice", "internal"]
Stake = Literal["bills", "balances", "may bill"]
"""Known dependents of a meter: a live price, credits only, or unknown."""
Prospect = Literal["bills", "balances", "may bill", "refused"]
"""Outcome for a bill: what is at stake, or nothing where Polar will almost certainly refuse."""

GRADES: Mapping[Risk, Grade] = {
    "billing": "billing",
    "archive": "billing",
    "blocked": "blocked",
    "nothing": "invoice",
    "invoice": "invoice",
}
"""Grade of each risk. All other changes are internal."""
GRADE_SIGNS: Mapping[Grade, str] = {"billing": "🔴", "blocked": "⛔", "invoice": "🟠", "internal": "⚪"}
BILLING_PHRASES: Mapping[Prospect, tuple[str, str]] = {
    "bills": ("changes what is billed", "change what is billed"),
    "balances": ("changes balances", "change balances"),
    "may bill": ("may change what is billed", "may change what is billed"),
    "refused": (
        "would change what is billed, but Polar will almost certainly refuse it",
        "would change what is billed, but Polar will almost certainly refuse them",
    ),
}
RISK_PHRASES: Mapping[Risk, tuple[str, str]] = {
    "archive": ("archives a meter", "archive meters"),
    "blocked": ("is blocked", "are blocked"),
    "nothing": ("change would have had no effect", "changes would have had no effect"),
    "invoice": ("changes what customers read", "change what customers read"),
    "outside": ("overwrites a change made at Polar", "overwrite changes made at Polar"),
    "warning": ("has another warning", "have other warnings"),
}
"""Predicate of one change, and of several, that have a risk. Of one that is billed its prospect decides."""
_NEW_NOTHING = ("new meter would count nothing", "new meters would count nothing")
SEVERITIES: Mapping[Risk, Literal["error", "warning"]] = {
    "billing": "warning",
    "archive": "warning",
    "blocked": "error",
    "nothing": "warning",
    "outside": "warning",
    "warning": "warning",
}
"""Severity of each risk, the same in text, comment and annotations.

An error (⛔, red) is what is not carried out, a warning (⚠️, yellow) what to look at. Notes that are neither
(ℹ️) are no risk. What customers read has no severity: it is shown with its change, and not annotated.
"""
_IMPLIED = frozenset({"archive", "attached", "freeze", "gap", "impact", "outside", "rematch", "usage"})
"""Kinds of the warnings that come with another risk, and add none."""


def risks(change: Change) -> list[Risk]:
    """List why a reviewer must look at a change, most serious first. Empty if there is no risk.

    A create is not a billing risk: a new meter bills nothing until a price points at it.
    """
    archives, blocked = change.action in ("archive", "settle"), change.action == "blocked"
    fields = () if blocked or change.action == "create" else change.fields
    impacts = {field.impact for field in fields}
    warnings = {note.kind for note in change.notes if note.severity == "warning"}
    counts = change.action == "create" or "billing" in impacts
    nothing = counts and change.action in ("create", "update") and _is_nothing(change)
    found: dict[Risk, bool] = {
        "billing": not archives and not nothing and (change.action == "unarchive" or "billing" in impacts),
        "archive": archives,
        "blocked": blocked,
        "nothing": nothing,
        "invoice": "invoice" in impacts,
        "outside": not blocked
        and (any(field.origin != "manifest" for field in fields) or "outside" in warnings),
        "warning": bool(warnings - _IMPLIED - ({"unseen"} if nothing else set())),
    }
    return [kind for kind in RISKS if found[kind]]


def _is_nothing(change: Change) -> bool:
    """Tell whether all events of a period were read, and none is counted differently."""
    if not any(note.kind == "impact" for note in change.notes):  # most changes: nothing to read
        return False
    impact = evidence(change).impact
    return impact is not None and impact.is_nothing(created=change.action == "create")


def risk(change: Change) -> Risk | None:
    """Return the most serious reason to look at a change, or None."""
    return next(iter(risks(change)), None)


def grade_of(kinds: Sequence[Risk]) -> Grade:
    """Return the grade of a change that has these risks, most serious first."""
    return GRADES.get(kinds[0], "internal") if kinds else "internal"


def grade(change: Change) -> Grade:
    """Return how bad a change is at a glance."""
    return grade_of(risks(change))


def stake(change: Change) -> Stake:
    """Return what is known to depend on the meter of a change."""
    attached = evidence(change).attached
    if attached and attached.products:
        return "bills"
    credited = attached and attached.products is not None and attached.benefits
    return "balances" if credited else "may bill"


def will_refuse(change: Change) -> bool:
    """Tell whether usage says that Polar will almost certainly refuse a change of what is counted."""
    freeze = evidence(change).freeze
    return (
        freeze is not None
        and freeze.state == "likely"
        and change.action in ("update", "unarchive")
        and any(field.path in FROZEN_FIELDS for field in change.fields)
    )


def prospect(change: Change) -> Prospect:
    """Return what a change of what is counted means for the bill."""
    return "refused" if will_refuse(change) else stake(change)


def adopts_only(changes: Iterable[Change]) -> bool:
    """Tell whether each change that writes only a marker takes a meter over."""
    return all(change.reason == "adopted" for change in changes if change.action == "mark")


def change_counts(changes: Sequence[Change]) -> list[str]:
    """Count changes by action: `1 to create`, `3 to update (1 likely refused)`, `60 to adopt`."""
    counts = Counter[str](change.action for change in changes)
    refused = Counter[str](change.action for change in changes if will_refuse(change))
    texts = action_counts(counts)
    if "mark" in texts and adopts_only(changes):
        texts["mark"] = f"{counts['mark']:,} to adopt"
    for action, count in refused.items():
        of_these = f"{count:,} " if count < counts[action] else ""
        texts[action] += f" ({of_these}likely refused)"
    return [*texts.values()]


def risk_counts(changes: Iterable[Change]) -> list[str]:
    """Say for each risk how many changes have it: `2 change what is billed`, `1 archives a meter`.

    A change that has several is counted under each, so that every number counts what it says. Of one that
    Polar will refuse nothing else is promised.
    """
    return [part for _, parts in graded_counts(changes) for part in parts]


def graded_counts(changes: Iterable[Change]) -> list[tuple[str, list[str]]]:
    """Return the counts of `risk_counts` by grade, each grade as its sign."""
    counts, prospects, new = Counter[Risk](), Counter[Prospect](), 0
    for change in changes:
        kinds, becomes = risks(change), prospect(change)
        counts.update(kind for kind in kinds if becomes != "refused" or kind in ("billing", "warning"))
        prospects.update([becomes] if "billing" in kinds else [])
        new += "nothing" in kinds and change.action == "create"
    # "another" refers to a risk that is counted before it.
    warning = ("has a warning", "have warnings") if counts.keys() == {"warning"} else RISK_PHRASES["warning"]
    phrases = {**RISK_PHRASES, "warning": warning}
    parts: dict[Grade, list[str]] = {grade_: [] for grade_ in GRADE_SIGNS}
    parts["billing"] = [
        _counted(prospects[becomes], phrase)
        for becomes, phrase in BILLING_PHRASES.items()
        if prospects[becomes]
    ]
    parts["invoice"] = [_counted(new, _NEW_NOTHING)] if new else []
    counts["nothing"] -= new
    for kind, phrase in phrases.items():
        if counts[kind]:
            parts[grade_of([kind])].append(_counted(counts[kind], phrase))
    return [(GRADE_SIGNS[grade_], texts) for grade_, texts in parts.items() if texts]


def _counted(count: int, phrase: tuple[str, str]) -> str:
    return f"{count:,} {agree(count, *phrase)}"
