"""Looks at several environments, of which none must hide another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from polar_iac.cli.error_report import report_error
from polar_iac.errors import PolarIacError
from polar_iac.report.formats import check_replaceable, report_file

Found = TypeVar("Found")


def check_files(lockfile_path: Path | None, environments: Sequence[str], reports: Sequence[str]) -> None:
    """Raise an error for files that cannot be meant, so that nobody waits for a report in vain."""
    if lockfile_path and len(environments) > 1:
        raise click.UsageError("--lockfile names one file: use it with one environment at a time")
    for report in reports:
        check_replaceable(report_file(report)[1])


def look_at_each(
    environments: Sequence[str], look: Callable[[str | None], Found], *, debug: bool
) -> tuple[list[Found], list[str]]:
    """Return what was found in each environment, and the names of those that could not be read.

    Errors are reported, each once. Without environments `look` is called with None, and says that one must be
    chosen.
    """
    found, unread, reported = list[Found](), list[str](), set[str]()
    for environment in dict.fromkeys(environments) or (None,):
        try:
            found.append(look(environment))
        except PolarIacError as error:
            if str(error) not in reported:
                report_error(error, debug=debug)
            reported.add(str(error))
            unread.append(str(environment))
    return found, unread
