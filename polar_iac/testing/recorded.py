"""Recorded events: one JSON object a line, as they were ingested or as Polar's API shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.testing.events import read_moment
from polar_iac.testing.model import Json
from polar_iac.yaml.scalars import clip, nearest

KEYS = ("name", "source", "timestamp", "metadata", "customer", "times", "counted")
_INGESTED = ("customer_id", "external_customer_id", "external_id", "parent_id", "member_id")
_SHOWN = ("id", "label", "organization_id", "child_count", "external_member_id", "ingested_at", "is_root")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "source": (str,),
    "timestamp": (str,),
    "metadata": (dict,),
    "customer": (str, dict, type(None)),
    "customer_id": (str, type(None)),
    "external_customer_id": (str, type(None)),
    "times": (int,),
    "counted": (bool,),
}


@dataclass(frozen=True)
class Line:
    """A line with an event."""

    said: Json
    span: SourceSpan


def read_lines(text: str, file: str, faults: list[Diagnostic]) -> Iterator[Line]:
    """Yield the events of a text, and add what is wrong to `faults`.

    Polar counts events of one `external_id` once, and pages that are read while events arrive repeat some
    (observed): both are dropped here too.
    """
    seen: set[tuple[str, str]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        said = _object(line, number, file, faults)
        if said is None:
            continue
        identities = {(key, str(said[key])) for key in ("external_id", "id") if said.get(key) is not None}
        if not identities & seen:
            seen |= identities
            yield Line(said, SourceSpan(file, number, 1, len(line) + 1))


def _object(line: str, number: int, file: str, faults: list[Diagnostic]) -> dict[str, Any] | None:
    """Return the event of a line, with its time as Python reads it; None, and faults, if it is none."""

    def fault(message: str, column: int = 1) -> None:
        faults.append(Diagnostic(SourceSpan(file, number, column, column + 1), message, line))

    try:
        said = json.loads(line, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        fault(f"not JSON ({error.msg}): write one JSON object a line", min(error.colno, len(line)))
        return None
    except (ValueError, RecursionError):
        fault("not JSON that Polar takes: no NaN, no infinity, no endless nesting")
        return None
    if not isinstance(said, dict):
        fault("write one JSON object a line: `jq -c '.[]'` makes that of a list")
        return None
    before = len(faults)
    for message in _faults(said):
        fault(message)
    return said if len(faults) == before else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _faults(said: dict[str, Any]) -> Iterator[str]:
    if "items" in said and "name" not in said:
        yield "this is a page of events: `jq -c '.items[]'` makes one JSON object a line of it"
        return
    for key in said:
        if key not in (*KEYS, *_INGESTED, *_SHOWN) and (guess := nearest(key, KEYS, 0.8)):
            yield f"unknown key `{clip(key)}`: did you mean `{guess}`?"
    for key, types in _TYPES.items():
        value = said.get(key)
        wrong = not isinstance(value, types) or (key == "times" and isinstance(value, bool))
        if key in said and wrong:
            yield f"`{key}` cannot be {clip(json.dumps(value))}"
    if isinstance(said.get("times"), int) and said["times"] < 1:
        yield "`times` is 1 or more"
    if isinstance(text := said.get("timestamp"), str):
        said["timestamp"] = read_moment(text)
        if said["timestamp"] is None:
            yield f'`timestamp` is a time with a zone such as "2026-01-01T00:00:00Z", got {clip(text)}'
