"""YAML text to a tree in which everything knows its position.

Built iteratively from the C parser's events, so that nothing a file holds can overflow a stack, and with
limits, so that a short file cannot become a huge tree. JSON is YAML: the position of a fault in a lockfile is
found here as well.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from polar_iac.errors import Diagnostic, DiagnosticError, SourceSpan

MAX_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 300
MAX_SCALAR = 1024 * 1024
MAX_DIGITS = 3_000
"""In hexadecimal too this stays below the 4,300 decimal digits at which Python refuses to convert."""
MAX_EXPANSION = 1_000_000
"""How many nodes aliases and merge keys may add to those that are written down."""

Value = str | int | float | bool | None


class Doubtful(str):
    """An unquoted text that is not to be guessed at; `advice` says why, and what to write instead."""

    advice: str

    def __new__(cls, text: str, advice: str) -> Doubtful:
        self = super().__new__(cls, text)
        self.advice = advice
        return self


class Scalar:
    """A text; `plain` when it stands there without quotes and so may mean something else than text."""

    __slots__ = ("end", "plain", "start", "text")

    def __init__(self, text: str, plain: bool, start: int, end: int) -> None:
        self.text = text
        self.plain = plain
        self.start = start
        self.end = end

    @property
    def value(self) -> Value:
        return resolve(self.text) if self.plain and self.text[:1] in _SUSPECT else self.text


class Collection:
    """What maps and lists share. `end` is past the bracket; without brackets it equals `start`."""

    __slots__ = ("anchor", "children", "end", "height", "start")
    text = None

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.height = 1
        self.anchor: tuple[str, int] | None = None
        self.children: list[Node] = []


class List(Collection):
    """Its items are its `children`."""

    __slots__ = ()


class Map(Collection):
    """Keys and values, with what merge keys bring; `keys` and `entries` have the same order."""

    __slots__ = ("entries", "keys")

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start, end)
        self.keys: list[Scalar] = []
        self.entries: dict[str, Node] = {}

    def key(self, name: str) -> Scalar:
        return next(key for key in self.keys if key.text == name)


Node = Scalar | List | Map


class Document:
    """The tree of a file, and where each of its nodes stands.

    `problems` are those that did not stop the parser: duplicate keys, unknown anchors and tags.
    """

    def __init__(self, file: str, text: str) -> None:
        self.root: Node = Scalar("", True, 0, 0)
        self.file = file
        self.text = text
        self.problems: list[Diagnostic] = []
        self._excerpts: dict[int, str] = {}

    @cached_property
    def _lines(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", self.text))]

    def line(self, index: int) -> int:
        """The number of the line in which the character `index` stands; the end belongs to the last line."""
        line = bisect_right(self._lines, index)
        return line - 1 if line > 1 and self._lines[line - 1] == len(self.text) else line

    def span(self, start: int, end: int) -> SourceSpan:
        line = self.line(start)
        begin = self._lines[line - 1]
        stop = max(start + 1, min(end, begin + len(self._excerpt(line))))
        return SourceSpan(self.file, line, start - begin + 1, stop - begin + 1)

    def _excerpt(self, line: int) -> str:
        """One string per line however many problems it has: a file may be one line of many megabytes."""
        excerpt = self._excerpts.get(line)
        if excerpt is None:
            end = self._lines[line] if line < len(self._lines) else len(self.text)
            excerpt = self._excerpts[line] = self.text[self._lines[line - 1] : end].rstrip("\r\n")
        return excerpt

    def span_of(self, node: Node) -> SourceSpan:
        if isinstance(node, Map) and node.end == node.start and node.keys:
            return self.span(node.start, max(node.start + 1, node.keys[0].end))
        return self.span(node.start, node.end)

    def diagnose(self, node: Node, message: str) -> Diagnostic:
        return self.diagnose_span(self.span_of(node), message)

    def diagnose_span(self, span: SourceSpan, message: str) -> Diagnostic:
        return Diagnostic(span, message, self._excerpt(span.line))

    def at(self, path: Sequence[str | int]) -> SourceSpan:
        """Where the value at `path` stands, or the nearest thing above it that exists.

        A map or a list that stands under a key is shown at its key.
        """
        node, shown = self.root, self.root
        for step in path:
            if isinstance(node, Map) and step in node.entries:
                key, node = node.key(str(step)), node.entries[str(step)]
                shown = node if isinstance(node, Scalar) else key
            elif isinstance(node, List) and isinstance(step, int) and 0 <= step < len(node.children):
                shown = node = node.children[step]
            else:
                break
        return self.span_of(shown)


# --- What a plain scalar means ---------------------------------------------------------------------------

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_SUSPECT = frozenset(["", *"~nNtTfF+-.0123456789"])
"""What a plain scalar begins with that is not simply text."""
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t][0-9: \t.TtZz+-]*)?")


def resolve(text: str) -> Value:
    """What an unquoted text stands for by the core schema of YAML 1.2 (`yes` and `on` are texts)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            return _too_long(text)
        digits = text.lstrip("+-")
        if digits[0] == "0" and len(digits) > 1:
            number = int(text)
            return Doubtful(
                text,
                f"{clip(text)} begins with a zero: write {clip(str(number))} for the number,"
                f" or put it in quotes for the text",
            )
        return int(text)
    if _BASED.fullmatch(text):
        return _too_long(text) if len(text) > MAX_DIGITS else int(text, 0)
    if _FLOAT.fullmatch(text):
        return _too_long(text) if len(text) > MAX_DIGITS else float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if _DATE.fullmatch(text):
        return Doubtful(text, f'{text} without quotes is a date: put it in quotes, "{text}"')
    return text


