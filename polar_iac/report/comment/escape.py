"""Escaping of values for GitHub Markdown, so that no value can act as markup.

A value from a manifest or from Polar is always code, in a span or in a fence. There GitHub sees no markup,
HTML, mention, reference, commit, link or emoji. Our own sentences may quote such a value anywhere, so they
are split: plain words stay as they are, and everything else goes into code spans.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterable
from typing import Protocol

from polar_iac.report.usage import Markup
from polar_iac.report.wording import value
from polar_iac.sanitize import printable

_CHUNK = re.compile(r'\[PI\d+ [a-z-]+\]|(?:`[^`]*`|"[^"]*"|\S)+')
"""A run of text without spaces. Quoted text is part of one run, including its spaces; so is a lint rule."""
_OUTSIDE = re.compile(r"(\(?)(.*?)([.,;:)?]*)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*|[0-9]{1,6}|[0-9]{1,3}(?:,[0-9]{3})+|[·→–…]")
_PLAIN_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*|[0-9]{1,6}")
_CLIP = 100
_COMMIT = re.compile(r"[0-9a-fA-F]{7,}")
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""Characters that count as printable but are invisible."""


def size(text: str) -> int:
    """Return the size of a text in UTF-8 bytes, an upper bound for any way of counting characters."""
    return len(text.encode("utf-8", "surrogatepass"))


def visible(text: str) -> str:
    """Escape `text` so that two different values look different.

    The result has no line breaks, no invisible characters, and no space other than the plain one.
    """
    text = printable(text)
    if text.isascii():
        return text
    return "".join(_escaped(c) if _UNSEEN.match(c) or _is_odd_space(c) else c for c in text)


def _is_odd_space(char: str) -> bool:
    return char != " " and unicodedata.category(char) == "Zs"


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if char <= "\uffff" else f"\\U{ord(char):08x}"


def code(text: str) -> str:
    """Return `text` as a code span."""
    text = visible(text) or '""'
    ticks = "`" * (_longest_run(text) + 1)
    # Markdown strips one space from each side of a span. The pad keeps a backtick in the value apart from
    # the delimiter, and keeps the value's own spaces. Example: "`a" becomes "`` `a ``".
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def fence(lines: Iterable[str], language: str = "") -> str:
    """Return a fenced block that none of its lines can end."""
    body = [visible(line) for line in lines]
    ticks = "`" * max(3, 1 + max(map(_longest_run, body), default=0))
    return "\n".join([ticks + language, *body, ticks])


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def prose(text: str) -> str:
    """Escape one of our own sentences, which may quote any value. The result must not begin a line."""
    return " ".join(map(_chunk, _CHUNK.findall(printable(text))))


def _chunk(chunk: str) -> str:
    parts = _OUTSIDE.fullmatch(chunk)
    if parts is None or not parts[2]:
        return code(chunk)
    before, core, after = parts.groups()
    # A word of hexadecimal letters may look like a commit to GitHub. Example: "defaced".
    if not _WORD.fullmatch(core) or _COMMIT.fullmatch(core):
        quoted = len(core) > 2 and core[0] == core[-1] == "`" and core.count("`") == 2
        core = code(core[1:-1] if quoted else core)
    return before + core + after


def strong(text: str) -> str:
    """Return `text` in bold: plain words as they are, anything else as a code span."""
    return f"**{text if _is_plain(text) else code(text)}**"


def quoted(text: str) -> str:
    """Return `text` in quotation marks: plain words as they are, anything else as a code span."""
    return f'"{text}"' if _is_plain(text) else code(value(text))


def _is_plain(text: str) -> bool:
    """Tell whether a text is words that mean nothing to Markdown or to GitHub. Example: `LLM tokens`."""
    words = text.split(" ")
    return all(_PLAIN_WORD.fullmatch(word) and not _COMMIT.fullmatch(word) for word in words)


MARKUP = Markup(code, strong, quoted, minus="−", own="**{}**".format)
"""Ways to quote a value in a sentence of the comment."""


def clipped(text: str, length: int = _CLIP) -> str:
    """Return `text`, cut after `length` characters."""
    return text if len(text) <= length else f"{text[:length]}…"


def short_code(text: str) -> str:
    """Return `text` as a code span, cut if it is long."""
    return code(clipped(text))


def details(summary: str, body: str) -> str:
    """Return a folded block. `summary` is not escaped, so it must be our own text."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


class Links(Protocol):
    """Addresses of the files of the repository and of the run that planned; None if unknown."""

    def file(self, path: str, line: int | None = None) -> str | None: ...
    @property
    def run(self) -> str | None: ...


def repository_path(path: str, directory: str = "") -> str | None:
    """Return `path` relative to the root of the repository, or None if it is outside."""
    if posixpath.isabs(path) or posixpath.isabs(directory):
        return None
    place = posixpath.normpath(posixpath.join(directory, path))
    return None if place in ("..", ".") or place.startswith("../") else place


def linked(text: str, url: str | None) -> str:
    """Return `text` as a code span, and as a link if it has an address."""
    return f"[{code(text)}]({url})" if url else code(text)
