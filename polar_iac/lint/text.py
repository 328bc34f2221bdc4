"""Rules about characters: white space, and what people do not see or take for something else."""

from __future__ import annotations

from collections.abc import Iterator

from polar_iac.lint.characters import is_invisible, is_typographic, look_alikes, named, shown
from polar_iac.lint.rule import Finding, Path
from polar_iac.lint.subject import AGGREGATED, Checks, Subject

Text = tuple[str, Path, str]
"""A text, its path, and what it is."""


def _matched(subject: Subject) -> Iterator[Text]:
    """Yield the texts that Polar compares with those of events."""
    for place in subject.places:
        yield place.clause.property, (*place.path, "property"), "the property"
        if isinstance(place.clause.value, str):
            yield place.clause.value, (*place.path, "value"), "the value"
    if subject.spec.aggregation.property is not None:
        yield subject.spec.aggregation.property, AGGREGATED, "the property"


def _all(subject: Subject) -> Iterator[Text]:
    """Yield the texts of a meter, those too that people read."""
    yield subject.spec.name, ("name",), "the name"
    if subject.spec.custom_label is not None:
        yield subject.spec.custom_label, ("custom_label",), "the label"
    yield from _matched(subject)


def white_space(subject: Subject) -> Iterator[Finding]:
    """Find white space at the ends, and line breaks anywhere. `like " "` alone is meant."""
    for text, path, what in _all(subject):
        if text == text.strip() and text.isprintable():
            continue
        if text != text.strip():
            char = text[0] if text[0].isspace() else text[-1]
            end = "begins" if text[0].isspace() else "ends"
            yield Finding(
                "white-space", path, f"{what} {shown(text)} {end} with white space, {named(char)}: remove it"
            )
        elif breaks := [char for char in text if char in "\r\n\t\v\f\x85\u2028\u2029"]:
            yield Finding("white-space", path, f"{what} {shown(text)} holds {named(breaks[0])}: remove it")


def invisible(subject: Subject) -> Iterator[Finding]:
    """Find characters that are not shown."""
    for text, path, what in _all(subject):
        if not text.isascii() or not text.isprintable():
            found = dict.fromkeys(
                text[i] for i in range(len(text)) if is_invisible(text, i) and not text[i].isspace()
            )
            if found:
                yield Finding("invisible-character", path, _holds(what, text, found, "remove it"))


def typographic(subject: Subject) -> Iterator[Finding]:
    """Find typographic signs in what is compared. A name that people read may have them."""
    for text, path, what in _matched(subject):
        if not text.isascii() and (found := dict.fromkeys(filter(is_typographic, text.strip()))):
            yield Finding("typographic-character", path, _holds(what, text, found, "write the plain sign"))


def look_alike(subject: Subject) -> Iterator[Finding]:
    """Find letters that look like Latin ones."""
    for text, path, what in _all(subject):
        if not text.isascii() and (found := dict.fromkeys(look_alikes(text))):
            yield Finding("look-alike-character", path, _holds(what, text, found, "write the Latin letter"))


def _holds(what: str, text: str, found: dict[str, None], advice: str) -> str:
    first = [named(char) for char in list(found)[:3]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{what} {shown(text)} holds {', '.join(first)}{more}: {advice}"


CHECKS: Checks = {
    "white-space": white_space,
    "invisible-character": invisible,
    "typographic-character": typographic,
    "look-alike-character": look_alike,
}
