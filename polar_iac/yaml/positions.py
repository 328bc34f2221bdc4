"""The parts of a YAML text as they are written: aliases, anchors and merge keys too, each with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from _ruamel_yaml import CParser  # type: ignore[import-not-found]
from ruamel.yaml import events

from polar_iac.yaml.parse import PROPERTIES

BREAKS = "\n\r\x85\u2028\u2029"
"""Characters that end a line of YAML."""
_BLANK = re.compile(r"[ \t]*")


@dataclass(eq=False)
class Part:
    """A value as written. `first` is where its anchor and tag begin, `start` where its own text does.

    `end` is behind the last character of its content: comments and blank lines after it are not its own.
    `text` is the content of a scalar, `mark` its quotation mark or block indicator. `children` of a map are
    its keys and values in turn, merge keys included.
    """

    kind: Literal["scalar", "alias", "map", "list"]
    first: int
    start: int
    end: int
    parent: Part | None
    flow: bool = False
    mark: str = ""
    text: str = ""
    anchor: str = ""
    tagged: bool = False
    children: list[Part] = field(default_factory=list)

    @property
    def pairs(self) -> list[tuple[Part, Part]]:
        return list(zip(self.children[::2], self.children[1::2], strict=True))

    @property
    def members(self) -> list[tuple[Part, ...]]:
        """Entries of a map, or items of a list."""
        return [*self.pairs] if self.kind == "map" else [(child,) for child in self.children]

    def number(self, step: str | int) -> int | None:
        """Return which member of a collection a key or an index leads to, if it is written there."""
        if self.kind == "list":
            return step if isinstance(step, int) and step < len(self.children) else None
        keys = [key.text if key.kind == "scalar" else None for key, _ in self.pairs]
        return keys.index(str(step)) if self.kind == "map" and step in keys else None

    @property
    def in_flow(self) -> bool:
        """True inside brackets."""
        return self.parent is not None and (self.parent.flow or self.parent.in_flow)

    def pair(self, key: str) -> tuple[Part, Part] | None:
        """Return a key that is written in this map, and its value."""
        return next((p for p in self.pairs if p[0].kind == "scalar" and p[0].text == key), None)

    def merges(self) -> bool:
        """Tell whether a merge key brings other maps' entries."""
        return self.kind == "map" and any(key.text == "<<" and not key.mark for key, _ in self.pairs)

    def inside(self) -> Iterator[Part]:
        """Yield this part and all parts in it."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            yield part
            waiting += part.children


def read_parts(text: str) -> Part | None:
    """Return the root of a text that is known to be valid YAML, or None when it holds nothing."""
    next_event: Callable[[], Any] = CParser(text.encode()).get_event
    current: Part | None = None
    root: Part | None = None
    while not isinstance(event := next_event(), events.StreamEndEvent):
        if isinstance(event, events.MappingEndEvent | events.SequenceEndEvent):
            assert current is not None  # noqa: S101  the parser closes what it opened
            current.end = event.end_mark.index if current.flow else current.children[-1].end
            current = current.parent
            continue
        part = _part(event, text, current)
        if part is None:
            continue
        if current is None:
            root = part
        else:
            current.children.append(part)
        if part.kind in ("map", "list"):
            current = part
    return root


def _part(event: Any, text: str, parent: Part | None) -> Part | None:
    first, end = event.start_mark.index, event.end_mark.index
    if isinstance(event, events.AliasEvent):
        return Part("alias", first, first, end, parent, anchor=event.anchor)
    if isinstance(event, events.MappingStartEvent | events.SequenceStartEvent):
        kind: Literal["map", "list"] = "map" if isinstance(event, events.MappingStartEvent) else "list"
        start = end
        if first < end and (event.flow_style or (kind == "list" and text[end : end + 1] != "-")):
            start -= 1  # behind the bracket, or behind the `-` of a list at the indentation of its key
        flow, anchor = bool(event.flow_style), event.anchor or ""
        return Part(kind, min(first, start), start, end, parent, flow, anchor=anchor, tagged=bool(event.ctag))
    if not isinstance(event, events.ScalarEvent):
        return None
    start = first
    if (event.anchor or event.ctag) and (properties := PROPERTIES.match(text, first)):
        start = min(properties.end(), end)
    mark = event.style or ""
    if mark in ("|", ">"):
        end = _content_end(text, start, end)
    return Part(
        "scalar", first, start, end, parent, mark=mark, text=event.value, anchor=event.anchor or "",
        tagged=bool(event.ctag),
    )  # fmt: skip


def _content_end(text: str, start: int, end: int) -> int:
    """Return the end of a block scalar: behind its last line, or behind the blank ones that `+` keeps."""
    head = text[start : line_end(text, start)].partition("#")[0]
    return end if "+" in head else start + len(text[start:end].rstrip(f" \t{BREAKS}"))


def line_end(text: str, index: int) -> int:
    """Return the index of the line break that ends a line, or of the end of the text."""
    while index < len(text) and text[index] not in BREAKS:
        index += 1
    return index


def line_start(text: str, index: int) -> int:
    """Return the index of the first character of the line that holds `index`."""
    while index > 0 and text[index - 1] not in BREAKS:
        index -= 1
    return index


def column(text: str, index: int) -> int:
    """Return the number of characters before `index` in its line."""
    return index - line_start(text, index)


def begins_line(text: str, index: int) -> bool:
    """Tell whether nothing but spaces stands before `index` in its line."""
    match = _BLANK.match(text, line_start(text, index))
    return match is not None and match.end() >= index
