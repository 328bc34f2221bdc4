"""What can go wrong, as values: positions, diagnostics, and exceptions that know their exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command, a contract with scripts."""

    OK = 0
    ERROR = 1
    CHANGES = 2
    CHECK_FAILED = 3
    STALE_PLAN = 4
    REFUSED = 5
    INTERRUPTED = 130
    TERMINATED = 143


@dataclass(frozen=True, slots=True, order=True)
class SourceSpan:
    """A place in a file: `line` and `column` count characters from 1, `end_column` is exclusive.

    A value of several lines is marked on its first line only.
    """

    file: str
    line: int
    column: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One problem at one place: what is wrong and what to do.

    `excerpt` is the whole offending line as it stands in the file, without its line break.
    """

    span: SourceSpan
    message: str
    excerpt: str = ""


class PolarIacError(Exception):
    """An error that the user is told in one or more lines, without a traceback."""

    exit_code: ExitCode = ExitCode.ERROR


class DiagnosticError(PolarIacError):
    """Problems in a file of the user's; all that were found, sorted by position, without repeats."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(set(diagnostics)))
        super().__init__("\n".join(f"{d.span}: error: {d.message}" for d in self.diagnostics))


class RefusedError(PolarIacError):
    """The whole run was refused before it had any effect."""

    exit_code = ExitCode.REFUSED


class StalePlanError(PolarIacError):
    """What would be done now is not what was reviewed; nothing was done."""

    exit_code = ExitCode.STALE_PLAN
