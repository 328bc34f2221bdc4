"""The difference between two texts of a manifest, as a unified diff."""

from __future__ import annotations

import difflib
import re

_LINE_BREAK = re.compile("\r\n|\n|\r")


def edits_text(before: bytes, after: bytes, file: str) -> str:
    """Return what is edited in a file, line by line. Line breaks are not compared: no edit changes them."""
    old, new = (
        _LINE_BREAK.split(text.decode().lstrip("\ufeff").rstrip("\r\n")) if text else []
        for text in (before, after)
    )
    diff = difflib.unified_diff(old, new, file if before else "/dev/null", file, lineterm="")
    return "".join(f"{line}\n" for line in diff)
