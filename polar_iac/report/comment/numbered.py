"""Notes and reasons that several keys of a comment share: given once, and cited by their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from polar_iac.report.comment.context import (
    BLOCKED_SIGN,
    BRIEF,
    NumberedNote,
    first_words,
    note_markdown,
    note_sign,
    reason_markdown,
)
from polar_iac.report.comment.key_changes import KeyChanges
from polar_iac.report.headlines import says_reason

_MOST_NUMBERED = 9
_LONGEST_NUMBERED = 1_000
_OF_ONE_METER = frozenset({"attached", "example", "impact", "unseen"})
"""Kinds of notes that are about the events or the prices of one meter."""


def numbered_notes(entries: Sequence[KeyChanges]) -> dict[str, NumberedNote]:
    """Number the notes and reasons that more than two entries share, most frequent first."""
    citations: dict[str, str] = {}
    counts = Counter[str]()
    for entry in entries:
        # Equal ones are a coincidence, and the first words of an example say nothing.
        noted = [note for change in entry.present for note in change.notes if note.kind not in _OF_ONE_METER]
        notes = {note_markdown(note): first_words(note_sign(note), note.text) for note in noted}
        reasons = {
            reason_markdown(change): first_words(BLOCKED_SIGN, change.reason or "")
            for change in entry.present
            if change.action == "blocked" and not says_reason(change)
        }
        citations |= reasons | notes
        counts.update((reasons | notes).keys())
    frequent = sorted(
        (-count, text)
        for text, count in counts.items()
        if count > 2 and BRIEF < len(text) < _LONGEST_NUMBERED
    )
    return {
        text: NumberedNote(number, text, citations[text])
        for number, (_, text) in enumerate(frequent[:_MOST_NUMBERED], 1)
    }
