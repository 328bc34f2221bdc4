"""Markdown that has to fit a size limit: fair shares of the room, and lists that can be cut at the end."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from polar_iac.report.comment.escape import details, fence, prose, size

_LONG = 30
"""Most lines of a fenced block that is not folded."""


def fair_cap(needs: Sequence[int], room: int) -> int:
    """Return the max-min fair share: the largest useful cap with sum(min(need, cap)) <= room."""
    # Example: fair_cap([2, 10, 10], 12) is 5, because the smallest needs only 2 of its 4.
    waiting = sorted(needs)
    for index, need in enumerate(waiting):
        fair = max(0, room) // (len(waiting) - index)
        if need > fair:
            return fair
        room -= need
    return max(waiting, default=0)


@dataclass(frozen=True)
class TruncatableBlock:
    """TruncatableBlock that can be cut at the end to fit. `head` and `tail` are never cut."""

    lines: Sequence[str]
    head: Sequence[str] = ()
    tail: Sequence[str] = ()
    language: str | None = None
    """Language of the fence around the lines. None for a list, or for a table if there is a head."""

    def least(self, whole: str) -> int:
        """Return the least room that this needs, in bytes."""
        # The line that says how many are left out may be longer than the lines themselves.
        return min(size(self._cut(0, whole)), size(self._cut(len(self.lines), whole)))

    def markdown(self, room: int, whole: str) -> str:
        """Return as many lines as fit, and how many are left out. If none fits, return only that count."""
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
    """Put lines in a fence, folded if there are more than `_LONG`."""
    block = fence(lines, language)
    return details(f"{len(lines)} lines", block) if len(lines) > _LONG else block
