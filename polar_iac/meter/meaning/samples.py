"""Candidates for values: texts, numbers and times within bounds that contain given parts.

A candidate is only a proposal; whoever asks checks it. Nothing here proves that no value exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations
from typing import Any

NUMBER_PART = re.compile(r"-?[0-9]*(\.[0-9]*)?(e([+-][0-9]*)?)?|\+[0-9]*|[+-]?[0-9]+")
"""Every part of the text of a number, and more."""
SECONDS_PART = re.compile(r"-?[0-9]*")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]{1,2})?")

WORDS = ("other", "text", "a", "b", "z", "Q", "0", "~", "é", "中")
"""Texts to take when nothing is asked of them, and those to try when parts must not be in them."""
SEPARATORS = ("", " ", "-", "_", "/", "~", "é", "中", "\x01")
DIGITS = "0123456789"
USUAL_SECONDS = 1_767_225_600
"""2026-01-01T00:00:00Z, for events whose time does not matter."""
LAST_CHARACTER = 0x10FFFF


def _needed(parts: Iterable[str]) -> list[str]:
    """Return the parts that are not inside another one, longest first."""
    ordered = sorted(parts, key=lambda part: (-len(part), part))
    return [p for i, p in enumerate(ordered) if not any(p in other for other in ordered[:i])]


def _bodies(parts: Sequence[str], separators: Sequence[str]) -> Iterator[str]:
    """Yield texts that contain all parts."""
    orders = permutations(parts) if len(parts) <= 3 else [tuple(parts), tuple(reversed(parts))]
    for order in orders:
        for separator in separators if len(parts) > 1 else ("",):
            yield separator.join(order)


def texts(low: str | None, high: str | None, parts: Iterable[str]) -> Iterator[str]:
    """Yield texts that contain all parts, many of them above `low` and below `high`."""
    needed = _needed(parts)
    bodies = list(_bodies(needed, SEPARATORS)) if needed else list(WORDS)
    yield from bodies
    if needed:
        for body in bodies[:9]:
            yield from (body + word for word in WORDS)
            yield from (f"{word}-{body}" for word in WORDS)
    else:
        yield ""
    for start in _starts(low, high):
        yield start
        for body in bodies[:9]:
            yield start + body
            yield from (start + separator + body for separator in ("-", "\x01"))


def _starts(low: str | None, high: str | None) -> Iterator[str]:
    """Yield beginnings of texts between two: what follows `low` at once, what comes before `high`."""
    if low is not None:
        yield from (low, low + "\x01", low + "a", low + "0")
        for index in reversed(range(len(low))):
            if (code := ord(low[index]) + 1) <= LAST_CHARACTER:
                yield low[:index] + chr(code)
    if high is not None:
        for index in range(len(high)):
            yield high[:index]
            if (code := ord(high[index]) - 1) > 0:
                yield high[:index] + chr(code)


def _between(low: int | float | None, high: int | float | None) -> Iterator[int | float]:
    """Yield numbers between two, whole ones first."""
    if low is None and high is None:
        yield from (1, 2, 3, 45, 678, 0, 9, -1)
    if low is not None:
        yield from (int(low // 1) + 1, int(low // 1) + 2, int(low // 1) + 10, int(low // 1) + 1000)
    if high is not None:
        yield from (int(-(-high // 1)) - 1, int(-(-high // 1)) - 2, int(-(-high // 1)) - 1000)
    if low is not None and high is not None:
        yield (low + high) // 2
    base = low if low is not None else high if high is not None else 0
    if abs(base) < 2**53:
        yield from (base + step for step in (0.5, -0.5, 0.25, 0.7, 0.125, -0.7, 0.3))
    for digit in DIGITS[1:]:
        yield from (int(digit * 3), int(digit * 7), int(digit * 11), -int(digit * 11))


def numbers(low: int | float | None, high: int | float | None, parts: Iterable[str]) -> Iterator[int | float]:
    """Yield numbers whose text contains all parts, many of them between `low` and `high`."""
    needed = _needed(parts)
    if not needed:
        yield from _between(low, high)
        return
    ends = [str(end) for end in (low, high) if end is not None]
    near = [str(int(end // 1) + step) for end in (low, high) if end is not None for step in (-1, 1)]
    heads = ("", "1", "9", "-", "-1", "0.", "0.0", "1.", "-0.", "2", "1e", "0", *(f"{n}." for n in near))
    tails = ("", "0", "5", ".5", "e-07", "0" * 6, "0" * 12, "7")
    for body in _bodies(needed, ("", "0", "1", ".", "5", "e")):
        for head in (*heads, *(f"{end}." for end in ends), *(f"{end}.0" for end in ends), *ends):
            for tail in tails:
                text = f"{head}{body}{tail}"
                if NUMBER.fullmatch(text):
                    yield float(text) if "." in text or "e" in text else int(text)


def seconds(low: int, high: int, parts: Iterable[str]) -> Iterator[int]:
    """Yield whole seconds whose digits contain all parts, many of them between `low` and `high`."""
    needed = _needed(parts)
    if not needed:
        yield from (USUAL_SECONDS, low + 1, high - 1, (low + high) // 2, low + 2, high - 2)
        for digit in DIGITS[1:]:
            for size in range(10, 0, -1):
                yield from (int(digit * size), -int(digit * size))
        return
    for body in _bodies(needed, ("", "0", "1", "5")):
        for head in ("", "1", "17", "176", "-", "-1", "2"):
            for size in range(11):
                for filler in ("0", "5"):
                    text = f"{head}{body}{filler * size}"
                    if re.fullmatch(r"-?[0-9]{1,12}", text):
                        yield int(text)


def lists(parts: Iterable[str]) -> Iterator[list[Any]]:
    """Yield lists whose text contains all parts."""
    needed = _needed(parts)
    yield []
    yield from ([text] for text in _bodies(needed, SEPARATORS))
    yield list(needed)
    yield [int(part) if part.isascii() and part.isdigit() else part for part in needed]
    yield [{part: True} for part in needed]
    yield [True, None, False]


def objects(inside: dict[str, Any], parts: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield objects that have these members, whose text contains all parts. They may get another member."""
    yield inside
    needed = _needed(parts)
    free = next(name for name in ("note", "other", "third", "~~") if name not in inside)
    for value in lists(needed):
        yield {**inside, free: value}
    for text in _bodies(needed, SEPARATORS):
        yield {**inside, free: text}
        yield {**inside, text: True}
