"""Notes and reasons of a comment, as Markdown; those that repeat are given once and numbered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polar_iac.plan.model import Change, Note, Plan
from polar_iac.report.comment.escape import Links, code, linked, prose

CLIP = 100
BRIEF = 60
"""Longest remark that is repeated instead of numbered as a note, in characters."""


def listed(words: Sequence[str]) -> str:
    """Join words as in `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def labels(plans: Sequence[Plan]) -> list[str]:
    """Name each plan by its environment, adding the project and a number if needed to tell plans apart."""
    told = [plan.environment for plan in plans]
    if len(set(told)) < len(told):
        told = [f"{plan.environment} {plan.project}" for plan in plans]
    if len(set(told)) < len(told):
        told = [f"{label} {number}" for number, label in enumerate(told, 1)]
    return told


def clipped(text: str) -> str:
    return text if len(text) <= CLIP else text[:CLIP] + "…"


@dataclass(frozen=True)
class NumberedNote:
    """A remark that several entries share, as Markdown: given once at the top, then cited by first words."""

    number: int
    text: str
    brief: str


@dataclass(frozen=True)
class CommentContext:
    """Settings that all entries of one comment share."""

    labels: Sequence[str]
    """The plans' names, as Markdown."""
    links: Links | None
    whole: str
    """The place that has the uncut comment, in words."""
    notes: Mapping[str, NumberedNote]

    def where(self, indices: Sequence[int]) -> str:
        """Return a prefix that names the plans a line is about, or an empty string for all plans."""
        if len(indices) == len(self.labels):
            return ""
        return f"{listed([self.labels[index] for index in indices])}: "

    def file(self, path: str, line: int | None = None) -> str:
        """Return a file name, linked if its address is known."""
        url = self.links.file(path, line) if self.links else None
        return linked(f"{clipped(path)}:{line}" if line else clipped(path), url)


def brief_of(sign: str, text: str) -> str:
    """Return the first words of a remark, as Markdown."""
    first = re.split("[:;,.] ", text, maxsplit=1)[0]
    return f"{sign} {prose(first if len(first) <= CLIP else first[:CLIP] + '…')}"


def reason_of(change: Change) -> str:
    return f"🛑 {prose(change.reason or '')}"


def note_of(fact: Note) -> str:
    as_of = f" ({code(fact.source)}, {code(fact.as_of)})" if fact.as_of else ""
    return f"{sign_of(fact)} {prose(fact.text)}{as_of}"


def sign_of(fact: Note) -> str:
    return "⚠️" if fact.severity == "warning" else "ℹ️"


def placed(remark: str, context: CommentContext, indices: Sequence[int]) -> str:
    """Insert the plans after the sign of a remark. A remark that is a note is cut to its first words."""
    if note := context.notes.get(remark):
        remark = f"{note.brief} (note {note.number})"
    sign, _, text = remark.partition(" ")
    return f"{sign} {context.where(indices)}{text}"
