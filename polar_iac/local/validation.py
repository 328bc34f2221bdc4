"""Requests as values: queries, ids and bodies, checked against the models.

As in FastAPI, each parameter is validated on its own (read).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import UUID4, Field, TypeAdapter, ValidationError

from polar_iac.local.request_errors import ErrorEntry, RequestError, as_pydantic_2_13, as_python_3_13
from polar_iac.local.schemas import Filter, FilterClause, MeterCreate, MeterSortProperty, MeterUpdate

T = TypeVar("T")


@dataclass(frozen=True)
class MeterListQuery:
    """Query of `GET /v1/meters/`. None means that a parameter was not sent."""

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


def _validate(
    adapter: TypeAdapter[T], value: object, loc: tuple[str | int, ...], errors: list[ErrorEntry]
) -> T | None:
    try:
        return adapter.validate_python(value, from_attributes=True)
    except ValidationError as e:
        for entry in e.errors(include_url=False):
            errors.append({**as_pydantic_2_13(dict(entry)), "loc": [*loc, *entry["loc"]]})
        return None


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
    """Return the id in a path. Raises RequestError when it is not a UUID."""
    errors: list[ErrorEntry] = []
    meter_id = _validate(_ID, text, ("path", "id"), errors)
    if errors:
        raise RequestError(errors)
    return str(meter_id)


def read_create(body: object) -> MeterCreate:
    """Return the validated body of a POST. Raises RequestError with every fault in it."""
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
    model = _validate(adapter, body, ("body",), errors)
    if depth > _MAX_DEPTH and len(errors) == before:
        message = "Recursion error - cyclic reference detected"
        errors.append({"type": "recursion_loop", "loc": ["body", "filter"], "msg": message, "input": filter_})
    return model


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
        message, position = as_python_3_13(e)
        entry = {
            "type": "json_invalid",
            "loc": ["body", position],
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": message},
        }
        raise RequestError([entry]) from None


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
