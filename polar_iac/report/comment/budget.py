"""Room in a comment: a budget of bytes, fair shares of it, and blocks that can be cut at the end."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from polar_iac.report.comment.escape import details, fence, prose, size
from polar_iac.report.wording import quantity

NO_LIMIT = sys.maxsize
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


@dataclass
class Budget:
    """Bytes that texts may still take. A text costs its size, and the separator between it and the next."""

    available: int
    separator: str = "\n\n"

    @classmethod
    def joined(cls, limit: int, separator: str = "\n\n") -> Budget:
        """Return a budget for texts that are joined to at most `limit` bytes: the last has no separator."""
        return cls(limit + size(separator), separator)

    @property
    def room(self) -> int:
        """Size of the longest text that still fits."""
        return self.available - size(self.separator)

    def cost(self, *texts: str) -> int:
        return sum(size(text) + size(self.separator) for text in texts)

    def reserve(self, *texts: str) -> None:
        """Pay for texts that are there in any case. What is available may fall below zero."""
        self.available -= self.cost(*texts)

    def take(self, text: str) -> bool:
        """Pay for a text if it fits. Return False, and pay nothing, if it does not."""
        if size(text) > self.room:
            return False
        self.reserve(text)
        return True

    def share(self, costs: Sequence[int]) -> int:
        """Return the most that each of several may cost, so that all of them fit."""
        return fair_cap(costs, self.available)

    def part(self, available: int) -> Budget:
        """Return a budget of its own for some of the texts, which are separated in the same way."""
        return Budget(available, self.separator)


@dataclass(frozen=True)
class TruncatableBlock:
    """Lines that can be cut at the end to fit. `head` and `tail` are never cut."""

    lines: Sequence[str]
    head: Sequence[str] = ()
    tail: Sequence[str] = ()
    language: str | None = None
    """Language of the fence around the lines. None for a list, or for a table if there is a head."""

    def shortest(self, whole: str) -> str:
        """Return the block in the least room that it can take."""
        # The line that says how many are left out may be longer than the lines themselves.
        return min(self._cut(0, whole), self._cut(len(self.lines), whole), key=size)

    def markdown(self, room: int, whole: str) -> str:
        """Return as many lines as fit, and how many are left out. If none fits, return only that count."""
        count = len(self.lines)
        if size(text := self._cut(count, whole)) <= room:
            return text
        return self._cut(
            max(0, bisect_left(range(count), True, key=lambda n: size(self._cut(n, whole)) > room) - 1), whole
        )

    def _cut(self, count: int, whole: str) -> str:
        """Return the first `count` lines, and a line that says how many more `whole` has."""
        lines, rest = self.lines[:count], len(self.lines) - count
        more = f"… {quantity(rest, 'more line')}, in {whole}"
        if self.language is not None:
            cut = [f"  # {more}" if self.language == "yaml" else f"  {more}"] if rest else []
            return folded([*lines, *cut], self.language)
        if self.head:
            return "\n".join([*self.head, *lines, *(["", prose(more)] if rest else [])])
        return "\n".join([*lines, *([f"- {prose(more)}"] if rest else []), *self.tail])


@dataclass(frozen=True)
class WholeBlock:
    """Text that is shown whole where it fits. Elsewhere `instead`, which is shorter, says where it is."""

    text: str
    instead: str

    def shortest(self, whole: str) -> str:  # noqa: ARG002  another block names the place
        return self.instead

    def markdown(self, room: int, whole: str) -> str:  # noqa: ARG002
        return self.text if size(self.text) <= room else self.instead


def folded(lines: Sequence[str], language: str) -> str:
    """Put lines in a fence, folded if there are more than `_LONG`."""
    block = fence(lines, language)
    return details(f"{len(lines)} lines", block) if len(lines) > _LONG else block
