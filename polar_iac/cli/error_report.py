"""Errors on stderr and in CI."""

from __future__ import annotations

import os
import sys
import traceback

import click

from polar_iac.ci.host import host_for
from polar_iac.cli.output import plain, sanitize
from polar_iac.cli.terminal import columns
from polar_iac.errors import DiagnosticError, ExitCode, PolarIacError
from polar_iac.report.diagnostics import diagnostics_text, error_text


def report_error(error: Exception, *, debug: bool) -> ExitCode:
    """Print an error, publish it where the run is on a CI system, and return its exit code.

    With `debug`, print its traceback too.
    """
    host = host_for(os.environ)
    if debug:
        click.echo(plain(traceback.format_exc(), host), err=True)
    diagnostics = error.diagnostics if isinstance(error, DiagnosticError) else ()
    message = _message(error)
    text = diagnostics_text(diagnostics, columns(sys.stderr)) if diagnostics else error_text(message)
    code = error.exit_code if isinstance(error, PolarIacError) else ExitCode.ERROR
    annotations = host.publish_error(code, message, diagnostics, text)
    click.echo(annotations + sanitize(text, host), err=True, nl=False)
    return code


def _message(error: Exception) -> str:
    if isinstance(error, PolarIacError):
        return str(error)
    return (
        f"polar-iac itself failed ({type(error).__name__}: {error}): "
        "please report this, with what --debug prints"
    )
