"""Fields of a meter: their names, values, limits, and what a change of each affects."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Literal

Scalar = str | int | bool
MetadataValue = str | int | float | bool
Impact = Literal["billing", "invoice", "internal"]
CONJUNCTIONS = ("and", "or")
OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "like", "not_like")
ORDER_OPERATORS = ("gt", "gte", "lt", "lte")
FUNCS = ("count", "sum", "max", "min", "avg", "unique")
UNITS = ("scalar", "token", "custom")
UNIT_FIELDS = ("unit", "custom_label", "custom_multiplier")
IGNORABLE = ("name", "unit", "metadata")
"""Fields that `ignore_changes` may name, in addition to single metadata keys. `unit` includes the label and
multiplier."""
MAX_METADATA_KEYS = 50
IMPACT: Mapping[str, Impact] = {
    "filter": "billing",
    "aggregation": "billing",
    "name": "invoice",
    "unit": "invoice",
    "custom_label": "invoice",
    "custom_multiplier": "invoice",
    "metadata": "internal",
}
"""Fields of a meter in display order, each with what a change of it affects."""


def reading_order(path: str) -> tuple[int, str]:
    """Sort key for a path (a field name or `metadata.KEY`): fields in display order, then metadata keys."""
    name, _, key = path.partition(".")
    return list(IMPACT).index(name), key


FROZEN_FIELDS = ("filter", "aggregation")
"""Fields that Polar refuses to change once the meter has aggregated events."""


def is_ignored(path: str, ignored: Set[str]) -> bool:
    """Tell whether `ignore_changes` entries cover a path: a field name or `metadata.KEY`."""
    field_name = path.partition(".")[0]
    return path in ignored or ("unit" if field_name in UNIT_FIELDS else field_name) in ignored
