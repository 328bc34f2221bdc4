"""Requests about meters as values: queries, ids and bodies, checked against the models."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import UUID4, TypeAdapter, ValidationError

from polar_iac.local.query import (
    MAX_LIMIT,
    OneOrMoreIds,
    Parameter,
    as_texts,
    page_parameters,
    read_parameters,
    validate,
)
from polar_iac.local.request_errors import ErrorEntry, RequestError, as_python_3_13
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


_LIST_PARAMETERS = (
    *page_parameters(),
    Parameter("sorting", TypeAdapter(list[MeterSortProperty] | None), (MeterSortProperty.name,), many=True),
    Parameter("organization_id", TypeAdapter(OneOrMoreIds | None), many=True),
    Parameter("query", TypeAdapter(str | None)),
    Parameter("is_archived", TypeAdapter(bool | None)),
)
ID = TypeAdapter(UUID4)
_CREATE = TypeAdapter(MeterCreate)
_UPDATE = TypeAdapter(MeterUpdate)

_CLAUSE: TypeAdapter[FilterClause | Filter] = TypeAdapter(FilterClause | Filter)

_MAX_DEPTH = 255
"""Levels of filters that Polar reads (observed, except for the last few). A clause is not a level here."""
_SAFE_DEPTH = 120
"""Levels that any version of pydantic reads in one call."""


def read_list_query(pairs: Iterable[tuple[str, str]]) -> MeterListQuery:
    """Parse the query of a list. Raises RequestError with every fault in it."""
    errors: list[ErrorEntry] = []
    values = read_parameters(_LIST_PARAMETERS, pairs, errors)
    if errors:
        raise RequestError(errors)
    return MeterListQuery(
        page=values["page"],
        limit=min(values["limit"], MAX_LIMIT),
        sorting=tuple(values["sorting"]),
        organization_ids=as_texts(values["organization_id"]),
        query=values["query"],
        is_archived=values["is_archived"],
    )


def read_id(text: str) -> str:
    """Return the id in a path. Raises RequestError when it is not a UUID."""
    errors: list[ErrorEntry] = []
    meter_id = validate(ID, text, ("path", "id"), errors)
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
    meter_id = validate(ID, id_text, ("path", "id"), errors)
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
    model = validate(adapter, body, ("body",), errors)
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
