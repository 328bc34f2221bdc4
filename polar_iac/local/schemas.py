"""Request models that mirror Polar's own, so that a 422 has the same entries.

The order of fields, the names of classes and enum members, and even the spelling of a constraint appear in
the `loc`, `msg` and `ctx` of an error. They match the source of Polar (read).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    UUID4,
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

JsonObject = dict[str, Any]
T = TypeVar("T")


def strip_prefix(name: str) -> str:
    """Return a property as it is stored, without one leading `metadata.` (observed)."""
    return name.removeprefix("metadata.")


Property = Annotated[str, AfterValidator(strip_prefix)]


class MeterUnit(StrEnum):
    scalar = "scalar"
    token = "token"  # noqa: S105 - a unit
    custom = "custom"


class FilterOperator(StrEnum):
    eq = "eq"
    ne = "ne"
    gt = "gt"
    gte = "gte"
    lt = "lt"
    lte = "lte"
    like = "like"
    not_like = "not_like"


class FilterConjunction(StrEnum):
    and_ = "and"
    or_ = "or"


class FilterClause(BaseModel):
    property: Property
    operator: FilterOperator
    value: Annotated[str, Field(max_length=1000)] | Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] | bool


class Filter(BaseModel):
    conjunction: FilterConjunction
    clauses: list[FilterClause | Filter]


class AggregationFunction(StrEnum):
    cnt = "count"
    sum = "sum"
    max = "max"
    min = "min"
    avg = "avg"
    unique = "unique"


class CountAggregation(BaseModel):
    func: Literal[AggregationFunction.cnt] = AggregationFunction.cnt


class PropertyAggregation(BaseModel):
    func: Literal[
        AggregationFunction.sum, AggregationFunction.max, AggregationFunction.min, AggregationFunction.avg
    ]
    property: Property


class UniqueAggregation(BaseModel):
    func: Literal[AggregationFunction.unique] = AggregationFunction.unique
    property: Property


Aggregation = Annotated[CountAggregation | PropertyAggregation | UniqueAggregation, Discriminator("func")]

MetadataValue = Annotated[str, StringConstraints(min_length=1, max_length=500)] | int | float | bool
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=40)], MetadataValue], Field(max_length=50)
]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)


class Schema(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    @field_validator("*")
    @classmethod
    def _reject_nul(cls, value: T) -> T:
        # Nested models are not checked: a NUL in a filter reaches the database, which fails (observed).
        if any("\0" in text for text in _texts(value)):
            raise ValueError("This value contains invalid characters")
        return value


class MeterCreate(Schema):
    metadata: Metadata = Field(default_factory=dict)
    name: str = Field(min_length=3)
    unit: MeterUnit = MeterUnit.scalar
    custom_label: str | None = None
    custom_multiplier: int | None = Field(None, gt=0)
    filter: Filter
    aggregation: Aggregation
    organization_id: UUID4 | None = None

    @model_validator(mode="after")
    def _check_unit(self) -> MeterCreate:
        if self.unit == MeterUnit.custom:
            if self.custom_label is None:
                raise ValueError("custom_label is required when unit is 'custom'.")
        elif self.custom_label is not None:
            # The message names the multiplier, but Polar accepts one with any unit (observed).
            raise ValueError("custom_label and custom_multiplier are only allowed when unit is 'custom'.")
        return self


class MeterUpdate(Schema):
    """Fields of a PATCH. The unit is not checked: a custom unit may end up without a label (observed)."""

    metadata: Metadata = Field(default_factory=dict)
    name: str | None = Field(None, min_length=3)
    unit: MeterUnit | None = None
    custom_label: str | None = None
    custom_multiplier: int | None = Field(None, gt=0)
    filter: Filter | None = None
    aggregation: Aggregation | None = None
    is_archived: bool | None = None


def written(model: MeterCreate | MeterUpdate) -> JsonObject:
    """Return the fields that a request sets, as JSON data.

    The filter is converted here, because the depth that pydantic can write differs by version.
    """
    partial = isinstance(model, MeterUpdate)
    apart = {"filter", "organization_id", "is_archived"}
    fields = model.model_dump(exclude=apart, exclude_unset=partial)
    if "filter" in model.model_fields_set:
        fields["filter"] = model.filter and _plain(model.filter)
    return fields


def _plain(clause: FilterClause | Filter) -> JsonObject:
    if isinstance(clause, Filter):
        return {"conjunction": clause.conjunction, "clauses": [_plain(inner) for inner in clause.clauses]}
    return clause.model_dump()


class MeterSortProperty(StrEnum):
    """Sort criteria. The error for an unknown one lists them in this order."""

    created_at = "created_at"
    created_at_desc = "-created_at"
    name = "name"
    name_desc = "-name"
