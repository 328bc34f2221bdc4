"""Text on stdout and stderr: results, messages and errors, made safe to print."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import click

from polar_iac.ci import github as github_run
from polar_iac.errors import PolarIacError
from polar_iac.report.wording import WIDTH


def sanitize(text: str, variables: Mapping[str, str]) -> str:
    """Return text of our renderers in a form that is safe to print here.

    Whatever it quotes, nothing moves the cursor. On GitHub, where the runner reads commands from a step's
    output, no line is a command.
    """
    from polar_iac.sanitize import printable_styled

    text = printable_styled(text)
    if not github_run.on_github(variables):
        return text
    from polar_iac.ci.workflow_commands import inert

    return inert(text)


def plain(text: str, variables: Mapping[str, str]) -> str:
    """Return other text, without our colors, in a form that is safe to print here."""
    from polar_iac.sanitize import printable_lines

    return sanitize(printable_lines(text), variables)


def format_error(error: Exception, variables: Mapping[str, str], width: int = WIDTH) -> str:
    """Return the stderr text for an error, with an annotation on GitHub.

    User lines are limited to `width` columns.
    """
    from polar_iac.ci.workflow_commands import diagnostic_commands, error_command
    from polar_iac.errors import DiagnosticError
    from polar_iac.report.diagnostics import diagnostics_text, error_text

    if isinstance(error, DiagnosticError):
        text = diagnostics_text(error.diagnostics, width)
        commands = diagnostic_commands(error.diagnostics, directory=github_run.directory(variables))
    else:
        message = str(error)
        if not isinstance(error, PolarIacError):
            told = f"{type(error).__name__}: {error}"
            message = f"polar-iac itself failed ({told}): please report this with what --debug prints"
        text, commands = error_text(message), error_command(message)
    return (commands if github_run.on_github(variables) else "") + sanitize(text, variables)


def print_result(text: str) -> None:
    """Print results to stdout. A closed pipe (`| head`) does not stop the run.

    Raises PolarIacError when they cannot be written.
    """
    try:
        click.echo(sanitize(text, os.environ), nl=False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # also suppresses the error at exit
        raise PolarIacError(f"cannot write to stdout: {error.strerror}") from error
