"""Events as Polar's two engines find them: what is stored, how a property is looked up, how it is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

TEXT_FIELDS = ("name", "source")
OWN_FIELDS = (*TEXT_FIELDS, "timestamp")
"""The fields of an event that a property means before it means a key of the metadata."""

ABSENT = object()
"""Stands for a property that the event does not have, where null is something else."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class QueryError(Exception):
    """The failure of a SQL query: it answers nothing, for any event. `/quantities` is a 500 then."""


class Event:
    """An event as both engines find it in the database."""

    __slots__ = ("_moment", "metadata", "name", "source")

    def __init__(self, name: str, source: str, moment: str, metadata: Mapping[str, Any]) -> None:
        self.name = name
        self.source = source
        self.metadata = metadata
        self._moment = moment

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Event:
        """Read an event as the recordings write it. Raises KeyError when a field is missing."""
        metadata = data["metadata"]
        kept = {key: value if type(value) in _AS_IS else stored(value) for key, value in metadata.items()}
        return cls(data["name"], data["source"], data["timestamp"], kept)

    @property
    def moment(self) -> datetime:
        """The timestamp. A time without a zone is taken for UTC. Raises ValueError when it is no time."""
        moment = datetime.fromisoformat(self._moment)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    @property
    def seconds_cut(self) -> int:
        """Seconds since 1970, cut toward zero: what billing compares (observed)."""
        return int(self.moment.timestamp())

    @property
    def seconds_rounded(self) -> int:
        """Seconds since 1970, halves away from zero: what SQL compares and sums (observed)."""
        micros = (self.moment - EPOCH) // timedelta(microseconds=1)
        rounded = (abs(micros) + 500_000) // 1_000_000
        return rounded if micros >= 0 else -rounded


_AS_IS = frozenset({str, int, bool, type(None)})


def stored(value: Any) -> Any:
    """Return a metadata value as it comes back from PostgreSQL's jsonb, which keeps numbers as decimals.

    A whole float that is written with an exponent becomes an int (`1e16`), `-0.0` becomes `0.0`, and the keys
    of an object are sorted by length first (observed). The order shows when an object is printed for `like`.
    """
    if isinstance(value, float):
        whole = value.is_integer() and "e" in repr(value)
        return int(Decimal(repr(value))) if whole else value + 0.0
    if isinstance(value, list):
        return [stored(item) for item in value]
    if isinstance(value, Mapping):
        return {key: stored(value[key]) for key in sorted(value, key=_key_order)}
    return value


def _key_order(key: str) -> tuple[int, bytes]:
    encoded = key.encode(errors="surrogatepass")
    return len(encoded), encoded


def bare(name: str) -> str:
    """Return a property without two leading `metadata.`: Polar strips one on a write and one on a read.

    Of three or more the rest is looked up as a path (observed).
    """
    return name.removeprefix("metadata.").removeprefix("metadata.")


def lookup(name: str, absent: Any = None) -> Callable[[Event], Any]:
    """Compile the look-up of a path in the metadata: dots walk into objects, and into nothing else.

    A key that has a dot itself is out of reach, and the path "" is the key "" (observed).
    """
    keys = name.split(".")
    if len(keys) == 1:
        return lambda event: event.metadata.get(name, absent)

    def read(event: Event) -> Any:
        value: Any = event.metadata
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                return absent
            value = value[key]
        return value

    return read


def json_text(value: Any) -> str:
    """Return a JSON value as PostgreSQL prints it: `true`, `0.0000001`, `{"a": [1, null]}` (observed)."""
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")
    if isinstance(value, list):
        return f"[{', '.join(json_text(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json_text(key)}: {json_text(item)}' for key, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def double(number: float) -> float:
    """Return a JSON number as the double that PostgreSQL casts it to.

    Ints of any size are ingested, and one beyond a double fails the whole query (observed with 1e400 written
    out). Raises QueryError then.
    """
    try:
        return float(number)
    except OverflowError as error:
        raise QueryError(f"out of range for a double: {error}") from error
