"""All checks, and how a meter and a manifest's meters go through them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from polar_iac.lint import declarations, matching, overlap, reach, surprise, text, types
from polar_iac.lint.declarations import aggregated_type
from polar_iac.lint.overlap import Declared
from polar_iac.lint.registry import RULES
from polar_iac.lint.rule import Finding, Path
from polar_iac.lint.subject import Check, Subject

_CHECKS: Mapping[str, Check] = {
    **matching.CHECKS,
    **types.CHECKS,
    **reach.CHECKS,
    **declarations.CHECKS,
    **surprise.CHECKS,
    **text.CHECKS,
}
OF_METERS: Mapping[str, Sequence[Check]] = {
    name: (check, aggregated_type) if name == "aggregated-text" else (check,)
    for name, check in _CHECKS.items()
}
"""The checks of each rule that looks at one meter, by the rule's name."""
OF_PAIRS = ("equal-meters", "same-name", "implied-meter")
"""Rules that look at two meters."""
_SAID_BY: Mapping[str, frozenset[str]] = {
    "wrong-type": frozenset({"quoted-number", "quoted-boolean", "never-matches"}),
    "undeclared-property": frozenset({"nested-property", "unreachable-property"}),
    "quoted-number": frozenset({"white-space"}),
}
"""Rules that are silent where another one has a finding at the same place: it says the same, and more."""


def meter_findings(subject: Subject, rules: Collection[str]) -> list[Finding]:
    """Return what these rules find in one meter, in the order of their codes."""
    found = [finding for rule in rules for check in OF_METERS.get(rule, ()) for finding in check(subject)]
    if len(found) < 2:
        return found
    at: dict[Path, set[str]] = {}
    for finding in found:
        at.setdefault(finding.path, set()).add(finding.rule)
    return [f for f in found if at[f.path].isdisjoint(_SAID_BY.get(f.rule, ()))]


def pair_findings(
    meters: Iterable[Declared], rules: Collection[str], changed: Collection[str] | None
) -> Iterator[tuple[str, Finding]]:
    """Yield what these rules find in two meters, by the key of the one that it is said of.

    Archived meters count nothing, and are left out. With `changed`, only pairs in which one of these keys
    takes part are given to the decision procedure.
    """
    active = [meter for meter in meters if not meter.spec.archived]
    if "equal-meters" in rules:
        yield from overlap.equal_meters(active, changed)
    if "same-name" in rules:
        yield from overlap.same_name(active)
    if "implied-meter" in rules:
        yield from overlap.implied_meter(active, changed)


def rules_for(ignored: Collection[str], *, infos: bool) -> tuple[str, ...]:
    """Return the names of the rules to check, in the order of their codes."""
    return tuple(
        name
        for name, rule in RULES.items()
        if name not in ignored and (infos or rule.severity == "warning") and not rule.refused
    )
