"""Untrusted text made safe to print."""

from __future__ import annotations

import re
import unicodedata

_ZERO_WIDTH_JOINER = "\u200d"  # joins emoji, cannot move a cursor
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_STYLE = re.compile("(\x1b\\[[0-9;]*m)")


def printable(text: str) -> str:
    """Escape everything in `text` that could control a terminal.

    That is: move the cursor, change colors, reverse the writing direction, or start a new line.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) if _unsafe(char) else char for char in text)


def printable_lines(text: str) -> str:
    """Escape each line of `text` and keep the line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def printable_styled(text: str) -> str:
    """Escape text of our own renderers, but keep its line breaks and the color codes of `click.style`."""
    return "".join(p if _STYLE.fullmatch(p) else printable_lines(p) for p in _STYLE.split(text))


def _unsafe(char: str) -> bool:
    return char != _ZERO_WIDTH_JOINER and unicodedata.category(char) in _UNSAFE


def _escaped(char: str) -> str:
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    code = ord(char)
    return short.get(char) or (f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
