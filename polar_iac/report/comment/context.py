"""Settings that all entries of a comment share: the plans' names, links, and numbered notes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from polar_iac.plan.model import Change, Note
from polar_iac.report.comment.escape import Links, clipped, code, linked, prose
from polar_iac.report.risks import GRADE_SIGNS
from polar_iac.report.wording import listed

Text = TypeVar("Text", str, tuple[str, ...])
BLOCKED_SIGN = GRADE_SIGNS["blocked"]
_SAY_THE_DAY = frozenset({"freeze", "unseen"})
"""Kinds of notes whose source and time are only in the JSON."""
BRIEF = 60
"""Longest note that is repeated instead of numbered, in characters."""


@dataclass(frozen=True)
class NumberedNote:
    """A note that several entries share, as Markdown: given once at the top, then cited by first words."""

    number: int
    text: str
    first_words: str


@dataclass(frozen=True)
class CommentContext:
    """Settings that all entries of one comment share."""

    labels: Sequence[str]
    """The plans' names, as Markdown."""
    links: Links | None
    whole: str
    """The place that has the uncut comment, in words."""
    notes: Mapping[str, NumberedNote]
    """The numbered notes, by their Markdown."""
    said_above: frozenset[str] = frozenset()
    """Reasons that the refusal at the top explains, and that are not said again of each key."""
    replacements: Sequence[Mapping[str, str]] = ()
    """For each plan, by the key of a frozen meter, the block of another meter in its place."""
    says_kept: bool = True
    """The headline of a change says what happens to earlier usage, since few changes concern it."""
    environments: Sequence[str] = ()
    """The plans' environments."""
    only_marks: bool = False
    """The plans write markers, and do nothing else."""

    def blocks_of(self, index: int) -> Mapping[str, str]:
        """Return the blocks of a plan's replaced meters, by key."""
        return self.replacements[index] if index < len(self.replacements) else {}

    def where(self, indices: Sequence[int]) -> str:
        """Return a prefix that names the plans a line is about, or an empty string for all plans."""
        if len(indices) == len(self.labels):
            return ""
        return f"{listed([self.labels[index] for index in indices])}: "

    def by_plan(self, lines: Iterable[tuple[int, str]]) -> list[str]:
        """Return each line of the plans once, after the names of the plans that it is about."""
        return [f"{self.where(indices)}{line}" for line, indices in plans_by_text(lines).items()]

    def cited(self, notes: Iterable[tuple[int, str]]) -> list[str]:
        """Return each note or reason of the plans once, with the plans that it is about after its sign.

        A numbered note is cut to its first words and its number.
        """
        return self.after_signs((index, self._cut(note)) for index, note in notes)

    def after_signs(self, lines: Iterable[tuple[int, str]]) -> list[str]:
        """Return each line of the plans once. The plans that it concerns follow its sign."""
        found = []
        for line, indices in plans_by_text(lines).items():
            sign, _, words = line.partition(" ")
            found.append(f"{sign} {self.where(indices)}{words}")
        return found

    def _cut(self, note: str) -> str:
        numbered = self.notes.get(note)
        return f"{numbered.first_words} (note {numbered.number})" if numbered else note

    def file(self, path: str, line: int | None = None) -> str:
        """Return a file name, linked if its address is known."""
        url = self.links.file(path, line) if self.links else None
        return linked(f"{clipped(path)}:{line}" if line else clipped(path), url)


def plans_by_text(texts: Iterable[tuple[int, Text]]) -> dict[Text, list[int]]:
    """Map each text, or several together, to the indices of the plans that have it."""
    plans: dict[Text, list[int]] = {}
    for index, text in texts:
        plans.setdefault(text, []).append(index)
    return plans


def note_sign(note: Note) -> str:
    """Return the emoji of a note's severity."""
    return "⚠️" if note.severity == "warning" else "ℹ️"


def note_markdown(note: Note) -> str:
    """Return a note: its sign, its text, and the source and time of a fact that may have changed since."""
    # The seconds of a time say nothing: `2026-11-24T12:00:00Z` is shown as `2026-11-24T12:00Z`.
    time = re.sub(r"(?<=T\d\d:\d\d):\d\d(\.\d+)?(?=Z)", "", note.as_of or "")
    # Some texts already give a day, and what to do.
    as_of = f" ({code(note.source)}, {code(time)})" if time and note.kind not in _SAY_THE_DAY else ""
    return f"{note_sign(note)} {prose(note.text)}{as_of}"


def reason_markdown(change: Change) -> str:
    """Return the reason that a change is blocked, after its sign."""
    return f"{BLOCKED_SIGN} {prose(change.reason or '')}"


def first_words(sign: str, text: str) -> str:
    """Return the sign and the first words of a note or reason, by which it is cited."""
    return f"{sign} {prose(clipped(re.split('[:;,.] ', text, maxsplit=1)[0]))}"
