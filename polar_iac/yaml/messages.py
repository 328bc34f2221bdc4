"""YAML that cannot be read: bytes that are not text, and the parser's errors in plain words."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from polar_iac.yaml.scalars import clip

MAX_BYTES = 32 * 1024 * 1024


class UnreadableError(Exception):
    """Bytes that are not text. Holds the text before the fault, and what is wrong."""

    def __init__(self, before: str, message: str) -> None:
        super().__init__(message)
        self.before = before
        self.message = message


MARK = "\ufeff"
"""Byte order mark. Some editors write a second one before the first, and the parser does not count them."""
_NO_UTF8 = "the file is UTF-16 or UTF-32: save it as UTF-8"


def decode(data: bytes | str) -> str:
    """Decode UTF-8 and remove byte order marks. Raises UnreadableError."""
    if len(data) > MAX_BYTES:
        raise UnreadableError("", f"the file is larger than {MAX_BYTES // 1024**2} MiB")
    if isinstance(data, str):
        try:
            data.encode()
        except UnicodeEncodeError as error:
            what = "half of a character (a lone surrogate) stands here"
            raise UnreadableError(data[: error.start], what) from None
        return data.lstrip(MARK)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError("", _NO_UTF8)
    if (nul := data.find(b"\0")) >= 0:
        head = data[:1000]
        if max(head[::2].count(0), head[1::2].count(0)) * 3 > len(head):
            raise UnreadableError("", _NO_UTF8)
        before = data[:nul].decode(errors="replace")
        raise UnreadableError(before, "a NUL byte stands here: this is no text file")
    try:
        return data.decode().lstrip(MARK)
    except UnicodeDecodeError as error:
        what = f"the byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise UnreadableError(data[: error.start].decode(), what) from None


def unprintable(text: str) -> int | None:
    """Return the index of the first character that YAML does not allow.

    Compiled late, because that takes 10 ms.
    """
    found = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return found.start() if found else None


_MAX_KEY = 1_024
_HEX = re.compile("[0-9a-fA-F]+")
_PAIR = re.compile(r"([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_CONFLICT = re.compile(r"^(?:<{7}|={7}|>{7})(?= |$)", re.MULTILINE)
_QUOTE = "put the text in quotes"
_CANNOT_BEGIN = f"unquoted text cannot begin with {{}}: {_QUOTE}"
_TAB = "a tab indents this line: YAML wants spaces"
_REASONS: Mapping[str, str] = {
    "found a tab character": _TAB,
    "found unexpected ':'": f"a `:` in unquoted text between brackets: {_QUOTE}",
    "block sequence entries": "a list cannot begin here: begin it on a line of its own",
    "could not find expected ':'": "this is no `key: value`: a `:` is missing, or the indentation is wrong",
    "did not find expected key": "this does not fit what is above: check indentation, quotes and brackets",
    "did not find expected '-'": "this stands where a list goes on: begin it with `- `, or indent it",
    "found unknown escape": "no such escape in double quotes: write `\\\\`, or use single quotes",
    "did not find expected hexdecimal": "an escape with too few hexadecimal digits",
    "found unexpected document indicator": "a document ends here, inside quotes: close them before",
    "did not find expected <document start>": "nothing may follow here: the document is complete before this",
    "did not find expected comment": f"text after `|` or `>` goes on the next line; else {_QUOTE}",
    "found undefined tag handle": f"this tag is not known; if it is text, {_QUOTE}",
    "found incompatible YAML document": "this version of YAML is not known: remove the line",
    "found unknown directive name": f"a line that begins with % is a directive; if it is text, {_QUOTE}",
}


def explain(error: Any, text: str) -> tuple[int, str]:
    """Return the best position to show a parser's error at, and a readable message."""
    problem, context = error.problem or "", error.context or ""
    index = error.problem_mark.index if error.problem_mark else 0
    opened = error.context_mark.index if error.context_mark else index
    character = clip(text[index : index + 1])
    if conflict := _CONFLICT.search(text):
        return conflict.start(), "git left a merge conflict here: resolve it first"
    if problem == "found unexpected end of stream" and "quoted" in context:
        return opened, "this quote is never closed"
    if (key := _long_key(text, problem, index, opened)) is not None:
        return key, f"a key may have at most {_MAX_KEY:,} characters"
    if problem.startswith("did not find expected ',' or"):
        if not text[index:].strip():
            return opened, f"this bracket is never closed with `{problem[-2]}`"
        line = len(re.findall(r"\r\n|\r|\n", text[:opened])) + 1
        return index, f"a comma or `{problem[-2]}` is missing before this, after the bracket on line {line}"
    if problem == "did not find expected node content":
        before = text[:index].rstrip()
        if character == "?" or before.endswith("?"):
            return index if character == "?" else len(before) - 1, _CANNOT_BEGIN.format("?")
        return index, f"a value is missing before `{character}`" if character else "a value is missing"
    if problem == "found character that cannot start any token":
        return index, _TAB if text[index] == "\t" else _CANNOT_BEGIN.format(character)
    if problem == "mapping keys are not allowed in this context":
        return index, _CANNOT_BEGIN.format("?")
    if problem.startswith("did not find expected alphabetic"):
        return opened, _CANNOT_BEGIN.format(text[opened])
    if problem.startswith("found invalid Unicode"):
        return index, _no_character(text, index)
    if problem.startswith("mapping values"):
        if re.search(r":\s", text[text.rfind("\n", 0, index) + 1 : index]):
            return index, f"a second `: ` on one line: {_QUOTE}, or break the line"
        return index, "no `:` fits here: check the indentation, and that the line before is complete"
    if problem.startswith("could not find expected ':'"):
        index = opened
    return index, next(
        (reason for words, reason in _REASONS.items() if problem.startswith(words)),
        f"not valid YAML: {problem} {context}".rstrip(),
    )


def _long_key(text: str, problem: str, index: int, opened: int) -> int | None:
    """Return the start of a key that is too long for the parser, which then fails at the `:` after it."""
    if problem.startswith("could not find expected ':'"):
        end = text.find(":", opened)
        return opened if end - opened > _MAX_KEY and "\n" not in text[opened:end] else None
    if text[index : index + 1] != ":":
        return None
    start = text.rfind("\n", 0, index) + 1
    line = text[start:index].rstrip()
    if line.endswith(("'", '"')):
        begin = line.rfind(line[-1], 0, -1)
    else:  # Inside brackets, the key begins after the last entry.
        begin = max(map(line.rfind, ",{[")) + 1 if problem.startswith("did not find") else 0
    key = line[begin:].lstrip("- ")
    return start + len(line) - len(key) if len(key) > _MAX_KEY and ": " not in key else None


def _no_character(text: str, index: int) -> str:
    """Return what is wrong with the escape whose digits begin at `index`."""
    number = int(_HEX.match(text, index)[0], 16)  # type: ignore[index]
    if number > sys.maxunicode:
        return f"no such character (the last is U+{sys.maxunicode:X})"
    half = "an escape for half of a character (a surrogate)"
    pair = _PAIR.match(text, index)
    if pair is None:
        return f"{half}: write the character itself"
    whole = 0x10000 + ((int(pair[1], 16) - 0xD800) << 10) + int(pair[2], 16) - 0xDC00
    return f"{half}: YAML knows no surrogate pairs: write the character itself, or \\U{whole:08X}"
