"""Table of the fields of a meter, from which every form of a meter is derived.

The canonical form, the body of a create, the YAML block, the differences between two meters, their labels,
the manifest's known keys, and its JSON Schema all follow this table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

from polar_iac.meter.canonical import canonical_metadata_value, expect_text, expect_type
from polar_iac.meter.filter import Aggregation, Filter
from polar_iac.meter.marker import MARKER

MetadataValue = str | int | float | bool
Impact = Literal["billing", "invoice", "internal"]
CUSTOM_UNIT = "custom"
UNITS = ("scalar", "token", CUSTOM_UNIT)
MAX_METADATA_KEYS = 50
MAX_METADATA_KEY = 40
"""Maximum length of a metadata key, in characters."""
MAX_METADATA_TEXT = 500
"""Maximum length of a metadata value, in characters."""
MAX_MULTIPLIER = 2**63 - 1
_REQUIRED = object()


def text_schema(**limits: Any) -> dict[str, Any]:
    """Return the JSON Schema of a text. A NUL character is refused, since Polar cannot store it."""
    return {"type": "string", "pattern": "^[^\\u0000]*$", **limits}


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Field:
    """One field of a meter.

    `impact` says what a change of the field affects; None for a field that has actions of its own. `group` is
    the field under which it is shown, and which `ignore_changes` names: `unit` has a label and a multiplier.
    `label` is its name for people, `short_label` its name after the group's.

    `from_json` parses the value of a meter in JSON, and raises TypeError, KeyError, or AttributeError.
    `canonical` converts it to the form in which Polar returns it, `wire` to the form in which it is sent.
    `description` explains it in an editor, and `json_schema` says which values the manifest may give it.
    """

    name: str
    from_json: Callable[[Any], Any]
    impact: Impact | None
    description: str = dataclasses.field(kw_only=True)
    json_schema: Mapping[str, Any] = dataclasses.field(kw_only=True)
    default: Any = _REQUIRED
    """Polar's default. A field without one is required."""
    label: str = ""
    short_label: str = ""
    group: str = ""
    freezes: bool = False
    """Polar refuses to change the field once the meter has aggregated events."""
    ignorable: bool = False
    """`ignore_changes` may name the group of the field."""
    canonical: Callable[[Any], Any] = _unchanged
    wire: Callable[[Any], Any] = _unchanged

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)
        object.__setattr__(self, "short_label", self.short_label or self.label)
        object.__setattr__(self, "group", self.group or self.name)

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED

    def is_default(self, value: Any) -> bool:
        """Tell whether a value is Polar's default, which need not be sent or written."""
        return not self.required and bool(value == self.default)


def _text_or_none(value: Any) -> Any:
    return expect_type(value, str, type(None))


def _integer_or_none(value: Any) -> Any:
    return expect_type(value, int, type(None))


def _flag(value: Any) -> Any:
    return expect_type(value, bool)


def _metadata_from_json(value: Any) -> dict[str, MetadataValue]:
    return {k: expect_type(v, str, int, float) for k, v in value.items() if k != MARKER}


def _canonical_metadata(value: Mapping[str, MetadataValue]) -> dict[str, MetadataValue]:
    return {k: canonical_metadata_value(v) for k, v in value.items()}


