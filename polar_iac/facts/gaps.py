"""Gaps while facts are read: each is noted once, with all meters that it concerns."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from polar_iac.facts.model import Gap, Lack, Source

Fact = TypeVar("Fact")


class Gaps:
    """Facts that could not be read so far."""

    def __init__(self) -> None:
        self._gaps: list[Gap] = []

    def add(self, *gaps: Gap) -> None:
        """Note gaps."""
        self._gaps += gaps

    def fact_or_none(self, read: Fact | Gap, *keys: str) -> Fact | None:
        """Return a fact, or note the gap in its place and return None. `keys` are the meters concerned."""
        if not isinstance(read, Gap):
            return read
        self.add(replace(read, keys=keys) if keys else read)
        return None

    def joined(self) -> tuple[Gap, ...]:
        """Return the gaps. Those with one reason are one gap, with all of their keys."""
        keys: dict[tuple[Source, Lack, str], list[str]] = {}
        for gap in self._gaps:
            keys.setdefault((gap.source, gap.lack, gap.text), []).extend(gap.keys)
        return tuple(Gap(source, lack, text, tuple(found)) for (source, lack, text), found in keys.items())
