"""Meter spec: the part of a meter that the manifest declares, and that is compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import FIELDS, FROZEN_FIELDS, IMPACT, FieldPath, MetadataValue
from polar_iac.meter.filter import Aggregation, Filter
from polar_iac.meter.marker import MARKER


@dataclass(frozen=True, eq=False)
class MeterSpec:
    """The part of a meter that the manifest declares, and that is compared. Equality uses the canonical form.

    The attributes are those of the table `FIELDS`. `metadata` does not include the ownership marker.
    """

    name: str
    filter: Filter
    aggregation: Aggregation
    unit: str = FIELDS["unit"].default
    custom_label: str | None = FIELDS["custom_label"].default
    custom_multiplier: int | None = FIELDS["custom_multiplier"].default
    metadata: Mapping[str, MetadataValue] = dataclasses.field(default_factory=dict)
    archived: bool = FIELDS["archived"].default

    @cached_property
    def canonical(self) -> dict[str, Any]:
        """The whole spec as JSON data, with every field present.

        Writing it to Polar and reading it back changes nothing.
        """
        return {name: field.canonical(getattr(self, name)) for name, field in FIELDS.items()}

    @cached_property
    def by_path(self) -> Mapping[str, Any]:
        """Canonical values by path (the text of a `FieldPath`), in display order.

        `archived` is not included; it has its own actions.
        """
        values = {name: self.canonical[name] for name in IMPACT if name != "metadata"}
        metadata = self.canonical["metadata"]
        return values | {str(FieldPath("metadata", key)): metadata[key] for key in metadata}

    @property
    def created_by_path(self) -> Mapping[str, Any]:
        """Part of `by_path` that a create shows: required fields, and values unlike Polar's defaults."""
        return {
            text: value
            for text, value in self.by_path.items()
            if (path := FieldPath.parse(text)).key is not None or not path.field.is_default(value)
        }

    @cached_property
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

    def wire(self, name: str) -> Any:
        """Return the value of one field as it is sent to Polar."""
        return FIELDS[name].wire(getattr(self, name))

    def declared(self) -> dict[str, Any]:
        """Return the fields that differ from Polar's defaults, as they are sent to Polar."""
        values = {name: getattr(self, name) for name in FIELDS}
        return {name: self.wire(name) for name, v in values.items() if not FIELDS[name].is_default(v)}

    def create_body(self, marker: str) -> dict[str, Any]:
        """Return a POST body: the fields that differ from Polar's defaults, and the ownership marker."""
        body = {name: value for name, value in self.declared().items() if name in IMPACT}
        return body | {"metadata": {**self.metadata, MARKER: marker}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MeterSpec:
        """Parse a canonical spec or a meter from Polar. Fields that Polar added later may be missing.

        Raises KeyError, TypeError, or AttributeError when `data` is not a meter.
        """
        if "archived" not in data:  # a meter from Polar
            data = {**data, "archived": data.get("archived_at") is not None}
        return cls(
            **{
                name: field.from_json(data[name])
                for name, field in FIELDS.items()
                if field.required or name in data
            }
        )
