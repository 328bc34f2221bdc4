"""YAML parser: text to a tree with positions, and with every problem found."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Any

from polar_iac.errors import DiagnosticError
from polar_iac.yaml.messages import (
    MARK,
    UnreadableError,
    decode,
    explain,
    odd_indent,
    odd_indents,
    unprintable,
)
from polar_iac.yaml.scalars import clip, nearest, resolve
from polar_iac.yaml.tree import MAX_PROBLEMS, Collection, Document, List, Map, Node, Nothing, Scalar, Unread

MAX_DEPTH = 300
MAX_SCALAR = 1024 * 1024
MAX_EXPANSION = 1_000_000
"""Maximum number of nodes that aliases and merge keys may add to the ones written in the file."""


def parse(data: bytes, file: str) -> Document:
    """Parse one YAML document. An empty file is an empty scalar.

    Raises DiagnosticError when the text after a fault cannot be parsed.
    """
    try:
        document = Document(file, decode(data))
    except UnreadableError as error:
        readable = Document(file, error.before.lstrip(MARK) + _UNREADABLE)
        raise DiagnosticError([readable.problem(len(readable.text) - 1, error.message)]) from None
    # Imported late: commands that read no YAML start faster.
    from _ruamel_yaml import CParser  # type: ignore[import-not-found]
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        _Builder(document, CParser(document.text.encode()).get_event).build()
    except MarkedYAMLError as error:
        index, message = explain(error, document.text)
        # Skip an error that a problem right before it explains: one report is enough.
        if not document.problem_ends_before(index):
            document.problem(index, message)
    except YAMLError as error:
        start = unprintable(document.text)
        if start is None:
            document.problem(0, f"not valid YAML: {clip(str(error), 200)}")
        else:
            document.problem(start, f"the control character U+{ord(document.text[start]):04X}: remove it")
    except _StopError:
        pass
    else:
        odd = _odd_indents(document)
        if not odd:
            return document
        # These alone, since the tree is not the one that was meant.
        document.problems = [document.problem(start, odd_indent(document.text[start])) for start in odd]
    raise DiagnosticError(document.problems) from None


def _odd_indents(document: Document) -> list[int]:
    """Find the unquoted texts that begin with what looks like an indentation. In a block it is just text."""
    odd = set(odd_indents(document.text))
    unread, seen, found = [document.root] if odd else [], set[int](), set[int]()
    while unread:
        node = unread.pop()
        if isinstance(node, Scalar):
            if node.plain and node.start in odd:
                found.add(node.start)
        elif id(node) not in seen:
            seen.add(id(node))
            unread += node.children
    return sorted(found)[:MAX_PROBLEMS]


_UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""Replacement that an excerpt shows for the first byte that is not text. The excerpt ends there."""


class _StopError(Exception):
    """Parsing must stop. The document holds the reason."""


_Event = Any  # the C parser's events have no types


