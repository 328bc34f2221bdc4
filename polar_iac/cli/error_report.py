"""Errors on stderr and in CI."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from polar_iac.ci.host import host_for
from polar_iac.cli.output import plain, print_error, sanitize
from polar_iac.cli.terminal import columns
from polar_iac.errors import Diagnostic, DiagnosticError, ExitCode, PolarIacError
from polar_iac.report.diagnostics import diagnostics_text, error_text


def report_error(error: Exception, *, debug: bool) -> ExitCode:
    """Print an error, publish it where the run is on a CI system, and return its exit code.

    With `debug`, print its traceback too.
    """
    host = host_for(os.environ)
    if debug:
        print_error(plain(traceback.format_exc(), host) + "\n")
    diagnostics = error.diagnostics if isinstance(error, DiagnosticError) else ()
    message = error_message(error)
    text = diagnostics_text(diagnostics, columns(sys.stderr)) if diagnostics else error_text(message)
    code = error.exit_code if isinstance(error, PolarIacError) else ExitCode.ERROR
    annotations = host.publish_error(code, message, diagnostics, text)
    print_error(annotations + sanitize(text, host))
    return code


def report_findings(found: Sequence[Diagnostic]) -> None:
    """Print what lint found, each with its line."""
    print_error(sanitize(diagnostics_text(found, columns(sys.stderr)), host_for(os.environ)))


def error_message(error: Exception) -> str:
    """Return an error in the words that a user reads, without its diagnostics' excerpts."""
    if isinstance(error, PolarIacError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        file = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{file}the system refused: {error.strerror}"
    return (
        f"polar-iac itself failed ({type(error).__name__}: {error}): "
        "please report this, with what --debug prints"
    )
