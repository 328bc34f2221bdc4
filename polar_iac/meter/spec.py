"""Meter spec: the part of a meter that the manifest declares, and that is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from polar_iac.meter.canonical import canonical_json, canonical_metadata_value, typed, typed_text
from polar_iac.meter.fields import FROZEN_FIELDS, IMPACT, MetadataValue
from polar_iac.meter.filter import Aggregation, Filter
from polar_iac.meter.marker import MARKER


@dataclass(frozen=True, eq=False)
class MeterSpec:
    """The part of a meter that the manifest declares, and that is compared. Equality uses the canonical form.

    `metadata` does not include the ownership marker.
    """

    name: str
    filter: Filter
    aggregation: Aggregation
    unit: str = "scalar"
    custom_label: str | None = None
    custom_multiplier: int | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    archived: bool = False

    @cached_property
    def canonical(self) -> dict[str, Any]:
        """The whole spec as JSON data, with every field present.

        Writing it to Polar and reading it back changes nothing.
        """
        return {
            "name": self.name,
            "unit": self.unit,
            "custom_label": self.custom_label,
            "custom_multiplier": self.custom_multiplier,
            "filter": self.filter.canonical(),
            "aggregation": self.aggregation.canonical(),
            "metadata": {k: canonical_metadata_value(v) for k, v in self.metadata.items()},
            "archived": self.archived,
        }

    @cached_property
    def by_path(self) -> Mapping[str, Any]:
        """Canonical values by path: a field name or `metadata.KEY`.

        `archived` is not included; it has its own actions.
        """
        values = {name: self.canonical[name] for name in IMPACT if name != "metadata"}
        return values | {f"metadata.{key}": value for key, value in self.canonical["metadata"].items()}

    @property
    def billing(self) -> str:
        """Text that is equal for two meters exactly when they bill the same: same filter and aggregation."""
        return canonical_json([self.canonical[name] for name in FROZEN_FIELDS])

    @cached_property
    def fingerprint(self) -> str:
        return canonical_json(self.canonical)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MeterSpec) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def wire(self, field_name: str) -> Any:
        """Return the value of one field as it is sent to Polar."""
        value = getattr(self, field_name)
        return value.wire() if isinstance(value, Filter | Aggregation) else value

    def create_body(self, marker: str) -> dict[str, Any]:
        """Return a POST body: the fields that differ from Polar's defaults, and the ownership marker."""
        body = {"name": self.name, "filter": self.filter.wire(), "aggregation": self.aggregation.wire()}
        if self.unit != "scalar":
            body["unit"] = self.unit
        for optional in ("custom_label", "custom_multiplier"):
            if getattr(self, optional) is not None:
                body[optional] = getattr(self, optional)
        return body | {"metadata": {**self.metadata, MARKER: marker}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MeterSpec:
        """Parse a canonical spec or a meter from Polar. Fields that Polar added later may be missing.

        Raises KeyError, TypeError, or AttributeError when `data` is not a meter.
        """
        aggregation = data["aggregation"]
        metadata = data.get("metadata", {})
        return cls(
            name=typed_text(data["name"]),
            filter=Filter.from_json(data["filter"]),
            aggregation=Aggregation(
                typed_text(aggregation["func"]), typed(aggregation.get("property"), str, type(None))
            ),
            unit=typed_text(data.get("unit", "scalar")),
            custom_label=typed(data.get("custom_label"), str, type(None)),
            custom_multiplier=typed(data.get("custom_multiplier"), int, type(None)),
            metadata={k: typed(v, str, int, float) for k, v in metadata.items() if k != MARKER},
            archived=typed(data.get("archived", data.get("archived_at") is not None), bool),
        )