def _too_long(text: str) -> Doubtful:
    return Doubtful(text, f"a number of {len(text):,} characters is too long (at most {MAX_DIGITS:,})")


def clip(text: str, width: int = 40) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that was probably meant."""
    return next(iter(get_close_matches(word[:100].lower().replace("-", "_"), known, 1)), None)


# --- Text to tree ----------------------------------------------------------------------------------------


def parse(data: bytes | str, file: str) -> Document:
    """Read one YAML document; an empty file is an empty scalar.

    Raises DiagnosticError when what follows the fault cannot be understood.
    """
    text = _decode(data, file)
    document = Document(file, text)
    # Imported late: commands that read no YAML need not wait for it.
    from _ruamel_yaml import CParser  # type: ignore[import-not-found]
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        _Builder(document, CParser(text.encode()).get_event).build()
    except MarkedYAMLError as error:
        start, message = _explain(error, text)
        problem = document.diagnose_span(document.span(start, start + 1), message)
        raise DiagnosticError([*document.problems, problem]) from None
    except YAMLError as error:
        found = _UNPRINTABLE.search(text)
        start = found.start() if found else 0
        what = (
            f"the control character U+{ord(text[start]):04X} is not allowed"
            if found
            else f"not valid YAML: {error}"
        )
        problem = document.diagnose_span(document.span(start, start + 1), f"{what}: remove it")
        raise DiagnosticError([*document.problems, problem]) from None
    return document


_Event = Any  # the C parser's events have no types


class _Builder:
    """The state of one parse: the collections that are open, the anchors seen, what aliases have added."""

    def __init__(self, document: Document, next_event: Callable[[], _Event]) -> None:
        self.document = document
        self.next_event = next_event
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.expanded = 0

    def problem(self, start: int, end: int, message: str) -> Diagnostic:
        problem = self.document.diagnose_span(self.document.span(start, end), message)
        self.document.problems.append(problem)
        return problem

    def stop(self, start: int, end: int, message: str) -> DiagnosticError:
        self.problem(start, end, message)
        return DiagnosticError(self.document.problems)

    def build(self) -> None:
        """The hot loop: plain and cheap for what is common, helpers for the rest."""
        from ruamel.yaml import events

        scalar_event, map_start, list_start = (
            events.ScalarEvent,
            events.MappingStartEvent,
            events.SequenceStartEvent,
        )
        ends = (events.MappingEndEvent, events.SequenceEndEvent)
        next_event = self.next_event
        bottom: Map | List = List(0, 0)
        current = bottom
        stack: list[Map | List] = []
        children = bottom.children
        count = documents = 0  # `count`: nodes, those behind aliases included
        while True:
            event = next_event()
            kind = event.__class__
            if kind is scalar_event:
                count += 1
                text = event.value
                scalar = Scalar(text, not event.style, event.start_mark.index, event.end_mark.index)
                if not text or event.anchor or event.ctag or len(text) > MAX_SCALAR:
                    scalar = self.special(scalar, event, current)
                children.append(scalar)
            elif kind in ends:
                if current.end > current.start:
                    current.end = event.end_mark.index
                if kind is ends[0]:
                    count += self.close(current)  # type: ignore[arg-type]
                height = current.height + 1
                if current.anchor:
                    name, before = current.anchor
                    self.anchors[name] = (current, count - before)
                current = stack.pop()
                children = current.children
                if height > current.height:
                    current.height = height
            elif kind is map_start or kind is list_start:
                count += 1
                start = event.start_mark.index
                node: Map | List = (Map if kind is map_start else List)(start, event.end_mark.index)
                if event.anchor or event.ctag:
                    self.decorate(node, event, count - 1)
                if len(stack) >= MAX_DEPTH:
                    raise self.stop(start, start + 1, _TOO_DEEP)
                children.append(node)
                stack.append(current)
                current = node
                children = node.children
            elif kind is events.AliasEvent:
                target, size = self.target(event, len(stack))
                count += size
                children.append(target)
                if isinstance(target, Collection) and target.height >= current.height:
                    current.height = target.height + 1
            elif kind is events.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    start = event.start_mark.index
                    raise self.stop(start, start + 3, "a second document begins here: a file holds only one")
            elif kind is events.StreamEndEvent:
                break
        if bottom.children:
            self.document.root = bottom.children[0]

    def special(self, scalar: Scalar, event: _Event, parent: Map | List) -> Scalar:
        """A scalar that is empty, anchored, tagged or huge."""
        text = scalar.text
        if len(text) > MAX_SCALAR:
            message = f"a text of {len(text):,} characters is too long (at most {MAX_SCALAR:,})"
            raise self.stop(scalar.start, scalar.end, message)
        if event.anchor or event.ctag:
            self.skip_properties(scalar)
        if not text and scalar.plain and parent.children:
            # An empty value has no place of its own: it is shown at its key.
            key = parent.children[-1]
            if isinstance(parent, Map) and len(parent.children) % 2 and isinstance(key, Scalar):
                scalar.start, scalar.end = key.start, key.end
        if event.ctag:
            self.retype(scalar, event.ctag, event.start_mark.index)
        if event.anchor:
            self.anchors[event.anchor] = (scalar, 1)
        return scalar

    def skip_properties(self, node: Node) -> None:
        """Let a node begin behind its anchor and tag."""
        found = _PROPERTIES.match(self.document.text, node.start)
        if found and isinstance(node, Scalar):
            node.start = min(found.end(), max(node.end - 1, node.start))
        elif found and node.end > node.start:
            node.start = min(found.end(), node.end - 1)

    def retype(self, scalar: Scalar, tag: str, start: int) -> None:
        """Apply a core tag: `!!str 5` is a text, `!!int "5"` a number."""
        if tag in ("!", f"{_CORE}str"):
            scalar.plain = False
            return
        value = resolve(scalar.text)
        if tag == f"{_CORE}float" and type(value) is int:
            scalar.text, scalar.plain = f"{scalar.text}.0", True
        elif tag in _TYPES and type(value) is _TYPES[tag]:
            scalar.plain = True
        elif tag in _TYPES:
            self.problem(
                scalar.start, scalar.end, f"{clip(scalar.text)!r} does not fit its tag {_short(tag)}"
            )
        else:
            self.problem(start, scalar.end, _UNKNOWN_TAG.format(_short(tag)))

    def decorate(self, node: Map | List, event: _Event, count: int) -> None:
        self.skip_properties(node)
        if event.ctag and event.ctag not in ("!", f"{_CORE}{'map' if isinstance(node, Map) else 'seq'}"):
            start = event.start_mark.index
            self.problem(start, event.end_mark.index, _UNKNOWN_TAG.format(_short(event.ctag)))
        if event.anchor:
            node.anchor = (event.anchor, count)
            self.anchors[event.anchor] = (node, 0)

    def target(self, event: _Event, depth: int) -> tuple[Node, int]:
        """The node that an alias stands for, and how many nodes that is."""
        start, end, name = event.start_mark.index, event.end_mark.index, event.anchor
        if name not in self.anchors:
            meant = nearest(name, list(self.anchors))
            hint = f": did you mean *{meant}?" if meant else ": define it above with &" + clip(name)
            self.problem(start, end, f"there is no anchor &{clip(name)}{hint}")
            return Scalar("", False, start, end), 1
        node, size = self.anchors[name]
        if not size:
            raise self.stop(start, end, f"*{clip(name)} stands inside the value that &{clip(name)} names")
        if isinstance(node, Collection) and depth + node.height > MAX_DEPTH:
            raise self.stop(start, end, _TOO_DEEP)
        self.expand(size, start, end)
        return node, size

    def expand(self, size: int, start: int, end: int) -> None:
        self.expanded += size
        if self.expanded > MAX_EXPANSION:
            message = (
                f"aliases make this file larger than {MAX_EXPANSION:,} values: write less of it with aliases"
            )
            raise self.stop(start, end, message)

    def close(self, node: Map) -> int:
        """Pair keys and values; returns how many nodes merge keys brought."""
        children = node.children
        node.keys = keys = children[::2]  # type: ignore[assignment]
        names = [key.text for key in keys]
        entries: dict[Any, Node] = dict(zip(names, children[1::2], strict=True))
        node.entries = entries
        if len(entries) == len(names) and "<<" not in entries and None not in entries:
            return 0
        return self.close_carefully(node)

    def close_carefully(self, node: Map) -> int:
        """A map with a duplicate key, a merge key, or a key that is no scalar."""
        keys: dict[str, Scalar] = {}
        entries: dict[str, Node] = {}
        merged: Node | None = None
        for key, value in zip(node.children[::2], node.children[1::2], strict=True):
            if not isinstance(key, Scalar):
                what = "a list" if isinstance(key, List) else "a map"
                self.problem(
                    key.start, key.end, f"a key must be text, got {what}: if that is a value, quote it"
                )
            elif key.text in keys:
                line = self.document.line(keys[key.text].start)
                message = f"the key {clip(key.text)!r} is here twice: the first is on line {line}"
                hint = "; write <<: [*one, *two]" if key.text == "<<" else ""
                self.problem(key.start, key.end, message + hint)
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
        """Bring in what `<<` names: earlier maps win over later ones, a map's own keys over all."""
        sources = merged.children if isinstance(merged, List) else [merged]
        all_keys: dict[str, Scalar] = {}
        all_entries: dict[str, Node] = {}
        brought = 0
        for source in sources:
            if not isinstance(source, Map):
                self.problem(source.start, source.end, "<< takes a map or a list of maps: `<<: *anchor`")
                continue
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
_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*\s+)+")
_TOO_DEEP = f"this is nested more than {MAX_DEPTH} levels deep"
_UNKNOWN_TAG = "the tag {} is not known here: remove it"


