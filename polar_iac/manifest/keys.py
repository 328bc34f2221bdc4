"""Keys for meters that have none: made of their names, the same in every run."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

from polar_iac.meter.live import LiveMeter

_LONGEST = 63


def slug(text: str) -> str:
    """Return a text as a key, or an empty one. Example: `LLM tokens (Pro)` is `llm-tokens-pro`."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9_]+", "-", letters)
    return words.strip("-_")[:_LONGEST].strip("-_")


def keys_for(meters: Iterable[LiveMeter], taken: Collection[str]) -> Mapping[str, str]:
    """Return a key by the id of each meter. No two are equal, and none is taken.

    The oldest of several with one name has the plain key, the others have a number. So a meter's key does not
    depend on which meters are imported with it.
    """
    used = set(taken)
    keys = {}
    for meter in sorted(meters, key=lambda m: (m.created_at, m.id)):
        plain = key = slug(meter.name) or f"meter-{meter.id[:8]}"
        number = 1
        while key in used:
            number += 1
            suffix = f"-{number}"
            key = plain[: _LONGEST - len(suffix)] + suffix
        used.add(key)
        keys[meter.id] = key
    return keys
