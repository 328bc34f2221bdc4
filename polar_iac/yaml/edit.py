"""Edits of a YAML text by position: whatever is not edited stays as it is, byte for byte.

An edit that cannot be written this way is refused. Example: the value bears an anchor that other values use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from polar_iac.errors import DiagnosticError
from polar_iac.yaml import write
from polar_iac.yaml.data import Path, at, differing, replaced, same, values, without
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

_REST_OF_LINE = re.compile(rf"[ \t]*(,?)[ \t]*(?:#[^{BREAKS}]*)?(?=[{BREAKS}])")
_COMMENT_LINE = re.compile(rf"([ \t]*)#[^{BREAKS}]*")
_INDICATOR = re.compile(r"[|>][-+0-9]*")
_BREAK = re.compile(rf"\r\n|[{BREAKS}]")


class Editor:
    """Edits of one text. They take effect together, in `finish`.

    `data` is what the text will hold: each edit sees those before it. What an edit added cannot be removed.
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
        self._patches: dict[object, list[tuple[int, int, str]]] = {}
        """Replacements by what is written: written again, it holds the earlier edits too."""
        self._written: object = None
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
        self.data = replaced(self.data, path, value)
        self._override(*self._reach(path), path)

    def add(self, path: Path, entries: Mapping[str, Any], before: str | None = None) -> None:
        """Add entries to the map at `path`, which must be there. `before` is a key that they stand before."""
        self.data = replaced(self.data, path, {**at(self.data, path), **entries})
        part, depth = self._reach(path)
        if depth < len(path) or part.kind != "map" or not part.children:
            self._write_whole(part, path[:depth])
        else:
            self._begin(object())
            self._add(part, entries, before)

    def append(self, path: Path, items: Sequence[Any]) -> None:
        """Append items to the list at `path`, which must be there."""
        self.data = replaced(self.data, path, [*at(self.data, path), *items])
        part, depth = self._reach(path)
        if depth < len(path) or part.kind != "list" or not part.children:
            self._write_whole(part, path[:depth])
        else:
            self._begin(object())
            texts = [self._one_line(item) for item in items]
            lines = [line for item in items for line in write.item(item, column(self.text, part.start))]
            self._grow(part, texts, lines)

    def remove(self, path: Path) -> None:
        """Remove an entry of a map, or an item of a list.

        What an alias or a merge key brings is written anew without it, and so is what has no other member.
        """
        *above, step = path
        self.data = without(self.data, path)
        part, depth = self._reach(above)
        members = part.members
        number = part.number(step) if depth == len(above) else None
        if number is None or part.merges() or len(members) == 1:
            self._write_whole(part, above[:depth])
        else:
            self._begin(object())
            self._cut(part, number)

    def finish(self) -> bytes:
        """Return the edited text. Raises DiagnosticError when it would not hold exactly what was meant."""
        edited, found = self._edited()
        if not same(found, self.data):
            for path in differing(found, self.data):
                self._keep(path)
            edited, found = self._edited()
            if not same(found, self.data):
                raise self._refusal()
        return edited

    def _edited(self) -> tuple[bytes, Any]:
        """Return the text with all edits, and what it holds."""
        text, done = "", 0
        patches = [patch for written in self._patches.values() for patch in written]
        for start, end, new in sorted(patches, key=lambda patch: patch[:2]):
            if start < done:
                raise self._refusal()
            text, done = text + self.text[done:start] + new, end
        edited = self._before + (text + self.text[done:]).encode()
        try:
            document = parse(edited, self.document.file)
        except DiagnosticError:
            raise self._refusal() from None
        if document.problems:
            raise self._refusal()
        return edited, values(document.root)

    def _keep(self, path: Path) -> None:
        """Write out at `path` what it had through an anchor whose value was edited."""
        part, depth = self._reach(path)
        # A map that lost a key, or has one more, can only be written anew: in brackets it holds no comments.
        anew = part.kind == "alias" or (part.flow and part.kind == "map" and part.merges())
        if part in self._touched or (depth == len(path) and not anew):
            raise self._refusal()
        self._override(part, depth, path)

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
        self._patches[self._written].append((start, end, text))

    def _begin(self, written: object) -> None:
        """Begin to write something. Two values that are equal are the same thing."""
        self._written = written
        self._patches[written] = []

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

    def _insert_lines(self, part: Part, place: int, lines: Sequence[str]) -> None:
        text = self._break.join(lines)
        begins = place > 0 and self.text[place - 1] in BREAKS
        self._patch(part, place, place, f"{text}{self._break}" if begins else f"{self._break}{text}")

    # --- Writing ---

    def _override(self, part: Part, depth: int, path: Path) -> None:
        """Write the value at `path`, of which the first `depth` steps are written here and lead to `part`."""
        if depth < len(path) and part.kind == "map" and part.children:
            # The entry that comes before what is written elsewhere.
            self._begin((part, path[depth]))
            self._add(part, {str(path[depth]): at(self.data, path[: depth + 1])}, None)
        else:
            self._write_whole(part, path[:depth])

    def _write_whole(self, part: Part, path: Path) -> None:
        """Write anew what is written at `path`."""
        self._begin(part)
        self._replace(part, at(self.data, path))

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
        if self._one_line is write.flow and not isinstance(value, Mapping) and not write.is_list(value):
            quote = part.mark if part.mark in ("'", '"') else ""
            text = write.scalar(value, quote, in_brackets=part.in_flow)
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

    def _cut(self, part: Part, number: int) -> None:
        """Cut a member out of a collection that has others."""
        members = part.members
        begin, last = members[number][0].first, members[number][-1]
        following = members[number + 1][0].first if number + 1 < len(members) else None
        previous = members[number - 1][-1].end if number else part.start
        if part.flow:
            start, end = (begin, following) if following is not None else (previous, last.end)
            self._patch(last, start, end, "")
            return
        if part.kind == "list":
            begin = self.text.rindex("-", previous, begin)
        if not begins_line(self.text, begin):
            # Example: the first entry of `- a: 1`, whose line the list shares.
            self._patch(last, begin, following or last.end, "")
            return
        end = line_end(self.text, last.end)
        if self.text[last.end - 1 : last.end] in (*BREAKS,):
            end = last.end
        elif found := _BREAK.match(self.text, end):
            end = found.end()
        self._patch(last, line_start(self.text, begin), end, "")


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
