"""The error boundary of the commands: an exit code and readable text for every error."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from polar_iac.cli.habits import Command
from polar_iac.cli.options import Options, common_options
from polar_iac.cli.output import print_error
from polar_iac.errors import ExitCode, PolarIacError


def command(function: Callable[..., ExitCode]) -> click.Command:
    """Make a command of a function: common options, its exit code, and no traceback for a user."""

    @functools.wraps(function)
    def run(
        manifest_files: tuple[Path, ...],
        quiet: bool,
        verbose: bool,
        debug: bool,
        color: str,
        no_color: bool,
        **rest: Any,
    ) -> None:
        context = click.get_current_context()
        context.color = _color("never" if no_color else color, os.environ)
        if verbose:
            import logging  # here, so that `validate` does not wait for it

            logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
        file_given = context.get_parameter_source("manifest_files") is not click.core.ParameterSource.DEFAULT
        try:
            _check_working_directory()
            code = function(Options(manifest_files, quiet, verbose, debug, file_given), **rest)
        except click.UsageError as error:  # the command line was understood, so its usage is no help
            raise click.ClickException(error.format_message()) from error
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            print_error("interrupted\n")
            code = ExitCode.INTERRUPTED
        except Exception as error:  # noqa: BLE001  no traceback reaches a user
            # Here, so that `validate` does not wait for the modules of the reports.
            from polar_iac.cli.error_report import report_error

            code = report_error(error, debug=debug)
        context.exit(code)

    name = function.__name__.rstrip("_")
    return click.command(name, cls=Command, context_settings={"help_option_names": ["-h", "--help"]})(
        common_options(run)
    )


def _color(choice: str, variables: Mapping[str, str]) -> bool | None:
    """Return whether to use colors; None leaves it to whether the stream is a terminal."""
    if choice != "auto":
        return choice == "always"
    if variables.get("NO_COLOR"):
        return False
    if variables.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return False if variables.get("TERM") == "dumb" else None


def _check_working_directory() -> None:
    """Raise PolarIacError when the working directory was removed: no relative path leads anywhere."""
    try:
        Path.cwd()
    except OSError as error:
        raise PolarIacError(
            f"the working directory cannot be used ({error.strerror}): change to one that exists"
        ) from error
