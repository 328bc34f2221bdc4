"""Text-level YAML: the bytes of a file, unquoted scalars, and readable parser errors."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MAX_BYTES = 32 * 1024 * 1024
MAX_DIGITS = 3_000
"""Maximum digits of a number. In hexadecimal too, this stays below the 4,300 decimal digits that Python
converts."""

Value = str | int | float | bool | None


class UnreadableError(Exception):
    """Bytes that are not text. Holds the text before the fault, and what is wrong."""

    def __init__(self, before: str, message: str) -> None:
        super().__init__(message)
        self.before = before
        self.message = message


class Doubtful(str):
    """An unquoted text that is too ambiguous to interpret. `advice` says why, and what to write instead."""

    advice: str

    def __new__(cls, text: str, advice: str) -> Doubtful:
        self = super().__new__(cls, text)
        self.advice = advice
        return self


class Grouped(Doubtful):
    """A grouped number such as `1,000`.

    YAML reads it as text, so it is accepted where only text is allowed.
    """


# --- Unquoted scalars ---

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
SUSPECT = frozenset(["", *"~nNtTfF+-.0123456789"])
"""First characters of plain scalars that may be something other than text."""
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_ODD_NUMBER = re.compile(
    r"[-+]?(?:0b(?=_*[01])[01_]+|0o(?=_*[0-7])[0-7_]+|0x(?=_*[0-9a-fA-F])[0-9a-fA-F_]+"
    r"|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?)"
)
"""Number formats of YAML 1.1 that YAML 1.2 does not have."""
_BASES = {"0b": 2, "0o": 8, "0x": 16}
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(?:(?:,[0-9]{3})+(?:\.[0-9]+)?|(?P<points>(?:\.[0-9]{3})+,[0-9]+))")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t][0-9: \t.TtZz+-]*)?")


def resolve(text: str) -> Value:
    """Return the value of an unquoted text by the core schema of YAML 1.2 (`yes` and `on` are texts)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            return _too_long(text)
        digits = text.lstrip("+-")
        if digits[0] == "0" and len(digits) > 1:
            number = int(text)
            return Doubtful(
                text,
                f"{clip(text)} begins with a zero: write {clip(str(number))} for the number,"
                f" or put it in quotes for the text",
            )
        return int(text)
    if _BASED.fullmatch(text):
        return _too_long(text) if len(text) > MAX_DIGITS else int(text, 0)
    if _FLOAT.fullmatch(text):
        return _too_long(text) if len(text) > MAX_DIGITS else float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if _DATE.fullmatch(text):
        return Doubtful(text, f'{clip(text)} without quotes is a date: put it in quotes, "{clip(text)}"')
    if _ODD_NUMBER.fullmatch(text):
        if len(text) > MAX_DIGITS:
            return _too_long(text)
        return Doubtful(text, _either(text, str(_odd_number(text.replace("_", "").lower()))))
    if len(text) <= MAX_DIGITS and (grouped := _GROUPED.fullmatch(text)):
        digits = text.replace(".", "").replace(",", ".") if grouped["points"] else text.replace(",", "")
        return Grouped(text, _either(text, digits))
    return text


def _odd_number(digits: str) -> int | float:
    base = _BASES.get(digits.lstrip("+-")[:2], 10)
    return float(digits) if base == 10 and {".", "e"} & set(digits) else int(digits, base)


def _either(text: str, number: str) -> str:
    number = clip(number)
    return f"{clip(text)} may be the number {number} or a text: write {number}, or put it in quotes"


def _too_long(text: str) -> Doubtful:
    return Doubtful(text, f"a number of {len(text):,} characters is too long (at most {MAX_DIGITS:,})")


def clip(text: str, width: int = 40) -> str:
    """Shorten a user's text for a message, and remove anything that a terminal would act on."""
    short = text if len(text) <= width else f"{text[: width - 1]}…"
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


@lru_cache(maxsize=1_000)
def nearest(word: str, known: tuple[str, ...], likeness: float = 0.6) -> str | None:
    """Return the known word that was probably meant.

    Cached: aliases ask the same question thousands of times.
    """
    from difflib import get_close_matches  # imported late, since it is only needed for errors

    return next(iter(get_close_matches(word[:100].lower(), known, 1, likeness)), None)


# --- Bytes that are not text ---

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


# --- Text that is not YAML ---

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
