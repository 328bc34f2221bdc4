"""The way out of a frozen meter: another meter under another key, and what moves to it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace

from polar_iac.manifest.write import block
from polar_iac.meter.fields import FROZEN_FIELDS
from polar_iac.plan.model import Change
from polar_iac.report.wording import Quote

_LONGEST_KEY = 63
_MOST = 3
"""Most blocks that a report shows. By then it is clear how a meter is replaced."""
NEW_RULE = "To bill by the new rule"
ANOTHER_METER = f"{NEW_RULE}, undo this change, and add another meter"
"""The way out in one line, where the lines to paste are elsewhere."""
WHAT_MOVES = "What moves when a frozen meter is replaced, and what does not"
CHECKLIST = (
    "New prices reach new subscriptions only.",
    "Existing subscriptions stay on the old meter until each is switched, best at period end: usage pending "
    "on the old price may not be billed after an immediate switch.",
    "Credits do not move.",
    "A balance on the new meter may include earlier usage.",
    "Keep the old meter in the manifest, unchanged, until no price or subscription uses it. Then archive it.",
)
"""Points to consider when a meter is replaced (read in Polar's source)."""


def frozen_words(change: Change) -> str:
    """Name the fields of a frozen meter that Polar refuses to change, as in `filter and aggregation`."""
    changed = {field.path for field in change.fields}
    return " and ".join(path for path in FROZEN_FIELDS if path in changed) or "filter"


def steps(change: Change, quote: Quote) -> tuple[str, str]:
    """Return the two steps to a replacement meter. The second one ends with the block to paste."""
    return f"Under {quote(change.key)}, undo this change of the {frozen_words(change)}.", "Add this meter:"


def _has_way_out(change: Change) -> bool:
    """Tell whether a change is blocked because its meter is frozen, and the desired meter is known."""
    return change.cause == "frozen" and bool(change.fields) and change.after is not None


def replacements(changes: Iterable[Change], taken: Collection[str]) -> dict[str, str]:
    """Return the manifest block of a new meter for each key with a way out, to be pasted under `meters:`.

    It counts what was wanted of the frozen one. No two new keys are equal, and none is `taken`. Of more than
    three keys, the first ones have one.
    """
    used = set(taken)
    blocks = dict[str, str]()
    for change in changes:
        if _has_way_out(change) and change.after and len(blocks) < _MOST:
            key = _new_key(change.key, used)
            used.add(key)
            blocks[change.key] = block(key, replace(change.after, archived=False))
    return blocks


def _new_key(key: str, used: Collection[str]) -> str:
    """Return the next key with a number. Examples: `seats` leads to `seats-2`, and `seats-2` to `seats-3`."""
    match = re.fullmatch(r"(.+)-([2-9]|[1-9]\d{1,3})", key)
    plain, number = (match[1], int(match[2])) if match else (key, 1)
    while True:
        number += 1
        suffix = f"-{number}"
        candidate = plain[: _LONGEST_KEY - len(suffix)] + suffix
        if candidate not in used:
            return candidate
