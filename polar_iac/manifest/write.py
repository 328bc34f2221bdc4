"""A meter as the YAML that declares it, in the style of a person."""

from __future__ import annotations

from typing import Any

from polar_iac.meter.filter import Clause, Filter
from polar_iac.meter.spec import MeterSpec
from polar_iac.yaml import write


def block(key: str, spec: MeterSpec) -> str:
    """Return the YAML lines that declare a meter, indented to fit under `meters:`."""
    return "\n".join(write.entry(key, declaration(spec), write.STEP)) + "\n"


def declaration(spec: MeterSpec) -> dict[str, Any]:
    """Return what a manifest says of a meter: no defaults, and the filter in its plain form."""
    declared = spec.declared() | {"filter": plain_filter(spec.filter).wire()}
    # First, since it decides whether the rest has any effect.
    return {"archived": True, **declared} if spec.archived else declared


def plain_filter(conditions: Filter) -> Filter:
    """Return a filter of the same meaning without the groups that say nothing, in the author's order.

    Polar's dashboard wraps each group of clauses: `and[or[x]]` is `and[x]`, and `and[and[x, y], z]` is
    `and[x, y, z]`.
    """
    root = _plain(conditions)
    if isinstance(root, Clause) or not root.clauses:
        return Filter("and", (root,) if isinstance(root, Clause) else ())
    return root


def _plain(part: Clause | Filter) -> Clause | Filter:
    if isinstance(part, Clause):
        return part
    clauses: list[Clause | Filter] = []
    for inner in map(_plain, part.clauses):
        # An empty group matches every event, whatever its conjunction: it is no part of the group around it.
        same = isinstance(inner, Filter) and inner.clauses and inner.conjunction == part.conjunction
        clauses += inner.clauses if isinstance(inner, Filter) and same else (inner,)
    return clauses[0] if len(clauses) == 1 else Filter(part.conjunction, tuple(clauses))
