"""Errors as values: positions, diagnostics, and exceptions that carry their exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal


class ExitCode(IntEnum):
    """Exit codes of the command. Scripts depend on them."""

    OK = 0
    ERROR = 1
    CHANGES = 2
    CHECK_FAILED = 3
    STALE_PLAN = 4
    REFUSED = 5
    INTERRUPTED = 130
    TERMINATED = 143


Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True, order=True)
class SourceSpan:
    """A position in a file. `line` and `column` count characters from 1; `end_column` is exclusive.

    A value that spans several lines is marked only on its first line.
    """

    file: str
    line: int
    column: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    @property
    def json(self) -> dict[str, str | int]:
        """The position as the JSON documents hold it."""
        return {"file": self.file, "line": self.line, "column": self.column}


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One problem at one position, with what is wrong and how to fix it.

    `excerpt` is the whole line as written in the file, without its line break. `rule` is the code and
    the name of the lint rule that it breaks: `PI201 quoted-number`.
    """

    span: SourceSpan
    message: str
    excerpt: str = ""
    severity: Severity = "error"
    rule: str = ""

    @property
    def text(self) -> str:
        """The message, after the rule."""
        return f"[{self.rule}] {self.message}" if self.rule else self.message


class PolarIacError(Exception):
    """An error that is shown to the user as text, without a traceback."""

    exit_code: ExitCode = ExitCode.ERROR


class DiagnosticError(PolarIacError):
    """All problems found in a user's file, sorted by position and without duplicates."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(set(diagnostics)))
        super().__init__("\n".join(f"{d.span}: error: {d.text}" for d in self.diagnostics))


class RefusedError(PolarIacError):
    """The whole run was refused before it had any effect."""

    exit_code = ExitCode.REFUSED


class StalePlanError(PolarIacError):
    """The plan differs from the one that was reviewed; nothing was done."""

    exit_code = ExitCode.STALE_PLAN
