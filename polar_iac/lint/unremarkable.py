"""A look at a meter that is quick, and sees that no warning can be about it: most meters are so."""

from __future__ import annotations

import re
from collections.abc import Sequence

from polar_iac.meter.filter import ORDER_OPERATORS, Clause, Filter
from polar_iac.meter.spec import MeterSpec

_PROPERTY = re.compile(
    r"(?!(?:name|source|timestamp|event_name|customer_id|external_customer_id|organization_id|metadata)$)"
    r"(?!(?:_cost|_llm)$)"
    r"[a-z_][a-z0-9_]*"
)
"""Keys of metadata that no rule about properties looks at."""
_TEXT = re.compile(r"(?!(?i:true|false)$)[A-Za-z](?:[\w./:-]*[A-Za-z0-9])?", re.ASCII)
"""Texts that no rule about values looks at: no numbers, patterns, white space or odd characters."""
_LABEL = re.compile(r"(?! )[ -~]+(?<! )")


def is_unremarkable(spec: MeterSpec) -> bool:
    """Tell whether no warning can be about a meter, of a manifest that declares no events."""
    aggregated = spec.aggregation.property
    return (
        _LABEL.fullmatch(spec.name) is not None
        and (spec.custom_label is None or _LABEL.fullmatch(spec.custom_label) is not None)
        and (aggregated is None or _PROPERTY.fullmatch(aggregated) is not None)
        and bool(spec.filter.clauses)
        and _is_unremarkable_group(spec.filter, set())
    )


def _is_unremarkable_group(group: Filter, seen: set[str]) -> bool:
    """Tell the same of a group: no property that another group has, so that no clauses bear on each other.

    In one group a property may occur in two usual ways: as texts under `or`, or as a range under `and`.
    """
    own: dict[str, list[Clause]] = {}
    for part in group.clauses:
        if isinstance(part, Filter):
            if not part.clauses or not _is_unremarkable_group(part, seen):
                return False
        elif _is_unremarkable_clause(part):
            own.setdefault(part.property, []).append(part)
        else:
            return False
    if not seen.isdisjoint(own):
        return False
    seen.update(own)
    return all(len(clauses) == 1 or _is_usual(group.conjunction, clauses) for clauses in own.values())


def _is_usual(conjunction: str, clauses: Sequence[Clause]) -> bool:
    """Tell whether several clauses about one property are different texts, or a range that holds a number."""
    if conjunction == "or":
        return all(clause.operator in ("eq", "like") for clause in clauses)
    operators = {clause.operator: clause.value for clause in clauses}
    if len(clauses) != 2 or len(operators) != 2:
        return False
    low, high = (
        next((v for operator, v in operators.items() if operator in wanted and type(v) is int), None)
        for wanted in (("gt", "gte"), ("lt", "lte"))
    )
    return low is not None and high is not None and low < high


def _is_unremarkable_clause(clause: Clause) -> bool:
    name, value = clause.property, clause.value
    if isinstance(value, str):
        if clause.operator in ORDER_OPERATORS or not _TEXT.fullmatch(value):
            return False
        return name == "name" or _PROPERTY.fullmatch(name) is not None
    return _PROPERTY.fullmatch(name) is not None and clause.operator not in ("like", "not_like")