def _short(tag: str) -> str:
    return clip(tag.replace(_CORE, "!!"))


# --- Text that is no YAML --------------------------------------------------------------------------------

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _decode(data: bytes | str, file: str) -> str:
    """UTF-8 without a byte order mark, or a DiagnosticError."""
    if len(data) > MAX_BYTES:
        raise _unreadable(file, "", f"the file is larger than {MAX_BYTES // 1024**2} MiB")
    if isinstance(data, str):
        lone = re.search("[\ud800-\udfff]", data)
        if lone:
            raise _unreadable(
                file, data[: lone.start()], "half of a character (a lone surrogate) stands here"
            )
        return data.removeprefix("\ufeff")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unreadable(file, "", "the file is UTF-16 or UTF-32: save it as UTF-8")
    nul = data.find(b"\0")
    if nul >= 0:
        head = data[:1000]
        if head[::2].count(0) * 3 > len(head) or head[1::2].count(0) * 3 > len(head):
            raise _unreadable(file, "", "the file is UTF-16 or UTF-32: save it as UTF-8")
        before = data[:nul].decode(errors="replace")
        raise _unreadable(file, before, "a NUL byte stands here: this is no text file")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        byte = data[error.start]
        raise _unreadable(
            file, before, f"the byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"
        ) from None


