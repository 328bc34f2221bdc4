"""Edits of a YAML text by position: whatever is not edited stays as it is, byte for byte.

An edit that cannot be written this way is refused. Example: the value bears an anchor that other values use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from polar_iac.errors import DiagnosticError
from polar_iac.yaml import tree, write
from polar_iac.yaml.parse import parse
from polar_iac.yaml.positions import (
    BREAKS,
    Part,
    begins_line,
    column,
    line_end,
    line_start,
    read_parts,
)

Path = Sequence[str | int]
"""Keys and list indexes that lead from the root to a value."""
_REST_OF_LINE = re.compile(rf"[ \t]*(,?)[ \t]*(?:#[^{BREAKS}]*)?(?=[{BREAKS}])")
_COMMENT_LINE = re.compile(rf"([ \t]*)#[^{BREAKS}]*")
_INDICATOR = re.compile(r"[|>][-+0-9]*")
_BREAK = re.compile(rf"\r\n|[{BREAKS}]")


def values(node: tree.Node) -> Any:
    """Return a tree as plain data, with aliases and merge keys resolved."""
    made: dict[int, Any] = {}

    def of(node: tree.Node) -> Any:
        if isinstance(node, tree.Scalar):
            return node.value
        # An alias leads to the same node again: its data is made once.
        if id(node) not in made:
            made[id(node)] = (
                {key.text: of(node.entries[key.text]) for key in node.keys}
                if isinstance(node, tree.Map)
                else [of(child) for child in node.children]
            )
        return made[id(node)]

    return of(node)


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal in YAML: `1`, `1.0`, `true` and `"1"` are all different."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if write.is_list(left) and write.is_list(right):
        return len(left) == len(right) and all(map(same, left, right))
    # By their texts, since NaN is unequal to itself, and -0.0 equals 0.0.
    return type(left) is type(right) and repr(left) == repr(right)


class Editor:
    """Edits of one text. They take effect together, in `finish`.

    `data` is what the text will hold. No two edits may touch one value; entries and items that are added to
    one collection are added at once.
    """

    def __init__(self, source: bytes, file: str) -> None:
        self.document = parse(source, file)
        if self.document.problems:
            raise DiagnosticError(self.document.problems)
        self.text = self.document.text
        self.data: Any = values(self.document.root)
        self._before = source[: len(source) - len(self.text.encode())]
        """Byte order marks, which the text does not have."""
        self._root = read_parts(self.text)
        self._patches: list[tuple[int, int, str]] = []
        self._touched: list[Part] = []
        found = _BREAK.search(self.text)
        self._break = found[0] if found else "\n"
        self._one_line = _json if _is_json(self.text) else write.flow

    def is_own(self, path: Path) -> bool:
        """Tell whether an entry is written in its own map, and nowhere else."""
        part, depth = self._reach(path)
        return depth == len(path) and part.parent is not None and not part.parent.merges()

    # --- Edits ---

    def set(self, path: Path, value: Any) -> None:
        """Give the value at `path` another one. What an alias or a merge key brings is overridden here."""
        self.data, whole = _with(self.data, path, value), path
        part, depth = self._reach(path)
        if depth < len(path):
            # The nearest value that is written here, or the entry that overrides what is written elsewhere.
            whole = path[: depth + (part.kind == "map" and bool(part.children))]
            if part.kind == "map" and part.children:
                self._add(part, {str(whole[-1]): _at(self.data, whole)}, None)
                return
        self._replace(part, _at(self.data, whole))

    def add(self, path: Path, entries: Mapping[str, Any], before: str | None = None) -> None:
        """Add entries to the map at `path`, which must be there. `before` is a key that they stand before."""
        self.data = _with(self.data, path, {**_at(self.data, path), **entries})
        part, depth = self._reach(path)
        if depth < len(path) or part.kind != "map" or not part.children:
            self._write_whole(part, path[:depth])
        else:
            self._add(part, entries, before)

    def append(self, path: Path, items: Sequence[Any]) -> None:
        """Append items to the list at `path`, which must be there."""
        self.data = _with(self.data, path, [*_at(self.data, path), *items])
        part, depth = self._reach(path)
        if depth < len(path) or part.kind != "list" or not part.children:
            self._write_whole(part, path[:depth])
        else:
            texts = [self._one_line(item) for item in items]
            lines = [line for item in items for line in write.item(item, column(self.text, part.start))]
            self._grow(part, texts, lines)

    def remove(self, path: Path) -> None:
        """Remove an entry. A map that only merges it, or has no other entry, is written anew."""
        *above, key = path
        self.data = _with(self.data, above, {k: v for k, v in _at(self.data, above).items() if k != key})
        part, depth = self._reach(above)
        pair = part.pair(str(key)) if depth == len(above) and part.kind == "map" else None
        if pair is None or part.merges() or len(part.pairs) == 1:
            self._write_whole(part, above[:depth])
        else:
            self._cut(part, pair)

    def finish(self) -> bytes:
        """Return the edited text. Raises DiagnosticError when it would not hold exactly what was meant."""
        text, at = "", 0
        for start, end, new in sorted(self._patches, key=lambda patch: patch[:2]):
            if start < at:
                raise self._refusal()
            text, at = text + self.text[at:start] + new, end
        edited = self._before + (text + self.text[at:]).encode()
        try:
            document = parse(edited, self.document.file)
        except DiagnosticError:
            raise self._refusal() from None
        if document.problems or not same(values(document.root), self.data):
            raise self._refusal()
        return edited

    def _refusal(self) -> DiagnosticError:
        """Return why an edit is not written, at the first part that it touches."""
        part = min(self._touched, key=lambda part: part.start)
        used = {p.anchor for p in self._root.inside() if p.kind == "alias"} if self._root else set()
        shared: Part | None = part
        while shared and not (shared.kind != "alias" and shared.anchor in used):
            shared = shared.parent
        why = (
            f"it is part of what the anchor &{shared.anchor} names, and other values use that"
            if shared
            else "what stands around it would change too"
        )
        span = self.document.span(part.start, part.end)
        message = f"this value cannot be edited here by itself ({why}): edit it by hand"
        return DiagnosticError([self.document.diagnose_span(span, message)])

    # --- Positions ---

    def _reach(self, path: Path) -> tuple[Part, int]:
        """Return the last part on the way to `path` that is written here, and the number of steps to it."""
        part = self._root
        assert part is not None, "an empty text has nothing to edit"  # noqa: S101
        for depth, step in enumerate(path):
            if part.kind == "map" and (pair := part.pair(str(step))):
                part = pair[1]
            elif part.kind == "list" and isinstance(step, int) and step < len(part.children):
                part = part.children[step]
            else:
                return part, depth
        return part, len(path)

    def _patch(self, part: Part, start: int, end: int, text: str) -> None:
        self._touched.append(part)
        self._patches.append((start, end, text))

    def _behind(self, part: Part, indent: int) -> int:
        """Return where a line can follow a block collection: behind the comments that belong to it."""
        if self.text[part.end - 1 : part.end] in (*BREAKS,):
            return part.end  # a block scalar that keeps its line breaks
        end = line_end(self.text, part.end)
        while (found := _BREAK.match(self.text, end)) and (
            comment := _COMMENT_LINE.match(self.text, found.end())
        ):
            if len(comment[1]) < max(indent, 1):
                break
            end = comment.end()
        return end

    def _insert_lines(self, part: Part, at: int, lines: Sequence[str]) -> None:
        text = self._break.join(lines)
        begins = at > 0 and self.text[at - 1] in BREAKS
        self._patch(part, at, at, f"{text}{self._break}" if begins else f"{self._break}{text}")

    # --- Writing ---

    def _write_whole(self, part: Part, path: Path) -> None:
        """Write anew what is written at `path`."""
        self._replace(part, _at(self.data, path))

    def _replace(self, part: Part, value: Any) -> None:
        """Write a value in the place of another one. An anchor stays."""
        start = part.first if part.tagged else part.start
        whole = not part.flow and part.kind in ("map", "list")
        if not part.in_flow and (isinstance(value, Mapping) or write.is_list(value)):
            if whole and value:
                pad = column(self.text, start)
                self._patch(part, start, part.end, self._break.join(write.lines(value, pad))[pad:])
                return
            if not (part.flow and part.children) and not write.fits_one_line(value):
                self._replace_by_lines(part, value)
                return
        text = self._one_line(value)
        if (
            self._one_line is write.flow
            and isinstance(value, str)
            and part.kind == "scalar"
            and part.mark in ("'", '"')
        ):
            text = write.scalar(value, part.mark)
        if part.mark in ("|", ">"):
            # Its indicator gives way to the text, and its lines go; a comment behind the indicator stays.
            indicator = _INDICATOR.match(self.text, part.start)
            behind = indicator.end() if indicator else part.start
            self._patch(part, start, behind, text)
            lines = self.text[line_end(self.text, behind) : part.end].rstrip(f" \t{BREAKS}")
            self._patch(part, line_end(self.text, behind), line_end(self.text, behind) + len(lines), "")
        elif whole and part.parent and part.parent.kind == "map":
            self._patch(part, self._colon(part), part.end, f" {text}")
        else:
            self._patch(part, start, part.end, f" {text}" if start == part.end else text)

    def _replace_by_lines(self, part: Part, value: Any) -> None:
        """Write a collection on lines of its own, where an alias, a scalar or nothing is written."""
        if part.parent is None or part.parent.kind == "list":
            pad = column(self.text, part.start)
            self._patch(part, part.start, part.end, self._break.join(write.lines(value, pad))[pad:])
            return
        key = next(key for key, value_ in part.parent.pairs if value_ is part)
        self._patch(part, self._colon(part), part.end, "")
        indent = column(self.text, key.first) + write.STEP
        lines = write.spaced(value, indent) if write.are_blocks(value) else write.lines(value, indent)
        self._insert_lines(part, line_end(self.text, part.end), lines)

    def _colon(self, part: Part) -> int:
        """Return the index behind the colon of a value in a map."""
        assert part.parent is not None  # noqa: S101
        key = next(key for key, value in part.parent.pairs if value is part)
        return self.text.index(":", key.end) + 1

    def _add(self, part: Part, entries: Mapping[str, Any], before: str | None) -> None:
        """Add entries to a map that has some."""
        texts = [self._one_line({key: value})[1:-1] for key, value in entries.items()]
        indent = column(self.text, part.children[0].first)
        if len(part.pairs) > 1:
            blank = self._blank_between(part, before)
        else:
            blank = write.are_blocks(entries)
        lines = ["", *write.spaced(entries, indent)] if blank else write.lines(entries, indent)
        keys = [key.text for key, _ in part.pairs]
        if before in keys and keys.index(before) > 0 and not part.flow:
            last = part.pairs[keys.index(before) - 1][1]
            self._insert_lines(part, self._behind(last, indent), lines)
        else:
            self._grow(part, texts, lines)

    def _blank_between(self, part: Part, before: str | None) -> bool:
        """Tell whether a blank line separates the last two entries of a map, or the one at `before`."""
        pairs = part.pairs
        keys = [key.text for key, _ in pairs]
        index = keys.index(before) if before in keys else len(pairs) - 1
        if index < 1:
            return False
        between = self.text[pairs[index - 1][1].end : pairs[index][0].first]
        return any(not line.strip() for line in _BREAK.split(between)[1:-1])

    def _grow(self, part: Part, texts: Sequence[str], lines: Sequence[str]) -> None:
        """Add members to a collection that has some: `texts` between brackets, else `lines`."""
        last = part.children[-1]
        if not part.flow:
            self._insert_lines(part, self._behind(part, column(self.text, part.start)), lines)
            return
        member = part.pairs[-1][0] if part.kind == "map" else last
        if not begins_line(self.text, member.first):
            self._patch(part, last.end, last.end, "".join(f", {text}" for text in texts))
            return
        separator = f",{self._break}{' ' * column(self.text, member.first)}"
        rest = _REST_OF_LINE.match(self.text, last.end)
        if rest is None:
            self._patch(part, last.end, last.end, "".join(f"{separator}{text}" for text in texts))
            return
        # Behind the comment on the last member's line.
        if not rest[1]:
            self._patch(part, last.end, last.end, ",")
        text = separator[1:] + separator.join(texts) + rest[1]
        self._patch(part, rest.end(), rest.end(), text)

    def _cut(self, part: Part, pair: tuple[Part, Part]) -> None:
        """Cut an entry out of a map that has others."""
        key, value = pair
        number = part.pairs.index(pair)
        following = part.pairs[number + 1][0].first if number + 1 < len(part.pairs) else None
        if part.flow:
            if following is not None:
                self._patch(key, key.first, following, "")
            else:
                self._patch(key, part.pairs[number - 1][1].end, value.end, "")
            return
        if not begins_line(self.text, key.first):
            # Example: the first entry of `- a: 1`, whose line the list shares.
            self._patch(key, key.first, following or value.end, "")
            return
        start, end = line_start(self.text, key.first), line_end(self.text, value.end)
        if self.text[value.end - 1 : value.end] in (*BREAKS,):
            end = value.end
        elif found := _BREAK.match(self.text, end):
            end = found.end()
        self._patch(key, start, end, "")


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json(value: Any) -> str:
    """Return a value as JSON that YAML takes too: it knows some characters only escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() or c > "\uffff" else f"\\u{ord(c):04x}" for c in text)


def _at(data: Any, path: Path) -> Any:
    """Return the value at a path of plain data."""
    for step in path:
        data = data[step]
    return data


def _with(data: Any, path: Path, value: Any) -> Any:
    """Return plain data with another value at a path. Maps that are missing on the way are added."""
    if not path:
        return value
    step, *rest = path
    if isinstance(step, int):
        return [*data[:step], _with(data[step], rest, value), *data[step + 1 :]]
    inner = data if isinstance(data, Mapping) else {}
    return {**inner, step: _with(inner.get(step), rest, value)}
