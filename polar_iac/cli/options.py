"""Options that several commands share."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from polar_iac import ENVIRONMENTS

if TYPE_CHECKING:
    from pathlib import Path

    from polar_iac.cli.terminal import Progress
    from polar_iac.clock import Clock
    from polar_iac.polar.client import PolarClient


class File(click.Path):
    """Parameter type for a file path as `pathlib.Path`. `pathlib` is loaded only when a path is given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from pathlib import Path

        return Path(os.fsdecode(super().convert(value, param, ctx)))


@dataclass(frozen=True)
class Options:
    """Options that every command takes."""

    file: Path
    quiet: bool
    verbose: bool
    debug: bool
    file_given: bool = False
    """True if the command line names the manifest."""

    def say(self, text: str) -> None:
        """Print a progress message to stderr, unless --quiet."""
        if not self.quiet:
            from polar_iac.cli.output import plain

            click.echo(plain(text, os.environ), err=True)


def command(function: Callable[..., int]) -> click.Command:
    """Make a command of a function that returns an exit code: common options, readable errors."""

    @functools.wraps(function)
    def run(file: Path, quiet: bool, verbose: bool, debug: bool, no_color: bool, **rest: Any) -> NoReturn:
        context = click.get_current_context()
        if no_color or os.environ.get("NO_COLOR"):
            context.color = False
        if verbose:
            import logging

            logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
        try:
            given = context.get_parameter_source("file") is not click.core.ParameterSource.DEFAULT
            code = function(Options(file, quiet, verbose, debug, given), **rest)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            from polar_iac.errors import ExitCode

            code = ExitCode.INTERRUPTED
        except Exception as error:  # noqa: BLE001  no traceback reaches a user
            code = _report(error, debug)
        context.exit(code)

    for decorate in reversed(_COMMON):
        run = decorate(run)
    name = function.__name__.rstrip("_")
    return click.command(name, context_settings={"help_option_names": ["-h", "--help"]})(run)


def width(stream: TextIO) -> int:
    """Return the number of columns for text on a stream. A narrow terminal has fewer than a log."""
    import shutil

    from polar_iac.report.wording import WIDTH

    return min(shutil.get_terminal_size().columns, WIDTH) if stream.isatty() else WIDTH


def _report(error: Exception, debug: bool) -> int:
    from polar_iac.ci.github import on_github, publish_error
    from polar_iac.cli.output import format_error, plain
    from polar_iac.errors import ExitCode, PolarIacError

    if debug:
        import traceback

        click.echo(plain(traceback.format_exc(), os.environ), err=True)
    click.echo(format_error(error, os.environ, width(sys.stderr)), err=True, nl=False)
    code = error.exit_code if isinstance(error, PolarIacError) else ExitCode.ERROR
    if on_github(os.environ):
        publish_error(code, format_error(error, {}), os.environ)
    return code


_COMMON = (
    click.option(
        "-f",
        "--file",
        type=File(),
        default="meters.yaml",
        show_default=True,
        help="The manifest.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Show each request."),
    click.option("--debug", is_flag=True, help="Show a traceback when something fails."),
    click.option("--no-color", is_flag=True, help="No colours (also NO_COLOR, and when not on a terminal)."),
)


def _one(_context: click.Context, _option: click.Parameter, chosen: tuple[str, ...]) -> str | None:
    if len(set(chosen)) > 1:
        raise click.BadParameter("this takes one environment: run it once for each")
    return chosen[0] if chosen else None


environment = click.option(
    "-e",
    "--env",
    "environment",
    type=click.Choice(ENVIRONMENTS),
    multiple=True,
    callback=_one,
    envvar="POLAR_ENVIRONMENT",
    help="Which Polar (also POLAR_ENVIRONMENT); never chosen for you.",
)
lockfile = click.option(
    "--lockfile",
    "lockfile_path",
    type=File(),
    help="The lockfile, instead of meters.<env>.lock.json beside the manifest.",
)
target = click.option(
    "--target",
    "targets",
    metavar="KEY",
    multiple=True,
    help="Only this meter (repeatable); all else is left alone.",
)
allow_archive = click.option(
    "--allow-archive", is_flag=True, help="Archive meters that are gone from the manifest."
)
deadline = click.option(
    "--deadline",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Stop starting new requests after this many seconds.",
)
resend_after = click.option(
    "--resend-after",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Seconds to look for a create without an answer before it is sent again.",
)


def format_(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options for the output format and for report files."""
    formats = ["text", "json", "markdown"]
    shown = click.option("--format", "format_", type=click.Choice(formats), default="text", show_default=True)
    reported = click.option(
        "--report",
        "reports",
        metavar="FORMAT=FILE",
        multiple=True,
        help="Write it to a file too (repeatable).",
    )
    return shown(reported(function))


@dataclass(frozen=True)
class Connection:
    """Connection options. Times are in seconds."""

    timeout: float
    lookup_timeout: float
    allow_http: bool

    def open(
        self,
        environment: str,
        organization: str | None,
        lockfile: Path,
        clock: Clock,
        progress: Progress,
    ) -> AbstractContextManager[PolarClient]:
        """Open a client for the environment, with its token from the process environment."""
        from polar_iac.polar.environments import connect

        return connect(
            environment,
            os.environ,
            organization,
            lockfile,
            clock=clock,
            on_wait=progress.wait,
            on_retry=progress.retry,
            timeout=self.timeout,
            allow_http=self.allow_http,
        )


def connection(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options of a command that talks to Polar, passed as one argument `connection`."""

    @functools.wraps(function)
    def run(*arguments: Any, timeout: float, lookup_timeout: float, allow_http: bool, **rest: Any) -> int:
        return function(*arguments, connection=Connection(timeout, lookup_timeout, allow_http), **rest)

    for decorate in (
        click.option("--allow-http", is_flag=True, help="Send the token unencrypted, to any host."),
        click.option(
            "--lookup-timeout",
            type=click.FloatRange(min=0),
            default=10,
            show_default=True,
            help="Seconds to keep looking for meters that Polar's read replicas do not show yet.",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=30,
            show_default=True,
            help="Seconds to wait for one answer.",
        ),
    ):
        run = decorate(run)
    return run
