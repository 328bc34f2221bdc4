"""Canonical values: the form in which Polar stores and returns them, so that equal means equal."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any


def canonical_json(value: Any) -> str:
    """Return compact JSON with sorted keys.

    Equal texts mean equal values; `1`, `1.0`, and `true` are all different.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_property(name: str) -> str:
    """Return a property name without any leading `metadata.`.

    Polar strips one such prefix on each write and another on each read (observed), so only the bare name is
    stable.
    """
    while name.startswith("metadata."):
        name = name.removeprefix("metadata.")
    return name


def canonical_value(value: Any) -> Any:
    """Return a clause's value as Polar stores it: whole floats become ints (observed)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def canonical_metadata_value(value: Any) -> Any:
    """Return a metadata value as a GET returns it.

    Whole floats written with an exponent become ints, and `-0.0` becomes `0.0` (observed: PostgreSQL's jsonb
    stores numbers as decimals).
    """
    if isinstance(value, float) and value.is_integer():
        # Examples: `1e20` (repr "1e+20") becomes 100000000000000000000; `5.0` stays 5.0.
        return int(Decimal(repr(value))) if "e" in repr(value) else value + 0.0
    return value


def same_value(left: Any, right: Any) -> bool:
    """Tell whether Polar treats two metadata values as equal. `1`, `1.0`, and `true` are all different."""
    return canonical_json(canonical_metadata_value(left)) == canonical_json(canonical_metadata_value(right))


def expect_type(value: Any, *types: type) -> Any:
    """Return a value of JSON data. Raises TypeError when it is not one of the types."""
    if not isinstance(value, types):
        raise TypeError(f"got {type(value).__name__}")
    return value


def expect_text(value: Any) -> str:
    """Return a text. Raises TypeError for anything else."""
    return str(expect_type(value, str))