def _unreadable(file: str, before: str, message: str) -> DiagnosticError:
    """A fault in what is not yet text: the excerpt ends where the text does."""
    document = Document(file, before.removeprefix("\ufeff") + "?")
    start = len(document.text) - 1
    span = document.span(start, start + 1)
    excerpt = document.diagnose_span(span, "").excerpt[:-1]
    return DiagnosticError([Diagnostic(span, message, excerpt)])


_QUOTE = "put the text in quotes"
_TAB = "a tab indents this line: YAML wants spaces"
_REASONS: Sequence[tuple[str, str]] = (
    ("found a tab character", _TAB),
    ("found unexpected ':'", f"a `:` in unquoted text between brackets: {_QUOTE}"),
    ("block sequence entries are not allowed", "a list cannot begin here: begin it on a line of its own"),
    (
        "could not find expected ':'",
        "this line is no `key: value`: a `:` is missing, or the indentation is wrong",
    ),
    (
        "did not find expected key",
        "this does not fit what stands above: check indentation, quotes and brackets",
    ),
    (
        "did not find expected '-' indicator",
        "this stands where a list goes on: begin it with `- `, or indent it",
    ),
    (
        "found unknown escape character",
        "no such escape in double quotes: write `\\\\` for a backslash, or use single quotes",
    ),
    (
        "found invalid Unicode character",
        "an escape for half of a character (a surrogate): write the character itself",
    ),
    ("did not find expected hexdecimal", "an escape with too few hexadecimal digits"),
    ("found unexpected document indicator", "a document ends here, inside quotes: close them before"),
    (
        "did not find expected <document start>",
        "nothing may follow here: the document is complete before this",
    ),
    (
        "did not find expected comment or line break",
        f"text after `|` or `>` goes on the next line; else {_QUOTE}",
    ),
    (
        "did not find expected alphabetic or numeric",
        f"a name must follow `&` or `*`; if it is text, {_QUOTE}",
    ),
    ("found undefined tag handle", f"this tag is not known; if it is text, {_QUOTE}"),
    ("found incompatible YAML document", "this version of YAML is not known: remove the line"),
    ("found unknown directive name", f"a line that begins with % is a directive; if it is text, {_QUOTE}"),
)


