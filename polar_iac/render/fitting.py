"""Markdown that has to fit: fair shares of a room, and lines of which the last may be left out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from polar_iac.render.markup import details, fence, prose, size

_LONG = 30
"""Fenced blocks of more lines are folded."""


def level(needs: Sequence[int], room: int) -> int:
    """How much each may take at most, so that all of them fit: who needs less leaves it to the others."""
    waiting = sorted(needs)
    for index, need in enumerate(waiting):
        fair = max(0, room) // (len(waiting) - index)
        if need > fair:
            return fair
        room -= need
    return max(waiting, default=0)


@dataclass(frozen=True)
class Lines:
    """Lines of which the last may be left out where there is no room; not `head` and `tail`."""

    lines: Sequence[str]
    head: Sequence[str] = ()
    tail: Sequence[str] = ()
    language: str | None = None
    """Of the fence around them; None: they are a list, or a table if there is a head."""

    def least(self, whole: str) -> int:
        """How little room will do."""
        return min(size(self._cut(0, whole)), size(self._cut(len(self.lines), whole)))

    def markdown(self, room: int, whole: str) -> str:
        """As many of the lines as there is room for, and how many are left out; with room for none, that."""
        count = len(self.lines)
        if size(text := self._cut(count, whole)) <= room:
            return text
        return self._cut(
            max(0, bisect_left(range(count), True, key=lambda n: size(self._cut(n, whole)) > room) - 1), whole
        )

    def _cut(self, shown: int, whole: str) -> str:
        lines, left = self.lines[:shown], len(self.lines) - shown
        more = f"… {left:,} more line{'s' * (left > 1)}, in {whole}"
        if self.language is not None:
            cut = [f"  # {more}" if self.language == "yaml" else f"  {more}"] if left else []
            return folded([*lines, *cut], self.language)
        if self.head:
            return "\n".join([*self.head, *lines, *(["", prose(more)] if left else [])])
        return "\n".join([*lines, *([f"- {prose(more)}"] if left else []), *self.tail])


def folded(lines: Sequence[str], language: str) -> str:
    """Lines in a fence, folded where they are many."""
    block = fence(lines, language)
    return details(f"{len(lines)} lines", block) if len(lines) > _LONG else block
