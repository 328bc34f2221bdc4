"""A YAML document as a tree in which every node knows its position."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property

from polar_iac.errors import Diagnostic, Severity, SourceSpan
from polar_iac.yaml.scalars import SUSPECT, Value, resolve

MAX_PROBLEMS = 1_000
"""Maximum number of problems reported. Nobody reads more, and finding them all could take minutes."""


class Scalar:
    """A scalar value.

    `plain` means that it is written without quotes, so it may be something other than text.
    """

    __slots__ = ("end", "plain", "start", "text")
    blamed = False

    def __init__(self, text: str, plain: bool, start: int, end: int) -> None:
        self.text = text
        self.plain = plain
        self.start = start
        self.end = end

    @property
    def value(self) -> Value:
        return resolve(self.text) if self.plain and self.text[:1] in SUSPECT else self.text


class Unread(Scalar):
    """Placeholder for a value whose problem is already reported."""

    __slots__ = ()
    blamed = True


class Nothing(Scalar):
    """An empty value where the file does contain characters. `hint` says why they are not text."""

    __slots__ = ("hint",)

    def __init__(self, start: int, end: int, hint: str) -> None:
        super().__init__("", True, start, end)
        self.hint = hint


class Collection:
    """Common base of maps and lists. `end` is after the closing bracket; without brackets it equals `start`.

    `blamed` is True when a reported problem explains why the collection is wrong or incomplete.
    """

    __slots__ = ("anchor", "blamed", "children", "end", "height", "start")
    text = None

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.height = 1
        self.blamed = False
        self.anchor: tuple[str, int] | None = None
        self.children: list[Node] = []


class List(Collection):
    """A list. Its items are its `children`."""

    __slots__ = ()


class Map(Collection):
    """A map, including the entries from merge keys. `keys` and `entries` have the same order.

    `repeated` holds the entries of duplicate keys: they are a problem, but are still read.
    """

    __slots__ = ("_by_name", "entries", "keys", "repeated")
    entries: dict[str, Node]
    keys: list[Scalar]
    repeated: Sequence[tuple[Scalar, Node]]

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start, end)
        self._by_name: dict[str, Scalar] | None = None
        self.repeated = ()

    def key(self, name: str) -> Scalar:
        if self._by_name is None:
            self._by_name = {key.text: key for key in self.keys}
        return self._by_name[name]

    def place(self, name: str) -> Node:
        """Return the node to report for an entry: its key, or its value if that is written elsewhere."""
        return written_at(self.key(name), self.entries[name])


Node = Scalar | List | Map


def written_at(key: Scalar, value: Node) -> Node:
    """Return the key if the value is written next to it, else the value.

    An alias refers to a value written earlier in the file, so that value starts before the key.
    """
    return key if value.start >= key.start else value


class Document:
    """The tree of a file, and the positions of its nodes.

    `problems` are the ones that did not stop the parser: duplicate keys, unknown anchors, and unknown tags.
    """

    def __init__(self, file: str, text: str) -> None:
        self.root: Node = Scalar("", True, 0, 0)
        self.file = file
        self.text = text
        self.problems: list[Diagnostic] = []
        self._excerpts: dict[int, str] = {}

    @cached_property
    def lines(self) -> list[int]:
        """Index of the first character of each line."""
        return [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", self.text))]

    def line(self, index: int) -> int:
        """Return the line number of the character at `index`.

        The end of the text belongs to the last line.
        """
        line = bisect_right(self.lines, index)
        return line - 1 if line > 1 and self.lines[line - 1] == len(self.text) else line

    def span(self, start: int, end: int) -> SourceSpan:
        line = self.line(start)
        begin = self.lines[line - 1]
        length = len(self._excerpt(line))
        start = min(start, begin + length)  # An empty value may be positioned after the last line break.
        stop = max(start + 1, min(end, begin + length))
        return SourceSpan(self.file, line, start - begin + 1, stop - begin + 1)

    def _excerpt(self, line: int) -> str:
        """Return the text of a line.

        The string is shared by all problems of the line: a file may be one line of many megabytes.
        """
        excerpt = self._excerpts.get(line)
        if excerpt is None:
            end = self.lines[line] if line < len(self.lines) else len(self.text)
            excerpt = self._excerpts[line] = self.text[self.lines[line - 1] : end].rstrip("\r\n")
        return excerpt

    def span_of(self, node: Node) -> SourceSpan:
        if isinstance(node, Map) and node.end == node.start and node.keys:
            return self.span(node.start, max(node.start + 1, node.keys[0].end))
        return self.span(node.start, node.end)

    def problem(self, start: int, message: str, end: int = 0) -> Diagnostic:
        """Record and return a problem for the text from `start` to `end`."""
        problem = self.diagnose_span(self.span(start, end), message)
        self.problems.append(problem)
        return problem

    def problem_ends_before(self, index: int) -> bool:
        """Tell whether a recorded problem ends right before `index`, and so explains an error there."""
        end = len(self.text[:index].rstrip())
        place = self.span(max(end - 1, 0), end)
        return any((p.span.line, p.span.end_column) == (place.line, place.end_column) for p in self.problems)

    def diagnose(self, node: Node, message: str, rule: str = "") -> Diagnostic:
        return self.diagnose_span(self.span_of(node), message, rule=rule)

    def diagnose_span(
        self, span: SourceSpan, message: str, severity: Severity = "error", rule: str = ""
    ) -> Diagnostic:
        return Diagnostic(span, message, self._excerpt(span.line), severity, rule)

    def at(self, path: Sequence[str | int]) -> SourceSpan:
        """Return the position of the value at `path`, or of its nearest existing parent.

        A map or list under a key is shown at its key.
        """
        node, place = self.root, self.root
        for step in path:
            if isinstance(node, Map) and step in node.entries:
                key, node = node.key(str(step)), node.entries[str(step)]
                place = node if isinstance(node, Scalar) else key
            elif isinstance(node, List) and isinstance(step, int) and 0 <= step < len(node.children):
                place = node = node.children[step]
            else:
                break
        return self.span_of(place)
