"""YAML scalars: what unquoted text means, and what is doubtful about it."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache

MAX_DIGITS = 3_000
"""Maximum digits of a number. In hexadecimal too, this stays below the 4,300 decimal digits that Python
converts."""
Value = str | int | float | bool | None


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


_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_OLD_WORDS = {
    **dict.fromkeys(("yes", "Yes", "YES", "on", "On", "ON"), "true"),
    **dict.fromkeys(("no", "No", "NO", "off", "Off", "OFF"), "false"),
}
"""Words that YAML 1.1 reads as true or false, and YAML 1.2 as texts."""
SUSPECT = frozenset(["", *"~nNtTfFyYoO+-.0123456789"])
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
    """Return the value of an unquoted text by the core schema of YAML 1.2.

    What YAML 1.1 reads otherwise is doubtful.
    """
    if text in _WORDS:
        return _WORDS[text]
    if not text[0].isalpha():
        return _number(text)
    return Doubtful(text, _either(text, _OLD_WORDS[text])) if text in _OLD_WORDS else text


def _number(text: str) -> Value:
    """Return the value of an unquoted text that may be a number or a date."""
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
        plain = clip(str(_odd_number(text.replace("_", "").lower())))
        return Doubtful(text, _either(text, plain, "the number "))
    if len(text) <= MAX_DIGITS and (grouped := _GROUPED.fullmatch(text)):
        digits = text.replace(".", "").replace(",", ".") if grouped["points"] else text.replace(",", "")
        return Grouped(text, _either(text, clip(digits), "the number "))
    return text


def _odd_number(digits: str) -> int | float:
    base = _BASES.get(digits.lstrip("+-")[:2], 10)
    return float(digits) if base == 10 and {".", "e"} & set(digits) else int(digits, base)


def _either(text: str, other: str, kind: str = "") -> str:
    return f"{clip(text)} may be {kind}{other} or a text: write {other}, or put it in quotes"


def word_of_yaml_1_1(text: str) -> str | None:
    """Return `true` or `false` where YAML 1.1 reads a word as that, else None."""
    return _OLD_WORDS.get(text)


def is_only_text(text: str) -> bool:
    """Tell whether an unquoted text is nothing but text, for every version of YAML."""
    return type(resolve(text)) is str


def _too_long(text: str) -> Doubtful:
    return Doubtful(text, f"a number of {len(text):,} characters is too long (at most {MAX_DIGITS:,})")


def clip(text: str, width: int = 40) -> str:
    """Shorten a user's text for a message, and remove anything that a terminal would act on."""
    short = text if len(text) <= width else f"{text[: width - 1]}…"
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


@lru_cache(maxsize=1_000)
def nearest(word: str, choices: tuple[str, ...], likeness: float = 0.6) -> str | None:
    """Return the choice that was probably meant.

    Cached: aliases ask the same question thousands of times.
    """
    return next(iter(get_close_matches(word[:100].lower(), choices, 1, likeness)), None)
