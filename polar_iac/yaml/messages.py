"""YAML that cannot be read: bytes that are not text, and the parser's errors in plain words."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


def decode(data: bytes) -> str:
    """Decode UTF-8 and remove byte order marks. Raises UnreadableError."""
    if len(data) > MAX_BYTES:
        raise UnreadableError("", f"the file is larger than {MAX_BYTES // 1024**2} MiB")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError("", _NO_UTF8)
    if (nul := data.find(b"\0")) >= 0:
        head = data[:1000]
        if max(head[::2].count(0), head[1::2].count(0)) * 3 > len(head):
            raise UnreadableError("", _NO_UTF8)
        before = data[:nul].decode(errors="replace")
        raise UnreadableError(before, "a NUL byte: this is not a text file")
    try:
        return data.decode().lstrip(MARK)
    except UnicodeDecodeError as error:
        message = f"the byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise UnreadableError(data[: error.start].decode(), message) from None


def unprintable(text: str) -> int | None:
    """Return the index of the first character that YAML does not allow.

    Compiled late, because that takes 10 ms.
    """
    match = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return match.start() if match else None


_ODD_SPACE = "\u00a0\u1680\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff"
_ODD_INDENT = re.compile(rf"^ *(?P<odd>[{_ODD_SPACE}])", re.MULTILINE)
_ODD_AFTER_COLON = re.compile(rf":(?P<odd>[{_ODD_SPACE}])")


def odd_indents(text: str) -> Iterator[int]:
    """Find lines that characters indent which look like spaces. YAML takes these for text."""
    return iter(()) if text.isascii() else (match.start("odd") for match in _ODD_INDENT.finditer(text))


def odd_indent(character: str) -> str:
    """Return what is wrong with a line that this character indents."""
    return f"{_named(character)} indents this line: YAML wants spaces"


def _named(character: str) -> str:
    return f"the character U+{ord(character):04X} ({unicodedata.name(character).lower()})"


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
    "could not find expected ':'": "not a `key: value`: a `:` is missing, or the indentation is wrong",
    "did not find expected key": "this does not fit what is above: check indentation, quotes and brackets",
    "did not find expected '-'": "expected the next item of a list: begin it with `- `, or indent it",
    "found unknown escape": "no such escape in double quotes: write `\\\\`, or use single quotes",
    "did not find expected hexdecimal": "an escape with too few hexadecimal digits",
    "found unexpected document indicator": "a document ends here, inside quotes: close them before",
    "did not find expected <document start>": "nothing may follow here: the document is complete before this",
    "did not find expected comment": f"text after `|` or `>` goes on the next line; else {_QUOTE}",
    "found undefined tag handle": f"unknown tag; if it is text, {_QUOTE}",
    "found incompatible YAML document": "unknown version of YAML: remove the line",
    "found unknown directive name": f"a line that begins with % is a directive; if it is text, {_QUOTE}",
}


@dataclass(frozen=True)
class _ParserError:
    """An error of the parser. `index` is where it noticed it; `opened` is where the construct began."""

    problem: str
    context: str
    index: int
    opened: int
    text: str

    @property
    def character(self) -> str:
        return clip(self.text[self.index : self.index + 1])


_Explanation = tuple[int, str]
"""The best position to show an error at, and what is wrong."""


def explain(error: Any, text: str) -> _Explanation:
    """Return the best position to show a parser's error at, and a readable message."""
    index = error.problem_mark.index if error.problem_mark else 0
    opened = error.context_mark.index if error.context_mark else index
    failure = _ParserError(error.problem or "", error.context or "", index, opened, text)
    for rule in _RULES:
        if explanation := rule(failure):
            return explanation
    problem = failure.problem
    if problem.startswith("could not find expected ':'"):
        index = opened
    return index, next(
        (reason for words, reason in _REASONS.items() if problem.startswith(words)),
        f"not valid YAML: {problem} {failure.context}".rstrip(),
    )


def _conflict(failure: _ParserError) -> _Explanation | None:
    conflict = _CONFLICT.search(failure.text)
    return (conflict.start(), "git left a merge conflict here: resolve it first") if conflict else None


def _odd_space(failure: _ParserError) -> _Explanation | None:
    """Explain an error by what only looks like a space, in its lines or the one before.

    The line before counts because its text goes on in the next one, which then fails.
    """
    text = failure.text
    if text.isascii():
        return None
    before = text[: text.rfind("\n", 0, failure.opened) + 1].rstrip()
    first = before.rfind("\n") + 1
    last = text.find("\n", failure.index)
    part = text[first : last if last >= 0 else len(text)]
    if indents := [first + index for index in odd_indents(part)]:
        return indents[-1], odd_indent(text[indents[-1]])
    if odd := _ODD_AFTER_COLON.search(part):
        return first + odd.start("odd"), f"{_named(odd['odd'])} follows the colon: YAML wants a space"
    return None


def _open_quote(failure: _ParserError) -> _Explanation | None:
    unclosed = failure.problem == "found unexpected end of stream" and "quoted" in failure.context
    return (failure.opened, "this quote is never closed") if unclosed else None


def _bracket(failure: _ParserError) -> _Explanation | None:
    # Example: "did not find expected ',' or '}'"
    if not failure.problem.startswith("did not find expected ',' or"):
        return None
    closing, text = failure.problem[-2], failure.text
    if not text[failure.index :].strip():
        return failure.opened, f"this bracket is never closed with `{closing}`"
    line = len(re.findall(r"\r\n|\r|\n", text[: failure.opened])) + 1
    message = f"a comma or `{closing}` is missing before this, after the bracket on line {line}"
    return failure.index, message


def _missing_value(failure: _ParserError) -> _Explanation | None:
    if failure.problem != "did not find expected node content":
        return None
    index, character = failure.index, failure.character
    before = failure.text[:index].rstrip()
    # Example: `[?]`, where the parser takes `?` for the beginning of a key.
    if character == "?" or before.endswith("?"):
        return index if character == "?" else len(before) - 1, _CANNOT_BEGIN.format("?")
    return index, f"a value is missing before `{character}`" if character else "a value is missing"


def _bad_character(failure: _ParserError) -> _Explanation | None:
    problem, index = failure.problem, failure.index
    if problem == "found character that cannot start any token":
        tab = failure.text[index] == "\t"
        return index, _TAB if tab else _CANNOT_BEGIN.format(failure.character)
    if problem == "mapping keys are not allowed in this context":
        return index, _CANNOT_BEGIN.format("?")
    if problem.startswith("did not find expected alphabetic"):  # of an anchor: `&` or `*` and no name
        return failure.opened, _CANNOT_BEGIN.format(failure.text[failure.opened])
    if problem.startswith("found invalid Unicode"):
        return index, _no_character(failure.text, index)
    return None


def _second_colon(failure: _ParserError) -> _Explanation | None:
    if not failure.problem.startswith("mapping values"):
        return None
    text, index = failure.text, failure.index
    if re.search(r":\s", text[text.rfind("\n", 0, index) + 1 : index]):
        return index, f"a second `: ` on one line: {_QUOTE}, or break the line"
    return index, "no `:` fits here: check the indentation, and that the line before is complete"


def _long_key(failure: _ParserError) -> _Explanation | None:
    start = _long_key_start(failure.text, failure.problem, failure.index, failure.opened)
    return None if start is None else (start, f"a key may have at most {_MAX_KEY:,} characters")


_RULES = (
    *(_conflict, _open_quote, _odd_space, _long_key, _bracket),
    *(_missing_value, _bad_character, _second_colon),
)


def _long_key_start(text: str, problem: str, index: int, opened: int) -> int | None:
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
