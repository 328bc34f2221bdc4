"""Given events: read from YAML or from recorded JSON, merged with defaults, and checked as ingestion does."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from polar_iac.meter.meaning.building import is_ingestible
from polar_iac.meter.meaning.events import EPOCH, Event
from polar_iac.meter.meaning.samples import USUAL_SECONDS
from polar_iac.testing.model import ANONYMOUS, Json

MAX_TIMES = 1_000_000
"""Most times that the events of one test may happen, all together."""
LONGEST_TEXT = 500
LONGEST_NAME = 128
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)
_OBJECTS: Mapping[str, tuple[str, ...]] = {
    "_cost": ("amount", "currency"),
    "_llm": ("vendor", "model", "input_tokens", "output_tokens", "total_tokens"),
}
"""The two objects that ingestion accepts, and the members that it requires (observed)."""
_ADDED: Mapping[str, Any] = {"prompt": None, "response": None}
"""Members that ingestion adds to `_llm` (observed)."""


@lru_cache(maxsize=1_000)
def moment(number: int) -> str:
    """Return the time of an event that says none, by its number: a second after the one before."""
    return (EPOCH + timedelta(seconds=USUAL_SECONDS + number)).isoformat().replace("+00:00", "Z")


def read_moment(text: str) -> str | None:
    """Return a time of RFC 3339 as Python reads it, or None for any other text."""
    if not _RFC_3339.fullmatch(text):
        return None
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return text.upper()


def merged(defaults: Json, own: Json) -> dict[str, Any]:
    """Return what an event says, with defaults for what it does not say. Objects merge key by key."""
    if not defaults:
        return dict(own)
    result = dict(defaults)
    for key, value in own.items():
        default = result.get(key)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            result[key] = merged(default, value)
        else:
            result[key] = value
    return result


def event_of(said: Json, number: int) -> dict[str, Any]:
    """Return an event as the recordings write events, stored as ingestion stores it.

    Ingestion reads `_cost.amount` from a text too, and adds members of `_llm` that are optional (observed).
    """
    metadata, source = said.get("metadata", {}), said.get("source", "user")
    if source == "user" and (there := metadata.keys() & _OBJECTS.keys()):
        objects = {key: metadata[key] for key in there if isinstance(metadata[key], dict)}
        metadata = metadata | {key: _stored(key, members) for key, members in objects.items()}
    return {
        "name": said.get("name", ""),
        "source": source,
        "timestamp": said.get("timestamp") or moment(number),
        "metadata": metadata,
    }


def _stored(key: str, members: Json) -> Json:
    if key == "_llm":
        return {**_ADDED, **members}
    amount = members.get("amount")
    if not isinstance(amount, str):
        return members
    try:
        number = float(amount)
    except ValueError:
        return members
    whole = number.is_integer() and re.fullmatch(r"-?\d+", amount)
    return {**members, "amount": int(amount) if whole else number}


def customer_of(own: Json, defaults: Json) -> str:
    """Return the customer of an event, as this format, an ingest or an answer of Polar's names it."""
    return _customer(own) or _customer(defaults) or ANONYMOUS


def _customer(said: Json) -> str | None:
    customer = said.get("customer")
    if isinstance(customer, dict):
        customer = customer.get("external_id") or customer.get("id")
    named = customer or said.get("external_customer_id") or said.get("customer_id")
    return str(named) if named else None


def given_of(event: Json) -> dict[str, Any]:
    """Return an event as a file of tests gives it: without what is so anyway."""
    said: dict[str, Any] = {"name": event["name"]}
    if event["source"] != "user":
        said["source"] = event["source"]
    if event["timestamp"] != moment(0):
        said["timestamp"] = event["timestamp"]
    metadata = event["metadata"]
    if event["source"] == "user" and isinstance(metadata.get("_llm"), Mapping):
        given = {k: v for k, v in metadata["_llm"].items() if v is not None or k not in _ADDED}
        metadata = {**metadata, "_llm": given}
    return said | ({"metadata": metadata} if metadata else {})


def compile_event(event: Json) -> Event:
    """Return an event as both engines find it."""
    return Event.from_json(event)


def refusals(event: Json) -> Iterator[tuple[str | None, str]]:
    """Yield why ingestion would refuse an event, each with the metadata key that it is about, or None.

    Events of another source than `user` are Polar's own and may hold anything (observed). A time in the
    future is let pass.
    """
    if event["source"] != "user" or is_ingestible(event):
        return
    if len(event["name"]) > LONGEST_NAME:
        yield None, f"the name of an event has at most {LONGEST_NAME} characters, got {len(event['name'])}"
    if "\0" in event["name"]:
        yield None, "the name of an event holds a NUL character: remove it"
    for key, value in event["metadata"].items():
        if not is_ingestible({**event, "name": "", "metadata": {key: value}}):
            yield key, f"Polar refuses an event with this `{key}`: {_why(key, value)}"


def _why(key: str, value: Any) -> str:
    if "\0" in key:
        return "its name holds a NUL character"
    if key in _OBJECTS:
        return _why_object(key, value)
    if isinstance(value, Mapping):
        return (
            "the metadata of a user's event is flat, but for `_cost` and `_llm`. Write each value under a key"
            " of its own"
        )
    if isinstance(value, list):
        return "the metadata of a user's event is flat: no lists"
    if value is None:
        return "metadata holds no null: leave the key out"
    if value == "":
        return "a text in metadata is not empty: leave the key out"
    if isinstance(value, str) and "\0" in value:
        return "it holds a NUL character"
    return f"a text in metadata has at most {LONGEST_TEXT} characters, got {len(value):,}"


def _why_object(key: str, value: Any) -> str:
    required = _OBJECTS[key]
    if not isinstance(value, Mapping):
        return f"it must be a map with {', '.join(required)}"
    missing = [name for name in required if name not in value]
    if missing:
        return f"it lacks {', '.join(missing)} (a value in `defaults` serves every event)"
    if key == "_cost":
        return "it has a number `amount` and `currency: usd`, and nothing else"
    return (
        "vendor and model are texts, the tokens are whole numbers, and else it can have cached_input_tokens,"
        " prompt and response"
    )


def is_finite(value: Any) -> bool:
    """Tell whether a value is one of JSON, which has no NaN and no infinity."""
    return not isinstance(value, float) or math.isfinite(value)