FIELDS: Mapping[str, Field] = {
    field.name: field
    for field in (
        Field(
            "name",
            expect_text,
            "invoice",
            ignorable=True,
            description="What customers read on invoices: 3 characters or more for a new meter.",
            json_schema=text_schema(),
        ),
        Field(
            "unit",
            expect_text,
            "invoice",
            "scalar",
            ignorable=True,
            description="Unit on invoices. `custom` needs a `custom_label`.",
            json_schema={"enum": list(UNITS)},
        ),
        Field(
            "custom_label",
            _text_or_none,
            "invoice",
            None,
            label="unit label",
            short_label="label",
            group="unit",
            ignorable=True,
            description="What one unit is called. `unit: custom` needs it, and no other unit takes it.",
            json_schema=text_schema(type=["string", "null"]),
        ),
        Field(
            "custom_multiplier",
            _integer_or_none,
            "invoice",
            None,
            label="unit multiplier",
            short_label="multiplier",
            group="unit",
            ignorable=True,
            description="How many counted units make one unit on invoices. Example: 60, where events carry "
            "seconds and customers read minutes.",
            json_schema={"type": ["integer", "null"], "minimum": 1, "maximum": MAX_MULTIPLIER},
        ),
        Field(
            "filter",
            Filter.from_json,
            "billing",
            freezes=True,
            canonical=Filter.canonical,
            wire=Filter.wire,
            description="Which events count. Polar freezes it once the meter has counted events.",
            json_schema={"$ref": "#/definitions/filter"},
        ),
        Field(
            "aggregation",
            Aggregation.from_json,
            "billing",
            freezes=True,
            canonical=Aggregation.canonical,
            wire=Aggregation.wire,
            description="What of the events counts. Polar freezes it once the meter has counted events.",
            json_schema={"$ref": "#/definitions/aggregation"},
        ),
        Field(
            "metadata",
            _metadata_from_json,
            "internal",
            {},
            ignorable=True,
            canonical=_canonical_metadata,
            wire=dict,
            description="Data of your own. Keys that others set at Polar stay as they are.",
            json_schema={
                "type": "object",
                "maxProperties": MAX_METADATA_KEYS,
                "propertyNames": text_schema(
                    minLength=1, maxLength=MAX_METADATA_KEY, **{"not": {"const": MARKER}}
                ),
                "additionalProperties": {
                    "anyOf": [
                        text_schema(minLength=1, maxLength=MAX_METADATA_TEXT),
                        {"type": ["number", "boolean"]},
                    ]
                },
            },
        ),
        Field(
            "archived",
            _flag,
            None,
            False,
            description="True archives the meter: it bills nothing, and the usage of that time is lost.",
            json_schema={"type": "boolean"},
        ),
    )
}
"""Fields by name, in the order of the canonical form."""

IMPACT: Mapping[str, Impact] = {
    field.name: impact for impact in get_args(Impact) for field in FIELDS.values() if field.impact == impact
}
"""Fields that are compared and that a create sends, in display order, each with what a change affects."""
FROZEN_FIELDS = tuple(name for name, field in FIELDS.items() if field.freezes)
IGNORABLE = tuple(dict.fromkeys(field.group for field in FIELDS.values() if field.ignorable))
"""Names that `ignore_changes` may hold, in addition to single metadata keys."""
_DISPLAY_ORDER = {name: number for number, name in enumerate(IMPACT)}


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A field, or one key of the metadata: as text, `unit` or `metadata.KEY`. Sorts in display order."""

    name: str
    key: str | None = None

    @classmethod
    @lru_cache(maxsize=1024)  # the same few paths, for every field of every change
    def parse(cls, text: str) -> FieldPath:
        # A metadata key may hold a dot. Example: `metadata.a.b` is the key `a.b`.
        name, dot, key = text.partition(".")
        return cls(name, key if dot else None)

    def __str__(self) -> str:
        return self.name if self.key is None else f"{self.name}.{self.key}"

    def __lt__(self, other: FieldPath) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, str]:
        return _DISPLAY_ORDER[self.name], self.key or ""

    @property
    def field(self) -> Field:
        """Field that the path leads to. Raises KeyError when there is no such field."""
        return FIELDS[self.name]

    @property
    def impact(self) -> Impact:
        """Effect of a change. Raises KeyError for a field that is not compared."""
        return IMPACT[self.name]

    @property
    def steps(self) -> tuple[str, ...]:
        """Keys that lead from a meter to the value, in JSON and in YAML."""
        return (self.name,) if self.key is None else (self.name, self.key)

    @property
    def ignored_as(self) -> str:
        """Narrowest entry of `ignore_changes` that covers the path. Example: `unit` for `custom_label`."""
        return self.field.group if self.key is None else str(self)

    def is_ignored(self, ignored: Set[str]) -> bool:
        """Tell whether entries of `ignore_changes` cover the path."""
        return self.ignored_as in ignored or self.field.group in ignored
