"""Request models that mirror Polar's own, so that a 422 has the same entries.

The order of fields, the names of classes and enum members, and even the spelling of a constraint appear in
the `loc`, `msg` and `ctx` of an error. They match the source of Polar (read). As in FastAPI, each parameter
is validated on its own (read).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

JsonObject = dict[str, Any]
ErrorEntry = dict[str, Any]
T = TypeVar("T")


class RequestError(Exception):
    """Error for a request that is refused with a 422, with one entry per fault."""

    def __init__(self, entries: Sequence[ErrorEntry], error: str = "RequestValidationError") -> None:
        self.entries = list(entries)
        self.error = error
        super().__init__(self.entries)


def polar_error(*entries: ErrorEntry) -> RequestError:
    """Return a 422 that Polar itself raises, after every field is valid."""
    return RequestError(entries, "PolarRequestValidationError")


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


@dataclass(frozen=True)
class MeterListQuery:
    page: int
    limit: int
    sorting: tuple[str, ...]
    organization_ids: tuple[str, ...] | None
    query: str | None
    is_archived: bool | None


OrganizationIds = UUID4 | Sequence[UUID4]
"""A union, although only lists are passed: an error lists the faults of both alternatives (read)."""


@dataclass(frozen=True)
class _Parameter:
    name: str
    adapter: TypeAdapter[Any]
    default: Any
    many: bool = False


_LIST_PARAMETERS = (
    _Parameter("page", TypeAdapter(Annotated[int, Field(gt=0)]), 1),
    _Parameter("limit", TypeAdapter(Annotated[int, Field(gt=0)]), 10),
    _Parameter("sorting", TypeAdapter(list[MeterSortProperty] | None), (MeterSortProperty.name,), many=True),
    _Parameter("organization_id", TypeAdapter(OrganizationIds | None), None, many=True),
    _Parameter("query", TypeAdapter(str | None), None),
    _Parameter("is_archived", TypeAdapter(bool | None), None),
)
_ID = TypeAdapter(UUID4)
_CREATE = TypeAdapter(MeterCreate)
_UPDATE = TypeAdapter(MeterUpdate)

_CLAUSE: TypeAdapter[FilterClause | Filter] = TypeAdapter(FilterClause | Filter)

_MAX_LIMIT = 100
_MAX_DEPTH = 255
"""Levels of filters that Polar reads (observed, except for the last few). A clause is not a level here."""
_SAFE_DEPTH = 120
"""Levels that any version of pydantic reads in one call."""
_UUID_GROUPS = (8, 4, 4, 4, 12)


def _validate(
    adapter: TypeAdapter[T], value: object, loc: tuple[str | int, ...], errors: list[ErrorEntry]
) -> T | None:
    try:
        return adapter.validate_python(value, from_attributes=True)
    except ValidationError as e:
        for entry in e.errors(include_url=False):
            errors.append({**_as_pydantic_2_13(dict(entry)), "loc": [*loc, *entry["loc"]]})
        return None


def _as_pydantic_2_13(entry: ErrorEntry) -> ErrorEntry:
    """Return the error with the text of the real server's pydantic, which differs in other versions."""
    match entry["type"]:
        case "uuid_parsing":
            reason = _uuid_fault(entry["input"])
            return {**entry, "msg": f"Input should be a valid UUID, {reason}", "ctx": {"error": reason}}
        case "too_long" if isinstance(entry["input"], dict):
            most, found = entry["ctx"]["max_length"], len(entry["input"])
            message = f"Dictionary should have at most {most} items after validation, not {found}"
            return {**entry, "msg": message, "ctx": {**entry["ctx"], "actual_length": found}}
        case "recursion_depth_exceeded":
            message = "Recursion error - cyclic reference detected"
            return {**entry, "type": "recursion_loop", "msg": message}
    return entry


def _uuid_fault(text: str) -> str:
    """Return the fault of a UUID in the words of pydantic 2.13: first a bad character, then the groups.

    Positions and lengths are in bytes. If the whole text has the right length for braces (38) or `urn:uuid:`
    (45), positions do not count that prefix.
    """
    data = text.encode()
    if len(data) == 45:
        data = data.removeprefix(b"urn:uuid:")
    elif len(data) == 38 and data.startswith(b"{") and data.endswith(b"}"):
        data = data[1:-1]
    digits, offset = data, 0
    if data.startswith(b"{") and data.endswith(b"}") and len(data) > 1:
        digits, offset = data[1:-1], 1
    elif data.startswith(b"urn:uuid:"):
        digits, offset = data.removeprefix(b"urn:uuid:"), 9
    if bad := re.search(rb"[^0-9a-fA-F-]", digits):
        character = digits[bad.start() :].decode()[0]
        return f"invalid character: found `{character}` at {bad.start() + offset + 1}"
    groups = digits.split(b"-")
    if len(groups) == 1 and not offset:
        return f"invalid length: expected length 32 for simple format, found {len(data)}"
    if len(groups) != len(_UUID_GROUPS):
        return f"invalid group count: expected 5, found {len(groups)}"
    # The last group runs to the end of the whole text, including a closing brace.
    sizes = [*map(len, groups[:-1]), len(data) - 24]
    fault = next((i for i, size in enumerate(sizes) if size != _UUID_GROUPS[i]), 4)
    return f"invalid group length in group {fault}: expected {_UUID_GROUPS[fault]}, found {sizes[fault]}"