def _explain(error: Any, text: str) -> tuple[int, str]:
    """Where a parser's error is best shown, and what it means to a person."""
    problem, context = error.problem or "", error.context or ""
    index = error.problem_mark.index if error.problem_mark else 0
    opened = error.context_mark.index if error.context_mark else index
    character = text[index : index + 1]
    if problem == "found unexpected end of stream" and "quoted" in context:
        return opened, "this quote is never closed"
    if problem.startswith("did not find expected ',' or"):
        close = problem[-2]
        return (
            opened,
            f"this bracket is not closed: `{close}` or a comma is missing on line {_line(text, index)}",
        )
    if problem == "did not find expected node content":
        return index, f"a value is missing before `{character}`" if character else "a value is missing"
    if problem == "found character that cannot start any token":
        return index, _TAB if character == "\t" else f"`{character}` cannot begin a text: {_QUOTE}"
    if problem.startswith("mapping values"):
        if re.search(r":\s", text[text.rfind("\n", 0, index) + 1 : index]):
            return index, f"a second `: ` on one line: {_QUOTE}, or break the line"
        return index, "no `:` fits here: check the indentation, and that the line before is complete"
    if problem.startswith("could not find expected ':'"):
        index = opened
    return index, next(
        (reason for words, reason in _REASONS if problem.startswith(words)),
        f"not valid YAML: {problem}" + (f" {context}" if context else ""),
    )


def _line(text: str, index: int) -> int:
    return Document("", text).line(index)
