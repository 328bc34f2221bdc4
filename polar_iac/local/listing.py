"""Lists of few documents: those of products, benefits, organizations and customer meters.

Such a list is read whole, then filtered, sorted and cut in Python. Meters and events have lists of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import UUID4, TypeAdapter

from polar_iac.local.query import (
    MAX_LIMIT,
    OneOrMoreIds,
    Parameter,
    metadata_query,
    page_parameters,
    read_parameters,
    validate,
)
from polar_iac.local.request_errors import ErrorEntry, RequestError
from polar_iac.local.store import JsonObject, as_text, ilike

T = TypeVar("T")
_ID: TypeAdapter[Any] = TypeAdapter(UUID4)

Pairs = Sequence[tuple[str, str]]
SortKeys = Mapping[str, Callable[[JsonObject], Any]]
"""Sort keys of a document, by criterion. None sorts as PostgreSQL sorts null."""


def ids_parameter(name: str) -> Parameter:
    """Return a parameter of one or more ids."""
    return Parameter(name, TypeAdapter(OneOrMoreIds | None), many=True)


def list_parameters(*others: Parameter) -> tuple[Parameter, ...]:
    """Return the parameters of a list: those of every list, then the others."""
    return (*page_parameters(), ids_parameter("organization_id"), *others)


def read_list(parameters: Iterable[Parameter], pairs: Pairs) -> dict[str, Any]:
    """Return the values of a list's parameters by name. Raises RequestError with every fault.

    Unknown parameters are ignored: `meter_id` is one for products and for benefits (observed).
    """
    errors = list[ErrorEntry]()
    values = read_parameters(parameters, pairs, errors)
    if errors:
        raise RequestError(errors)
    return {**values, "limit": min(values["limit"], MAX_LIMIT), "metadata": metadata_query(pairs)}


def is_one_of(value: object, wanted: Iterable[object] | None) -> bool:
    """Tell whether a repeatable parameter, compared as text, selects the value. If not sent, it does."""
    return wanted is None or str(value) in set(map(str, wanted))


def has_metadata(document: JsonObject, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether the metadata has one of the texts for each key."""
    held: JsonObject = document["metadata"]
    return all(key in held and as_text(held[key]) in texts for key, texts in wanted.items())


def has_text(text: str, query: str | None) -> bool:
    """Tell whether the parameter `query` finds the text. If not sent, it does."""
    return query is None or ilike(query, text)


def page_of(documents: Iterable[JsonObject], wanted: Mapping[str, Any], keys: SortKeys) -> JsonObject:
    """Return the requested page of the documents. Past the last page the count stays (observed)."""
    found = list(documents)
    for criterion in reversed(wanted["sorting"]):
        key = keys[criterion.lstrip("-")]
        found.sort(key=lambda document: _nulls_last(key(document)), reverse=criterion.startswith("-"))
    limit = wanted["limit"]
    start = limit * (wanted["page"] - 1)
    pagination = {"total_count": len(found), "max_page": math.ceil(len(found) / limit)}
    return {"items": found[start : start + limit], "pagination": pagination}


def _nulls_last(value: Any) -> tuple[bool, Any]:
    return (True, "") if value is None else (False, value)


def read_path_and_body(id_text: str, adapter: TypeAdapter[T], body: object) -> tuple[str, T]:
    """Return the id in a path and the validated body. Raises RequestError with the faults of both."""
    errors = list[ErrorEntry]()
    found = validate(_ID, id_text, ("path", "id"), errors)
    try:
        value = read_body(adapter, body)
    except RequestError as e:
        raise RequestError([*errors, *e.entries]) from None
    if errors:
        raise RequestError(errors)
    return str(found), value


def read_body(adapter: TypeAdapter[T], body: object) -> T:
    """Return the validated body of a request. Raises RequestError with every fault in it."""
    errors = list[ErrorEntry]()
    if body is None:
        errors.append({"type": "missing", "loc": ["body"], "msg": "Field required", "input": None})
    value = None if errors else validate(adapter, body, ("body",), errors)
    if value is None:
        raise RequestError(errors)
    return value
