"""The command `polar-iac`: a group whose commands are imported when they run."""

from __future__ import annotations

import gc
import importlib
import io
import os
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

import click

COMMANDS = {
    "apply": (
        "polar_iac.cli.apply.apply",
        "Show the plan, ask, carry it out, and record each effect.",
    ),
    "check": (
        "polar_iac.cli.check.check",
        "Show what goes wrong while no manifest changes.",
    ),
    "drift": (
        "polar_iac.cli.drift.drift",
        "Show what someone changed at Polar since the last apply.",
    ),
    "explain": (
        "polar_iac.cli.explain.explain",
        "Explain lint rules, by name or code; without one, list them.",
    ),
    "import": (
        "polar_iac.cli.import_.import_",
        "List meters that no manifest owns, or declare them.",
    ),
    "init": (
        "polar_iac.cli.init.init",
        "Write a manifest to begin with, and print what is left to do.",
    ),
    "list": (
        "polar_iac.cli.list.list_",
        "List the meters that the lockfiles record, offline.",
    ),
    "plan": (
        "polar_iac.cli.plan.plan",
        "Show what an apply would change, and why.",
    ),
    "probe": (
        "polar_iac.cli.probe.probe",
        "Ask Polar, by writes without effect, which meters are frozen.",
    ),
    "pull": (
        "polar_iac.cli.pull.pull",
        "Write what someone changed at Polar into the manifest.",
    ),
    "schema": (
        "polar_iac.cli.schema.schema",
        "Print the JSON Schema of manifests, for editors.",
    ),
    "serve": (
        "polar_iac.cli.serve.serve",
        "Serve the embedded Polar on loopback, until interrupted.",
    ),
    "show": (
        "polar_iac.cli.show.show",
        "Show saved plans, stale or not.",
    ),
    "test": (
        "polar_iac.cli.test.test",
        "Run tests of meters, offline: events, and what they must count.",
    ),
    "validate": (
        "polar_iac.cli.validate.validate",
        "Check manifests, offline; needs no environment.",
    ),
}
"""Import path and short help of each command. `polar-iac --help` imports none of them."""

HIDDEN = {"ci": ("polar_iac.cli.ci.main.ci", "Run a step of the GitHub actions.")}
"""Import path and short help of each command that `--help` does not show."""

FLAGS = frozenset(
    {
        *("--admin", "--all", "--allow-archive", "--allow-http", "--auto-approve", "--check", "--coverage"),
        *("--debug", "--detailed-exitcode", "--dry-run", "--github", "--id", "--no-color", "--offline"),
        *("--q", "--quiet", "--strict", "--usage", "--v", "--verbose", "--y"),
    }
)
"""Options of commands that take no value. Short ones are written with two dashes here."""
_OF_THE_GROUP = ("-h", "--help", "--version")


class LazyGroup(click.Group):
    """Group that imports a command when it is needed: the pattern of click's documentation.

    It also lists the commands without importing them, from their short help in `lazy_subcommands`.
    """

    def __init__(
        self,
        *args: Any,
        lazy_subcommands: dict[str, tuple[str, str]] | None = None,
        hidden_subcommands: dict[str, tuple[str, str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.lazy_subcommands = lazy_subcommands or {}
        self._importable = self.lazy_subcommands | (hidden_subcommands or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move options that stand before the command behind it: all options are the commands' own."""
        index = 0
        while index < len(args) and args[index].startswith("-") and args[index] not in _OF_THE_GROUP:
            takes_value = "=" not in args[index] and f"--{args[index].lstrip('-')}" not in FLAGS
            index += 2 if takes_value else 1
        if index < len(args) and args[index] in self.lazy_subcommands:
            args = [args[index], *args[:index], *args[index + 1 :]]
        elif 0 < index < len(args) and not args[index].startswith("-"):
            raise self._unknown(args[index], ctx)  # Click would say it of the option before
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            raise self._unknown(args[0], ctx)
        return super().resolve_command(ctx, args)

    def _unknown(self, name: str, ctx: click.Context) -> click.UsageError:
        # Here, so that `--help` does not wait for it.
        from polar_iac.yaml.scalars import nearest

        guess = nearest(name, tuple(self.lazy_subcommands))
        hint = f": did you mean `{guess}`?" if guess else ""
        return click.UsageError(f"No such command {name!r}{hint}", ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.lazy_subcommands])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._importable:
            return super().get_command(ctx, cmd_name)
        path, _ = self._importable[cmd_name]
        module, _, name = path.rpartition(".")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(self.lazy_subcommands.items())])


@click.group(
    cls=LazyGroup,
    lazy_subcommands=COMMANDS,
    hidden_subcommands=HIDDEN,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="polar-iac")
def cli() -> None:
    """Polar meters as code: plan in the pull request, apply on merge."""


class _TerminatedError(BaseException):
    """SIGTERM, when nothing needs cleanup first."""


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise _TerminatedError


def _prepare_streams() -> None:
    """Make stdout and stderr take any text, wherever they lead.

    Characters that the encoding lacks are replaced, as Python itself does on stderr. What is closed leads
    nowhere: otherwise the next file that is opened, such as the journal, would take its number, and be
    written to as stdout.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
        elif name == "stdout" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _show(error: click.ClickException) -> None:
    """Print an error in the voice of all others. One about how a command is written shows its usage."""
    from polar_iac.sanitize import printable

    message = printable(error.format_message())
    if isinstance(error, click.UsageError):
        message = message[:1].lower() + message[1:]  # click's own begin with a capital letter
        if error.ctx is not None:
            usage = error.ctx.get_usage()
            click.echo(f"{usage}\nTry '{error.ctx.command_path} --help' for help.\n", err=True)
    click.echo(f"error: {message}", err=True)


def main() -> None:
    """Run the command. click's own errors exit 1, because 2 means that a plan has changes."""
    # Plans are large and have few cycles: at the default of 700, the collector walks them again and again.
    gc.set_threshold(100_000)
    _prepare_streams()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
    except OSError as error:  # of `--help` and `--version`; commands report their own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # also suppresses the error at exit
        with suppress(OSError):
            click.echo(f"error: cannot write to stdout: {error.strerror}", err=True)
        code = 1
    except (click.ClickException, click.Abort, KeyboardInterrupt, _TerminatedError) as end:
        # Here, so that `--help` does not wait for it.
        from polar_iac.errors import ExitCode

        match end:
            case click.ClickException():
                with suppress(OSError):
                    _show(end)
                code = ExitCode.ERROR
            case click.Abort():
                with suppress(OSError):
                    click.echo("Aborted; nothing was changed.", err=True)
                code = ExitCode.ERROR
            case KeyboardInterrupt():
                code = ExitCode.INTERRUPTED
            case _:
                code = ExitCode.TERMINATED
    sys.exit(code)
