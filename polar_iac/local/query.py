"""Queries of GET requests: each parameter is validated on its own, as in FastAPI (read)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import UUID4, Field, TypeAdapter, ValidationError

from polar_iac.local.request_errors import ErrorEntry, as_pydantic_2_13

T = TypeVar("T")

OneOrMoreIds = UUID4 | Sequence[UUID4]
"""A union, although only lists are passed: an error lists the faults of both alternatives (read)."""
OneOrMoreTexts = str | Sequence[str]

REQUIRED = object()
"""Stands for the default of a parameter that must be sent."""

MAX_LIMIT = 100


@dataclass(frozen=True)
class Parameter:
    """One parameter of a query. If it is repeated, the last one counts, unless it takes many."""

    name: str
    adapter: TypeAdapter[Any]
    default: Any = None
    many: bool = False


def page_parameters() -> tuple[Parameter, Parameter]:
    """Return the parameters of every list: `page` and `limit`."""
    positive: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(gt=0)])
    return Parameter("page", positive, 1), Parameter("limit", positive, 10)


def validate(
    adapter: TypeAdapter[T], value: object, loc: tuple[str | int, ...], errors: list[ErrorEntry]
) -> T | None:
    """Return the validated value, or None after its faults were added to the errors."""
    try:
        return adapter.validate_python(value, from_attributes=True)
    except ValidationError as e:
        for entry in e.errors(include_url=False):
            errors.append({**as_pydantic_2_13(dict(entry)), "loc": [*loc, *entry["loc"]]})
        return None


def read_parameters(
    parameters: Iterable[Parameter], pairs: Iterable[tuple[str, str]], errors: list[ErrorEntry]
) -> dict[str, Any]:
    """Return the parameters' values by name. Others are ignored (observed)."""
    given: dict[str, list[str]] = {}
    for name, text in pairs:
        given.setdefault(name, []).append(text)
    values: dict[str, Any] = {}
    for parameter in parameters:
        loc = ("query", parameter.name)
        if texts := given.get(parameter.name):
            values[parameter.name] = validate(
                parameter.adapter, texts if parameter.many else texts[-1], loc, errors
            )
        elif parameter.default is REQUIRED:
            errors.append({"type": "missing", "loc": list(loc), "msg": "Field required", "input": None})
        else:
            values[parameter.name] = parameter.default
    return values


def as_texts(values: Iterable[object] | None) -> tuple[str, ...] | None:
    """Return the values of a repeatable parameter as texts; None when it was not sent."""
    return None if values is None else tuple(map(str, values))


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
