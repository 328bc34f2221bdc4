"""Meters as they really are, past all faults, and forms of them that the oracle compares.

Nothing here is the product's: a mistake in its canonical form is not to hide itself.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from polar_iac.local import LocalPolar
from tests.support.build import PROJECT

MARKER = "polar_iac"

FIELDS = ("name", "unit", "custom_label", "custom_multiplier", "filter", "aggregation")
"""The fields of a meter but for its metadata."""

LATER_OPERATOR = "matches"
"""An operator of filters that only later versions know."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Meter:
    """A meter as Polar has it: `text` is its answer to a GET, byte for byte."""

    text: str
    frozen: bool

    @cached_property
    def document(self) -> Json:
        return dict(json.loads(self.text))

    @property
    def id(self) -> str:
        return str(self.document["id"])

    @property
    def is_known(self) -> bool:
        """True if this version knows all parts of the meter."""
        return f'"operator":"{LATER_OPERATOR}"' not in self.text

    @property
    def active(self) -> bool:
        return self.document["archived_at"] is None

    @property
    def marker(self) -> str | None:
        """The ownership marker, whoever's."""
        value = self.document["metadata"].get(MARKER)
        return None if value is None else str(value)

    @property
    def key(self) -> str | None:
        """The key of this project that the marker names."""
        owner, slash, key = (self.marker or "").partition("/")
        return key if slash and owner == PROJECT else None

    @property
    def metadata(self) -> Json:
        """The metadata without the marker."""
        return {k: v for k, v in self.document["metadata"].items() if k != MARKER}


Meters = dict[str, Meter]


def snapshot(polar: LocalPolar) -> Meters:
    """Every meter by its id, in the order in which they were made."""
    store = polar._store
    with store._lock:
        rows = store._db.execute("SELECT document, frozen FROM meter ORDER BY number").fetchall()
    meters = (Meter(text, bool(frozen)) for text, frozen in rows)
    return {meter.id: meter for meter in meters}


def duplicates(meters: Meters) -> dict[str, set[str]]:
    """The ids of active meters that share a marker of this project, by that marker."""
    ids_by_marker: dict[str, set[str]] = defaultdict(set)
    for meter in meters.values():
        if meter.active and meter.key is not None:
            ids_by_marker[f"{PROJECT}/{meter.key}"].add(meter.id)
    return {marker: ids for marker, ids in ids_by_marker.items() if len(ids) > 1}


def typed(value: Any) -> str:
    """A value as text in which `1`, `1.0`, `"1"` and `true` differ."""
    return json.dumps(value, sort_keys=True)


def same(one: Any, other: Any) -> bool:
    return typed(one) == typed(other)


def normal(document: Mapping[str, Any]) -> dict[str, str]:
    """A meter, of Polar's, of the manifest's or of a plan's, by path, in a form that is equal where two mean
    the same. Whether it is archived is not in it, nor the marker.
    """
    plain = {name: document.get(name) for name in FIELDS} | {"unit": document.get("unit") or "scalar"}
    plain["filter"] = normal_filter(document["filter"])
    plain["aggregation"] = _aggregation(document["aggregation"])
    metadata = document.get("metadata", {})
    paths = {f"metadata.{key}": value for key, value in metadata.items() if key != MARKER}
    return {path: typed(value) for path, value in (plain | paths).items()}


def normal_filter(part: Mapping[str, Any]) -> Any:
    """A filter without what means nothing: order, repetition, and groups of one or within their like."""
    if "clauses" not in part:
        value = part["value"]
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        return [bare(part["property"]), part["operator"], whole]
    conjunction = part["conjunction"]
    parts: dict[str, Any] = {}
    for inner in map(normal_filter, part["clauses"]):
        if inner == "all":
            if conjunction == "or":
                return "all"
            continue
        group = isinstance(inner, dict) and conjunction in inner
        parts |= {typed(one): one for one in (inner[conjunction] if group else [inner])}
    ordered = [parts[text] for text in sorted(parts)]
    return {conjunction: ordered} if len(ordered) > 1 else ordered[0] if ordered else "all"


def _aggregation(aggregation: Mapping[str, Any]) -> list[Any]:
    name = aggregation.get("property")
    return [aggregation["func"], None if name is None else bare(name)]


def bare(name: str) -> str:
    """A property as every reading of Polar's tells it in the end."""
    while name.startswith("metadata."):
        name = name[len("metadata.") :]
    return name


def read_lockfile(text: str | None) -> dict[str, Json]:
    """The entries of a lockfile's text; none where there is no file."""
    return {} if text is None else dict(json.loads(text)["meters"])