def read_list_query(pairs: Iterable[tuple[str, str]]) -> MeterListQuery:
    """Parse the query of a list. If a parameter is repeated, the last one counts, except for lists."""
    given: dict[str, list[str]] = {}
    for name, text in pairs:
        given.setdefault(name, []).append(text)
    errors: list[ErrorEntry] = []
    values: dict[str, Any] = {}
    for parameter in _LIST_PARAMETERS:
        if texts := given.get(parameter.name):
            value = texts if parameter.many else texts[-1]
            values[parameter.name] = _validate(parameter.adapter, value, ("query", parameter.name), errors)
        else:
            values[parameter.name] = parameter.default
    if errors:
        raise RequestError(errors)
    organizations = values["organization_id"]
    return MeterListQuery(
        page=values["page"],
        limit=min(values["limit"], _MAX_LIMIT),
        sorting=tuple(values["sorting"]),
        organization_ids=None if organizations is None else tuple(map(str, organizations)),
        query=values["query"],
        is_archived=values["is_archived"],
    )


def read_id(text: str) -> str:
    errors: list[ErrorEntry] = []
    meter_id = _validate(_ID, text, ("path", "id"), errors)
    if errors:
        raise RequestError(errors)
    return str(meter_id)


def read_create(body: object) -> MeterCreate:
    errors: list[ErrorEntry] = []
    create = _validate_body(_CREATE, body, errors)
    if create is None:
        raise RequestError(errors)
    return create


def read_update(id_text: str, body: object) -> tuple[str, MeterUpdate]:
    """Return the id of the meter and its update. The errors of both are raised together (read)."""
    errors: list[ErrorEntry] = []
    meter_id = _validate(_ID, id_text, ("path", "id"), errors)
    update = _validate_body(_UPDATE, body, errors)
    if errors or update is None:
        raise RequestError(errors)
    return str(meter_id), update


def _validate_body(adapter: TypeAdapter[T], body: object, errors: list[ErrorEntry]) -> T | None:
    if body is None:
        errors.append({"type": "missing", "loc": ["body"], "msg": "Field required", "input": None})
        return None
    filter_ = body.get("filter") if isinstance(body, dict) else None
    depth = _depth(filter_)
    if isinstance(body, dict) and _SAFE_DEPTH < depth <= _MAX_DEPTH:
        body = {**body, "filter": _read_below(filter_, 1)}
    before = len(errors)
    found = _validate(adapter, body, ("body",), errors)
    if depth > _MAX_DEPTH and len(errors) == before:
        message = "Recursion error - cyclic reference detected"
        errors.append({"type": "recursion_loop", "loc": ["body", "filter"], "msg": message, "input": filter_})
    return found


def _depth(filter_: object) -> int:
    """Count the levels of filters, even if they are otherwise invalid."""
    depth, level = 0, [filter_]
    while filters := [
        c["clauses"] for c in level if isinstance(c, dict) and isinstance(c.get("clauses"), list)
    ]:
        depth += 1
        level = [clause for clauses in filters for clause in clauses]
    return depth


def _read_below(clause: object, depth: int) -> object:
    """Parse the deep levels of a filter first, because the depth that pydantic reads differs by version."""
    if not isinstance(clause, dict) or not isinstance(clause.get("clauses"), list):
        return clause
    if depth <= _SAFE_DEPTH:
        return {**clause, "clauses": [_read_below(inner, depth + 1) for inner in clause["clauses"]]}
    try:
        return _CLAUSE.validate_python(clause)
    except ValidationError:
        return clause  # The whole filter is refused later, with the location of the fault.


def read_json(data: bytes) -> object:
    """Parse a body. Return None when it is empty.

    Raises RequestError for bad syntax. Raises ValueError or RecursionError for a body that cannot be parsed
    at all, for example bytes that are not UTF-8.
    """
    if not data:
        return None
    try:
        return json.loads(data)
    except json.JSONDecodeError as e:
        message, position = _as_python_3_13(e)
        entry = {
            "type": "json_invalid",
            "loc": ["body", position],
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": message},
        }
        raise RequestError([entry]) from None


def _as_python_3_13(error: json.JSONDecodeError) -> tuple[str, int]:
    """Return the message and position of Python 3.13, which the real server runs.

    Only 3.13 and later name a trailing comma, as in `[1,]`.
    """
    before = error.doc[: error.pos].rstrip(" \t\n\r")
    closing = error.doc[error.pos : error.pos + 1]
    expected = {"}": "Expecting property name enclosed in double quotes", "]": "Expecting value"}
    if sys.version_info < (3, 13) and before.endswith(",") and error.msg == expected.get(closing):
        kind = "object" if closing == "}" else "array"
        return f"Illegal trailing comma before end of {kind}", len(before) - 1
    return error.msg, error.pos


def metadata_query(pairs: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    """Return the `metadata[key]=value` conditions of a query.

    Parameters of any other form are not conditions. Text after the first closing bracket is ignored
    (observed): `metadata[a]b=c` means `metadata[a]=c`.
    """
    wanted: dict[str, list[str]] = {}
    for name, text in pairs:
        key, closed, _ = name.removeprefix("metadata[").partition("]")
        if name.startswith("metadata[") and closed and key:
            wanted.setdefault(key, []).append(text)
    return wanted
