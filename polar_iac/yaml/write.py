"""Data as YAML text, in the style of a person: plain words unquoted, short collections on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from polar_iac.yaml.scalars import is_only_text

STEP = 2
"""Spaces of one level of indentation."""
_WIDTH = 100
"""Columns up to which a collection of scalars stays on one line."""
_FIRST = r"(?:[\w/($+]|[^\x00-\x7f])"
_INNER = r"""[\w./()+@%&'"=~*$!;<>^|\\`-]|[^\x00-\x7f]|(?<=\S)#| (?=[^ ])"""
# A colon has a meaning before a space, and a `#` behind one. Between brackets, commas and brackets have one
# too, and the parser takes no colon and no question mark.
_PLAIN = re.compile(f"{_FIRST}(?:{_INNER}|[,?\\[\\]{{}}]|:(?=[\\w/.$-]))*")
_PLAIN_IN_BRACKETS = re.compile(f"{_FIRST}(?:{_INNER})*")
_OLD = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|0[box]_*|[yYnN]")
"""Numbers and truth values of parsers for YAML 1.1, such as `1:30` and `y`."""


class OneLine(dict[str, Any]):
    """A map that is written on one line, however long."""


def scalar(value: Any, quote: str = "", *, in_brackets: bool = True) -> str:
    """Return a scalar. A text is quoted only where YAML would read something else without quotes.

    `quote` is the quotation mark to prefer, `"` or `'`: then a text is always quoted.
    """
    if isinstance(value, str):
        return value if not quote and _is_plain(value, in_brackets) else _quoted(value, quote)
    if isinstance(value, float):
        return repr(value)
    return "null" if value is None else json.dumps(value)


def _is_plain(text: str, in_brackets: bool) -> bool:
    pattern = _PLAIN_IN_BRACKETS if in_brackets else _PLAIN
    if not text.isprintable() or not pattern.fullmatch(text):
        return False
    return is_only_text(text) and not _OLD.fullmatch(text)


def _quoted(text: str, quote: str) -> str:
    # Single quotes have no escapes, and fold what YAML takes for a line break.
    if text.isprintable() and (quote == "'" or (not quote and ('"' in text or "\\" in text))):
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    code = ord(char)
    if code <= 0xFF:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def flow(value: Any) -> str:
    """Return a value on one line. Example: `{property: name, operator: eq, value: call}`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if is_list(value):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def is_list(value: Any) -> bool:
    """Tell whether a value is written as a list."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def fits_one_line(value: Any) -> bool:
    """Tell whether a value is written on the line of its key: scalars, and short collections of them."""
    if isinstance(value, OneLine):
        return True
    members = [*value.values()] if isinstance(value, Mapping) else value if is_list(value) else ()
    # An empty collection is as short as a scalar. Example: `filter: {conjunction: and, clauses: []}`.
    if any(member for member in members if isinstance(member, Mapping) or is_list(member)):
        return False
    return not members or len(flow(value)) <= _WIDTH


def entry(key: str, value: Any, indent: int) -> list[str]:
    """Return the lines of one entry of a map in block style."""
    head = f"{' ' * indent}{scalar(key)}:"
    return [f"{head} {_inline(value)}"] if fits_one_line(value) else [head, *lines(value, indent + STEP)]


def _inline(value: Any) -> str:
    """Return a value on the line of its key or its dash."""
    collection = isinstance(value, Mapping) or is_list(value)
    return flow(value) if collection else scalar(value, in_brackets=False)


def item(value: Any, indent: int) -> list[str]:
    """Return the lines of one item of a list in block style."""
    pad = " " * indent
    if fits_one_line(value):
        return [f"{pad}- {_inline(value)}"]
    first, *rest = lines(value, indent + STEP)
    return [f"{pad}- {first[indent + STEP :]}", *rest]


def lines(value: Any, indent: int) -> list[str]:
    """Return the lines of a collection in block style. It must hold something."""
    found: list[str] = []
    # Loops, since each level of a deep filter would take two more calls with generators.
    if isinstance(value, Mapping):
        for key, inner in value.items():
            found += entry(key, inner, indent)
    else:
        for inner in value:
            found += item(inner, indent)
    return found


def are_blocks(value: Any) -> bool:
    """Tell whether a value is a map of maps that take several lines each. Example: the meters."""
    return isinstance(value, Mapping) and all(
        isinstance(inner, Mapping) and not fits_one_line(inner) for inner in value.values()
    )


def spaced(blocks: Mapping[str, Any], indent: int) -> list[str]:
    """Return the lines of a map whose entries blank lines separate."""
    found: list[str] = []
    for key, inner in blocks.items():
        found += ["", *entry(key, inner, indent)]
    return found[1:]
