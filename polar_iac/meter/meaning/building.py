"""Events made of the values of properties, as small as possible, as the recordings write them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from polar_iac.meter.meaning.cells import LONGEST_NAME, LONGEST_TEXT
from polar_iac.meter.meaning.events import ABSENT, EPOCH, OWN_FIELDS
from polar_iac.meter.meaning.samples import USUAL_SECONDS

USUAL_NAME = "event"
_REQUIRED: Mapping[str, Mapping[str, Any]] = {
    "_cost": {"amount": 1, "currency": "usd"},
    "_llm": {
        "vendor": "acme",
        "model": "m1",
        "input_tokens": 1,
        "output_tokens": 1,
        "total_tokens": 2,
        "prompt": None,
        "response": None,
    },
}
"""The members that ingestion requires or adds (observed)."""
_OPTIONAL = {"_cost": frozenset[str](), "_llm": frozenset({"cached_input_tokens"})}


def build(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event in which properties have these values, which may be ABSENT, and no others."""
    metadata: dict[str, Any] = {}
    for name in sorted(values, key=lambda name: name.count(".")):
        if name not in OWN_FIELDS and values[name] is not ABSENT:
            _place(metadata, name.split("."), values[name])
    moment = EPOCH + timedelta(seconds=values.get("timestamp", USUAL_SECONDS))
    return {
        "name": values.get("name", USUAL_NAME),
        "source": values.get("source", "user"),
        "timestamp": moment.isoformat().replace("+00:00", "Z"),
        "metadata": metadata,
    }


def _place(metadata: dict[str, Any], keys: list[str], value: Any) -> None:
    """Put a value at a path, with the objects that lead to it."""
    for key in keys[:-1]:
        metadata = metadata.setdefault(key, {})
    metadata[keys[-1]] = dict(value) if isinstance(value, dict) else value


def completed(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event with the members of `_cost` and `_llm` that ingestion requires."""
    metadata = {
        key: {**_REQUIRED[key], **value} if key in _REQUIRED and isinstance(value, dict) else value
        for key, value in event["metadata"].items()
    }
    return {**event, "metadata": metadata}


def is_ingestible(event: Mapping[str, Any]) -> bool:
    """Tell whether ingestion would accept an event: a user's, with flat metadata (observed).

    A time in the future is not looked at, since this knows no clock.
    """
    name = event["name"]
    if event["source"] != "user" or len(name) > LONGEST_NAME or "\0" in name:
        return False
    return all(_is_ingestible_value(key, value) for key, value in event["metadata"].items())


def _is_ingestible_value(key: str, value: Any) -> bool:
    if "\0" in key:
        return False
    if key in _REQUIRED:
        return isinstance(value, dict) and _is_ingestible_object(key, value)
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST_TEXT and "\0" not in value
    return isinstance(value, int | float)


def _is_ingestible_object(key: str, members: Mapping[str, Any]) -> bool:
    required = _REQUIRED[key]
    if not required.keys() <= members.keys() or members.keys() - required.keys() - _OPTIONAL[key]:
        return False
    if key == "_cost":
        return _is_number(members["amount"]) and members["currency"] == "usd"
    tokens = all(
        isinstance(value, int) and not isinstance(value, bool)
        for name, value in members.items()
        if name.endswith("_tokens")
    )
    texts = all(isinstance(members[name], str) for name in ("vendor", "model"))
    return tokens and texts and all(isinstance(members[n], str | None) for n in ("prompt", "response"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
