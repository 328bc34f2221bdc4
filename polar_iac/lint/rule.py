"""A lint rule, what it finds, and the shapes of the examples on its page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["warning", "info"]
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Rule:
    """A rule, and its page.

    `bad` is an example with one such finding, and `good` one without: a clause, fields of a meter, or blocks
    at the top of a manifest. A rule that is `refused` is the reader's: what breaks it is an error.
    """

    code: str
    name: str
    severity: Severity
    what: str
    why: str
    bad: str
    good: str
    refused: bool = False

    @property
    def family(self) -> str:
        return self.code[:3]

    @property
    def title(self) -> str:
        """The code and the name, as findings show them."""
        return f"{self.code} {self.name}"


@dataclass(frozen=True)
class Finding:
    """Words of a rule about one place of a meter. `path` leads there from the meter's key."""

    rule: str
    path: Path
    message: str


def declared(types: str, clause: str, event: str = "llm.completion") -> str:
    """Return an example with a declared event, and a meter of an event."""
    return (
        f"events: {{llm.completion: {{{types}}}}}\n"
        "meters:\n"
        "  calls:\n"
        "    name: Calls\n"
        "    filter:\n"
        "      conjunction: and\n"
        "      clauses:\n"
        f"        - {{property: name, operator: eq, value: {event}}}\n"
        f"        - {clause}\n"
        "    aggregation: {func: count}"
    )


SHARED = """meters:
  calls:
    name: Calls
    filter: &calls {conjunction: and, clauses: [{property: name, operator: eq, value: call}]}
    aggregation: {func: count}
"""
"""The beginning of an example with two meters of one filter."""


def _meter(key: str, clause: str, comment: str = "") -> str:
    return (
        f"  {key}:\n"
        f"    name: {key.capitalize()}\n"
        "    filter:\n"
        "      conjunction: and\n"
        "      clauses:\n"
        f"        - {clause}{comment}\n"
        "    aggregation: {func: count}\n"
    )


def two_meters(one: str, other: str) -> str:
    """Return an example with two meters of a clause each."""
    return f"meters:\n{_meter('calls', one)}{_meter('large', other)}".rstrip()


def ignoring(comment: str, value: str) -> str:
    """Return an example with a comment on a clause that compares with a value."""
    clause = f"{{property: n, operator: eq, value: {value}}}"
    return f"meters:\n{_meter('calls', clause, comment)}".rstrip()
