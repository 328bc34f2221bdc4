"""Text on stdout and stderr, made safe to print."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from polar_iac.ci.host import Host, host_for
from polar_iac.errors import PolarIacError
from polar_iac.sanitize import printable_lines, printable_styled


def sanitize(text: str, host: Host) -> str:
    """Return text of our renderers in a form that is safe to print here.

    Whatever it quotes, nothing moves the cursor, and no line is a command to the CI system that reads it.
    """
    return host.escape(printable_styled(text))


def plain(text: str, host: Host) -> str:
    """Return other text, without our colors, in a form that is safe to print here."""
    return sanitize(printable_lines(text), host)


def print_message(text: str) -> None:
    """Print a message to stderr."""
    print_error(plain(text, host_for(os.environ)) + "\n")


def print_error(text: str) -> None:
    """Print text that is safe already to stderr. A full or closed stderr does not stop the run."""
    with suppress(OSError):
        click.echo(text, err=True, nl=False)


def print_result(text: str) -> None:
    """Print results to stdout. A closed pipe (`| head`) does not stop the run.

    Raises PolarIacError when they cannot be written.
    """
    try:
        click.echo(sanitize(text, host_for(os.environ)), nl=False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # also suppresses the error at exit
        raise PolarIacError(f"cannot write to stdout: {error.strerror}") from error
