"""Errors of requests, in the words of the versions of Python and pydantic that the real server runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

ErrorEntry = dict[str, Any]
_UUID_GROUPS = (8, 4, 4, 4, 12)


class RequestError(Exception):
    """Error for a request that is refused with a 422, with one entry per fault."""

    def __init__(self, entries: Sequence[ErrorEntry], error: str = "RequestValidationError") -> None:
        self.entries = list(entries)
        self.error = error
        super().__init__(self.entries)


def polar_error(*entries: ErrorEntry) -> RequestError:
    """Return a 422 that Polar itself raises, after every field is valid."""
    return RequestError(entries, "PolarRequestValidationError")


def as_pydantic_2_13(entry: ErrorEntry) -> ErrorEntry:
    """Return the error with the text of the real server's pydantic, which differs in other versions."""
    match entry["type"]:
        case "uuid_parsing":
            reason = _uuid_fault(entry["input"])
            return {**entry, "msg": f"Input should be a valid UUID, {reason}", "ctx": {"error": reason}}
        case "too_long" if isinstance(entry["input"], dict):
            most, actual = entry["ctx"]["max_length"], len(entry["input"])
            message = f"Dictionary should have at most {most} items after validation, not {actual}"
            return {**entry, "msg": message, "ctx": {**entry["ctx"], "actual_length": actual}}
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


def as_python_3_13(error: json.JSONDecodeError) -> tuple[str, int]:
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
