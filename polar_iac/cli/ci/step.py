"""A step of an action: its exit code, and no traceback, for every error."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from polar_iac.ci.annotations import Annotation, Level
from polar_iac.ci.checkout import Checkout, open_checkout
from polar_iac.ci.git import basic_credentials
from polar_iac.ci.github import GitHub
from polar_iac.ci.inputs import Inputs
from polar_iac.cli.error_report import report_error
from polar_iac.cli.output import print_error
from polar_iac.errors import ExitCode


def step(function: Callable[..., int]) -> click.Command:
    """Make a command of a step. It returns its exit code."""

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        try:
            code = function(**arguments)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:  # noqa: BLE001  no traceback reaches a user
            code = report_error(error, debug=False)
        click.get_current_context().exit(code)

    return click.command(function.__name__)(run)


def enter(inputs: Inputs) -> Checkout:
    """Go to the working directory of a run. Raises PolarIacError where there is no manifest or checkout.

    The log shows the token in no form: the runner masks its own, and this adds the one that git sends.
    """
    if token := os.environ.get("GH_TOKEN"):
        sys.stdout.write(f"::add-mask::{basic_credentials(token)}\n")
        sys.stdout.flush()
    checkout = open_checkout(os.environ, inputs)
    os.chdir(checkout.directory)
    return checkout


def scratch_directory(name: str) -> Path:
    """Make a directory that lasts as long as the job."""
    return Path(tempfile.mkdtemp(prefix=f"polar-iac-{name}.", dir=os.environ["RUNNER_TEMP"]))


def write_outputs(outputs: Mapping[str, str]) -> None:
    """Write outputs of this step."""
    GitHub(os.environ).write_outputs(outputs)


def tell(level: Level, message: str) -> None:
    """Annotate the run with a message."""
    print_error(GitHub(os.environ).annotate([Annotation(level, "polar-iac", message)]))


def summarize(markdown: str) -> None:
    """Add a paragraph to the summary of the job."""
    GitHub(os.environ).append_summary(f"{markdown}\n")


def run_command(command: click.Command, arguments: list[str]) -> int:
    """Run another command in this process, and return its exit code. Raises click.ClickException."""
    code: int = command.main(arguments, prog_name=f"polar-iac {command.name}", standalone_mode=False)
    return code or ExitCode.OK