class _Builder:
    """State of one parse: the open collections, the anchors, and the number of nodes."""

    def __init__(self, document: Document, next_event: Callable[[], _Event]) -> None:
        self.document = document
        self.next_event = next_event
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.count = 0
        """Number of nodes below the closed collections, including those behind aliases."""
        self.expanded = 0
        """Number of nodes that aliases added."""
        self.documents = 0
        self.current: Map | List = List(0, 0)
        """The innermost open collection. The outermost is a list that holds the document's root."""
        self.stack: list[Map | List] = []
        """The open collections around `current`, outermost first."""

    def problem(self, start: int, message: str, end: int = 0) -> None:
        self.document.problem(start, message, end)
        if len(self.document.problems) >= MAX_PROBLEMS:
            raise _StopError

    def stop(self, start: int, message: str, end: int = 0) -> _StopError:
        self.document.problem(start, message, end)
        return _StopError()

    def build(self) -> None:
        """Build the tree from the parser's events.

        This is the hot loop. Most events are scalars, so these are handled inline.
        """
        from ruamel.yaml import events

        handlers: dict[Any, Callable[[_Event], None]] = {
            events.MappingStartEvent: self.open_map,
            events.MappingEndEvent: self.end_collection,
            events.SequenceStartEvent: self.open_list,
            events.SequenceEndEvent: self.end_collection,
            events.AliasEvent: self.alias,
            events.DocumentStartEvent: self.begin_document,
        }
        next_event, scalar_event, last_event = self.next_event, events.ScalarEvent, events.StreamEndEvent
        bottom, children = self.current, self.current.children
        while True:
            event = next_event()
            kind = event.__class__
            if kind is scalar_event:
                value = event.value
                scalar = Scalar(value, not event.style, event.start_mark.index, event.end_mark.index)
                if not value or event.anchor or event.ctag or len(value) > MAX_SCALAR:
                    scalar = self.special(scalar, event, self.current)
                children.append(scalar)
            elif kind is last_event:
                break
            elif handler := handlers.get(kind):
                handler(event)
                children = self.current.children
        if bottom.children:
            self.document.root = bottom.children[0]

    def begin_document(self, event: _Event) -> None:
        self.documents += 1
        if self.documents > 1:
            start = event.start_mark.index
            raise self.stop(start, "a second document begins here: a file holds only one", start + 3)

    def open_map(self, event: _Event) -> None:
        start = event.end_mark.index  # After the bracket, or where the first entry begins.
        # Example: `{a: 1}` begins at its bracket; a block map has no text of its own, and begins at `a`.
        if event.start_mark.index < start and event.flow_style:
            start -= 1
        self.push(Map(start, event.end_mark.index), event)

    def open_list(self, event: _Event) -> None:
        start = end = event.end_mark.index
        if event.start_mark.index < end:
            if event.flow_style:
                start -= 1
            elif self.document.text[end : end + 1] != "-":
                start = end = end - 1  # A list at the indentation of its key: after the first `-`.
        self.push(List(start, end), event)

    def push(self, node: Map | List, event: _Event) -> None:
        """Open a collection inside the current one."""
        if event.anchor or event.ctag:
            self.decorate(node, event, self.count)
        if len(self.stack) >= MAX_DEPTH:
            raise self.stop(node.start, _TOO_DEEP)
        self.current.children.append(node)
        self.stack.append(self.current)
        self.current = node

    def end_collection(self, event: _Event) -> None:
        """Close the current collection, and go on with the one around it."""
        node = self.current
        if node.end > node.start:
            node.end = event.end_mark.index
        self.count += len(node.children)
        if isinstance(node, Map):
            self.count += self.close(node)
        if node.anchor:
            name, before = node.anchor
            self.anchors[name] = (node, 1 + self.count - before)
        self.current = parent = self.stack.pop()
        if parent.height <= node.height:
            parent.height = node.height + 1

    def alias(self, event: _Event) -> None:
        target, size = self.target(event, len(self.stack))
        self.count += size - 1  # the alias itself is one of the children
        self.current.children.append(target)
        if isinstance(target, Collection):
            self.current.height = max(self.current.height, target.height + 1)

    def special(self, scalar: Scalar, event: _Event, parent: Map | List) -> Scalar:
        """Handle a scalar that is empty, anchored, tagged, or very large."""
        text = scalar.text
        if len(text) > MAX_SCALAR:
            message = f"a text of {len(text):,} characters is too long (at most {MAX_SCALAR:,})"
            raise self.stop(scalar.start, message, scalar.end)
        if (event.anchor or event.ctag) and (
            properties := PROPERTIES.match(self.document.text, scalar.start)
        ):
            scalar.start = min(properties.end(), scalar.end)  # The value begins after its anchor and tag.
        if not text and scalar.plain:
            scalar = self.nothing(scalar, event, parent)
        if event.ctag:
            scalar = self.retype(scalar, event.ctag, event.start_mark.index)
        if event.anchor:
            self.anchors[event.anchor] = (scalar, 1)
        return scalar

    def nothing(self, scalar: Scalar, event: _Event, parent: Map | List) -> Scalar:
        """Give an empty value the position of its key, because it has none of its own."""
        key = parent.children[-1] if parent.children else None
        if not isinstance(parent, Map) or len(parent.children) % 2 == 0 or not isinstance(key, Scalar):
            return scalar
        if event.anchor:
            hint = f"`&{clip(event.anchor)}` is an anchor without a value; if it is text, put it in quotes"
        elif _COMMENT.match(self.document.text, key.end):
            # Example: `color: #fff` is an empty value and a comment.
            hint = "what follows # is a comment; put the text in quotes"
        else:
            scalar.start, scalar.end = key.start, key.end
            return scalar
        return Nothing(key.start, key.end, hint)

    def retype(self, scalar: Scalar, tag: str, start: int) -> Scalar:
        """Apply a core tag. Example: `!!str 5` is text, `!!int "5"` is a number."""
        if tag in ("!", f"{_CORE}str"):
            scalar.plain = False
            return scalar
        value = resolve(scalar.text)
        if tag == f"{_CORE}float" and type(value) is int:
            scalar.text, scalar.plain = f"{value}.0", True
        elif tag in _TYPES and type(value) is _TYPES[tag]:
            scalar.plain = True
        elif tag in _TYPES:
            self.problem(
                scalar.start, f'"{clip(scalar.text)}" does not fit its tag {_short(tag)}', scalar.end
            )
            return Unread(scalar.text, False, scalar.start, scalar.end)
        else:
            self.problem(start, _UNKNOWN_TAG.format(_short(tag)), scalar.end)
            return Unread(scalar.text, False, scalar.start, scalar.end)
        return scalar

    def decorate(self, node: Map | List, event: _Event, count: int) -> None:
        if event.ctag and event.ctag not in ("!", f"{_CORE}{'map' if isinstance(node, Map) else 'seq'}"):
            start = event.start_mark.index
            self.problem(start, _UNKNOWN_TAG.format(_short(event.ctag)), event.end_mark.index)
        if event.anchor:
            node.anchor = (event.anchor, count)
            # The size is 0 until the collection closes. So a size of 0 marks an alias inside its own value:
            # `&a [*a]`.
            self.anchors[event.anchor] = (node, 0)

    def target(self, event: _Event, depth: int) -> tuple[Node, int]:
        """Return the node that an alias refers to, and the number of nodes in it."""
        start, end, name = event.start_mark.index, event.end_mark.index, event.anchor
        if name not in self.anchors:
            # Limit the guesses: a file may have many thousands of aliases and anchors.
            few = len(self.document.problems) < _MAX_GUESSES
            latest = (other for other in islice(reversed(self.anchors), 100) if len(other) <= 100)
            meant = nearest(name, tuple(latest)) if few else None
            hint = (
                f": did you mean *{meant}?" if meant else f": define it above with &{clip(name)}, or quote it"
            )
            self.problem(start, f"there is no anchor &{clip(name)}{hint}", end)
            return Unread("", False, start, end), 1
        node, size = self.anchors[name]
        if not size:
            raise self.stop(start, f"*{clip(name)} is inside the value that &{clip(name)} names", end)
        if isinstance(node, Collection) and depth + node.height > MAX_DEPTH:
            raise self.stop(start, _TOO_DEEP, end)
        self.expand(size, start, end)
        return node, size

    def expand(self, size: int, start: int, end: int) -> None:
        self.expanded += size
        if self.expanded > MAX_EXPANSION:
            message = f"with its aliases this file has more than {MAX_EXPANSION:,} values: use fewer"
            raise self.stop(start, message, end)

    def close(self, node: Map) -> int:
        """Pair keys with values. Return the number of nodes that merge keys added."""
        children = node.children
        node.keys = keys = children[::2]  # type: ignore[assignment]
        names = [key.text for key in keys]
        entries: dict[Any, Node] = dict(zip(names, children[1::2]))  # noqa: B905  always as many
        node.entries = entries
        # The common case: no duplicate key, no merge key, and no key that is a collection (its `text` is
        # None).
        if len(entries) == len(names) and "<<" not in entries and None not in entries:
            return 0
        return self.close_carefully(node)

    def close_carefully(self, node: Map) -> int:
        """Close a map with a duplicate key, a merge key, or a key that is not a scalar."""
        keys: dict[str, Scalar] = {}
        entries: dict[str, Node] = {}
        merged: Node | None = None
        for key, value in zip(node.children[::2], node.children[1::2], strict=True):
            if not isinstance(key, Scalar):
                if key.blamed:
                    continue
                if _is_template(node, key, self.document.text):
                    node.blamed = True
                    self.problem(node.start, _TEMPLATE, node.end)
                    continue
                kind = "a list" if isinstance(key, List) else "a map"
                self.problem(
                    key.start, f"a key must be text, got {kind}: if that is a value, quote it", key.end
                )
            elif key.text in keys:
                line = self.document.line(keys[key.text].start)
                message = f"the key `{clip(key.text)}` is here twice: the first is on line {line}"
                hint = "; write <<: [*one, *two]" if key.text == "<<" else ""
                self.problem(key.start, message + hint, key.end)
                node.repeated = [*node.repeated, (key, value)]
            else:
                keys[key.text] = key
                entries[key.text] = value
                if key.text == "<<" and key.plain:
                    merged = value
        node.keys, node.entries = list(keys.values()), entries
        if merged is None:
            return 0
        del keys["<<"], entries["<<"]
        return self.merge(node, merged, keys, entries)

    def merge(self, node: Map, merged: Node, keys: dict[str, Scalar], entries: dict[str, Node]) -> int:
        """Add the entries of the maps that `<<` names.

        Earlier maps win over later ones; the map's own keys win over all.
        """
        sources = merged.children if isinstance(merged, List) else [merged]
        all_keys: dict[str, Scalar] = {}
        all_entries: dict[str, Node] = {}
        brought = 0
        for source in sources:
            if source.blamed:
                node.blamed = True  # It is unknown which entries are missing.
            if not isinstance(source, Map):
                if source.blamed:
                    continue
                node.blamed = True
                self.problem(source.start, "<< takes a map or a list of maps: `<<: *anchor`", source.end)
                continue
            # Merged keys count toward the limit too. Example: 1,000 maps that each merge a map of 1,000 keys.
            brought += len(source.keys)
            self.expand(len(source.keys), source.start, source.end)
            for key in source.keys:
                if key.text not in all_keys:
                    all_keys[key.text], all_entries[key.text] = key, source.entries[key.text]
        all_keys.update(keys)
        all_entries.update(entries)
        node.keys, node.entries = list(all_keys.values()), all_entries
        return brought


_CORE = "tag:yaml.org,2002:"
_TYPES = {f"{_CORE}int": int, f"{_CORE}float": float, f"{_CORE}bool": bool, f"{_CORE}null": type(None)}
_BREAK = "\\n\\r\\x85\\u2028\\u2029"
PROPERTIES = re.compile(rf"(?:[&!][^\s,\[\]{{}}]*\s+(?:#[^{_BREAK}]*[{_BREAK}]\s*)*)+")
"""Anchor and tag of a value, up to the value."""
_COMMENT = re.compile(r"\s*:[ \t]+#")
_MAX_GUESSES = 20
_TEMPLATE = "`{{` begins two maps in YAML, not a template: put the text in quotes"
_TOO_DEEP = f"this is nested more than {MAX_DEPTH} levels deep"
_UNKNOWN_TAG = "unknown tag {}: remove it"


def _short(tag: str) -> str:
    return clip(tag.replace(_CORE, "!!"))


def _is_template(node: Map, key: Node, text: str) -> bool:
    """Tell whether a map is the result of an unquoted `{{ x }}`."""
    return isinstance(key, Map) and len(node.children) == 2 and text.startswith("{{", node.start)
