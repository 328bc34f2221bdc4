"""Options that several commands share."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem

from polar_iac import ENVIRONMENTS, SLUG
from polar_iac.cli.output import print_message

DEFAULT_FILE = "meters.yaml"
"""The manifest, unless the command line names another."""
FORMATS = ("text", "json", "markdown")
"""Names of the output formats: the keys of `report.formats.RENDERERS`, which would take longer to load."""

STANDARD_INPUT = Path("-")

_Function = TypeVar("_Function", bound=Callable[..., Any])


class File(click.Path):
    """Parameter type for a file path as `pathlib.Path`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return Path(os.fsdecode(super().convert(value, param, ctx)))


class Environment(click.types.StringParamType):
    """Parameter type for the name of an environment. Only the manifest says if it is one."""

    name = "environment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        if not re.fullmatch(SLUG, text):
            self.fail(f"{text!r} is not a valid name of an environment", param, ctx)
        return text

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in ENVIRONMENTS if name.startswith(incomplete)]


@dataclass(frozen=True)
class Options:
    """Options that every command takes."""

    files: tuple[Path, ...]
    quiet: bool
    verbose: bool
    debug: bool
    file_given: bool = False
    """True if the command line names the manifest."""

    @property
    def source(self) -> Path:
        """The manifest of a command that takes one, or `-`. Raises click.UsageError for several."""
        if len(self.files) > 1:
            raise click.UsageError("-f names one manifest here: only `validate` takes several")
        return self.files[0]

    @property
    def file(self) -> Path:
        """The manifest of a command that takes one, and no standard input. Raises click.UsageError."""
        if self.source == STANDARD_INPUT:
            raise click.UsageError("-f - is for `validate` and `plan`: only they read standard input")
        return self.source

    def say(self, text: str) -> None:
        """Print a progress message to stderr, unless --quiet."""
        if not self.quiet:
            print_message(text)


@dataclass(frozen=True)
class Connection:
    """Connection options. Times are in seconds."""

    timeout: float
    lookup_timeout: float
    allow_http: bool


@dataclass(frozen=True)
class Facts:
    """Options for facts: which ones, and their budget in requests and seconds."""

    level: Literal["none", "usage", "all"]
    requests: int
    timeout: float


def _decorated(function: Any, *decorators: Callable[[Any], Any]) -> Any:
    """Apply decorators so that the help lists the first one first."""
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def common_options(function: Any) -> Any:
    """Add the options that every command takes."""
    return _decorated(
        function,
        click.option(
            "-f",
            "--file",
            "manifest_files",
            type=File(),
            multiple=True,
            default=(DEFAULT_FILE,),
            show_default=True,
            help="The manifest; `-` reads standard input, to validate or to plan.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Print only results and errors."),
        click.option("-v", "--verbose", is_flag=True, help="Show each request, and the infos of `validate`."),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
        click.option(
            "--color",
            type=click.Choice(("auto", "always", "never")),
            default="auto",
            show_default=True,
            help="When to use colors. `auto` minds NO_COLOR, FORCE_COLOR, TERM=dumb and the terminal.",
        ),
        click.option("--no-color", is_flag=True, help="The same as --color=never."),
    )


_NAMES = f"{', '.join(ENVIRONMENTS)}, or one that the manifest defines"


def _one(_context: click.Context, _option: click.Parameter, chosen: tuple[str, ...]) -> str | None:
    if len(set(chosen)) > 1:
        raise click.BadParameter("this takes one environment: run it once for each")
    return chosen[0] if chosen else None


def _repeatable(help_: str) -> Callable[[_Function], _Function]:
    """Return the option -e of a command that takes several environments."""
    return click.option(
        "-e",
        "--env",
        "environments",
        type=Environment(),
        metavar="ENV",
        envvar="POLAR_ENVIRONMENT",
        multiple=True,
        help=help_,
    )


environment = click.option(
    "-e",
    "--env",
    "environment",
    type=Environment(),
    metavar="ENV",
    multiple=True,
    callback=_one,
    envvar="POLAR_ENVIRONMENT",
    help=f"Environment (or POLAR_ENVIRONMENT): {_NAMES}. Required.",
)
environments = _repeatable(f"Environment (or POLAR_ENVIRONMENT), repeatable: {_NAMES}. Required.")
environments_or_all = _repeatable(f"Only this environment (or POLAR_ENVIRONMENT), repeatable: {_NAMES}.")
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
    help="Only this meter, repeatable. All others are left alone.",
)
allow_archive = click.option(
    "--allow-archive", is_flag=True, help="Archive meters that are gone from the manifest."
)
dry_run = click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
auto_approve = click.option(
    "-y", "--auto-approve", is_flag=True, help="Do not ask. Required without a terminal."
)
lock_timeout = click.option(
    "--lock-timeout",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="Seconds to wait for another run on this machine.",
)
deadline = click.option(
    "--deadline",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Stop starting new requests after this many seconds.",
)


def format_(function: Any) -> Any:
    """Add the options for the output format and for report files."""
    return _decorated(
        function,
        click.option("--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True),
        click.option(
            "--report",
            "reports",
            metavar="FORMAT=FILE",
            multiple=True,
            help="Also write the result to a file in this format, repeatable.",
        ),
    )


def connection(function: _Function) -> _Function:
    """Add the options of a command that talks to Polar, passed as one argument `connection`."""

    @functools.wraps(function)
    def run(*arguments: Any, timeout: float, lookup_timeout: float, allow_http: bool, **rest: Any) -> Any:
        return function(*arguments, connection=Connection(timeout, lookup_timeout, allow_http), **rest)

    decorated: _Function = _decorated(
        run,
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=30,
            show_default=True,
            help="Seconds to wait for each response.",
        ),
        click.option(
            "--lookup-timeout",
            type=click.FloatRange(min=0),
            default=10,
            show_default=True,
            help="Seconds to keep looking for meters that Polar's read replicas do not show yet.",
        ),
        click.option(
            "--allow-http",
            is_flag=True,
            help="Allow http:// to other hosts, which sends the token unencrypted.",
        ),
    )
    return decorated


def facts_budget(*, requests: int, seconds: float) -> Callable[[Any], Any]:
    """Return what adds the options that bound facts, with these defaults."""
    return lambda function: _decorated(
        function,
        click.option(
            "--facts-requests",
            type=click.IntRange(min=0),
            default=requests,
            show_default=True,
            help="Most requests to send for facts.",
        ),
        click.option(
            "--facts-timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=seconds,
            show_default=True,
            help="Seconds that facts may take in all.",
        ),
    )


def facts(function: _Function) -> _Function:
    """Add the options of a command that gathers facts for a plan, passed as one argument `facts`."""

    @functools.wraps(function)
    def run(
        *arguments: Any,
        facts: Literal["none", "usage", "all"],
        facts_requests: int,
        facts_timeout: float,
        **rest: Any,
    ) -> Any:
        return function(*arguments, facts=Facts(facts, facts_requests, facts_timeout), **rest)

    decorated: _Function = _decorated(
        run,
        click.option(
            "--facts",
            type=click.Choice(("none", "usage", "all")),
            default="all",
            show_default=True,
            help="Facts about what changes: none, those that the plan's token reads, or all that the tokens "
            "allow (POLAR_FACTS_TOKEN_<ENV>).",
        ),
        facts_budget(requests=60, seconds=20),
    )
    return decorated
