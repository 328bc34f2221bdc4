"""Characters that people do not see, or take for others: found, named, and shown as escapes."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator

_TYPOGRAPHIC = frozenset(
    "‘’‚‛“”„‟′″‐‑‒–—―−…«»‹›⁄∕∗\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008"
    "\u2009\u200a\u202f\u205f\u3000"
)
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})
_INVISIBLE_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks that have no shape."""
_LIKE_LATIN = frozenset("аеорсухіјѕһԁԛԝѵАВЕКМНОРСТУХІЈЅԌԜѴοαινυρτκχγωΑΒΕΖΗΙΚΜΝΟΡΤΥΧ")
"""Letters of the Cyrillic and the Greek alphabet that look like Latin ones."""
_JOINERS = frozenset("\u200c\u200d\ufe0f")
"""Characters that join emoji and letters of some scripts, where they stand between such."""


def is_invisible(text: str, index: int) -> bool:
    """Tell whether the character at an index is not shown. A line break is white space, and counts apart."""
    char = text[index]
    if char in "\r\n\t" or (char.isascii() and char.isprintable()):
        return False
    if char in _JOINERS and index > 0 and not text[index - 1].isascii():
        return False
    return unicodedata.category(char) in _INVISIBLE or char in _INVISIBLE_LETTERS


def is_typographic(char: str) -> bool:
    """Tell whether a character is one that typesetting puts for a plain one. Example: `–` for `-`."""
    return char in _TYPOGRAPHIC or "\uff01" <= char <= "\uff5e"


def look_alikes(text: str) -> Iterator[str]:
    """Yield the letters that look like Latin ones, in words that have Latin letters or none but such."""
    for word in _words(text):
        alike = [char for char in word if char in _LIKE_LATIN]
        if alike and (any(char.isascii() for char in word) or (len(word) > 1 and len(alike) == len(word))):
            yield from alike


def _words(text: str) -> Iterator[str]:
    word = ""
    for char in f"{text} ":
        if char.isalpha():
            word += char
        elif word:
            yield word
            word = ""


def named(char: str) -> str:
    """Return a character's number and name. Example: `U+200B (ZERO WIDTH SPACE)`."""
    name = unicodedata.name(char, "") or {"\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\t": "TAB"}.get(
        char, ""
    )
    return f"U+{ord(char):04X}" + (f" ({name})" if name else "")


def shown(text: str, width: int = 60) -> str:
    """Return a text in quotes for a message: what is hard to see is an escape, and the end is cut off."""
    if text.isascii():
        whole = json.dumps(text)
    else:
        alike = set(look_alikes(text))
        whole = "".join(
            json.dumps(char)[1:-1]
            if is_invisible(text, index) or is_typographic(char) or char in alike
            else json.dumps(char, ensure_ascii=False)[1:-1]
            for index, char in enumerate(text)
        )
        whole = f'"{whole}"'
    return whole if len(whole) <= width else f'{whole[: width - 2]}…"'
