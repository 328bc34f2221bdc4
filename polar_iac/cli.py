"""The command: parse, call, print, exit. Collaborators are imported inside, so that `--help` is quick."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from polar_iac.lockfile import Lockfile
    from polar_iac.manifest import Manifest

ENVIRONMENTS = ("production", "sandbox", "local")


@dataclass(frozen=True)
class Options:
    """What every command takes."""

    file: Path
    quiet: bool
    verbose: bool
    debug: bool

    def say(self, text: str) -> None:
        """A word on the way, on stderr; nothing with --quiet."""
        if not self.quiet:
            click.echo(text, err=True)

    def say_wait(self, seconds: float) -> None:
        self.say(f"rate limited, going on in {seconds:.0f} s")


def command(function: Callable[..., int]) -> click.Command:
    """A command from a function that returns its exit code: the common options, and errors in plain words."""

    @functools.wraps(function)
    def run(file: Path, quiet: bool, verbose: bool, debug: bool, no_color: bool, **rest: Any) -> NoReturn:
        context = click.get_current_context()
        if no_color or os.environ.get("NO_COLOR"):
            context.color = False
        if verbose:
            import logging

            logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
        try:
            code = function(Options(file, quiet, verbose, debug), **rest)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            code = 130
        except Exception as error:  # noqa: BLE001  no traceback reaches a user
            code = _report(error, debug)
        context.exit(code)

    for decorate in reversed(_COMMON):
        run = decorate(run)
    name = function.__name__.rstrip("_")
    return click.command(name, context_settings={"help_option_names": ["-h", "--help"]})(run)


def _print(text: str) -> None:
    """Results, on stdout. That nobody reads them any more (`| head`) is no reason to stop half-way."""
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: Exception, debug: bool) -> int:
    from polar_iac.errors import DiagnosticError, PolarIacError
    from polar_iac.render.text import diagnostics_text
    from polar_iac.render.words import printable

    if debug:
        import traceback

        click.echo(printable_lines(traceback.format_exc()), err=True)
    if isinstance(error, DiagnosticError):
        click.echo(diagnostics_text(error.diagnostics), err=True, nl=False)
        return int(error.exit_code)
    if isinstance(error, PolarIacError):
        click.echo(click.style("error", fg="red", bold=True) + ": " + printable_lines(str(error)), err=True)
        return int(error.exit_code)
    told = printable(f"{type(error).__name__}: {error}")
    click.echo(
        f"error: polar-iac itself failed ({told}): please report this with what --debug prints", err=True
    )
    return 1


def printable_lines(text: str) -> str:
    from polar_iac.render.words import printable

    return "\n".join(printable(line) for line in text.split("\n"))


_COMMON = (
    click.option(
        "-f",
        "--file",
        type=click.Path(path_type=Path),
        default=Path("meters.yaml"),
        show_default=True,
        help="The manifest.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Show each request."),
    click.option("--debug", is_flag=True, help="Show a traceback when something fails."),
    click.option("--no-color", is_flag=True, help="No colours (also NO_COLOR, and when not on a terminal)."),
)

_environment = click.option(
    "-e",
    "--env",
    "environment",
    type=click.Choice(ENVIRONMENTS),
    envvar="POLAR_ENVIRONMENT",
    help="Which Polar (also POLAR_ENVIRONMENT); never chosen for you.",
)
_lockfile = click.option(
    "--lockfile",
    "lockfile_path",
    type=click.Path(path_type=Path),
    help="The lockfile, instead of meters.<env>.lock.json beside the manifest.",
)
_target = click.option(
    "--target",
    "targets",
    metavar="KEY",
    multiple=True,
    help="Only this meter (repeatable); all else is left alone.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="polar-iac")
def cli() -> None:
    """Polar meters as code: plan in the pull request, apply on merge."""


@cli.add_command
@command
def validate(options: Options) -> int:
    """Check the manifest, offline; needs no environment."""
    from polar_iac import manifest

    found = manifest.read(options.file)
    _print(f"{options.file}: {_count(len(found.meters), 'meter')} fine.\n")
    return 0


def _count(count: int, noun: str) -> str:
    return f"1 {noun} is" if count == 1 else f"{count} {noun}s are"


@cli.add_command
@command
@_environment
@_lockfile
@_target
@click.option("--offline", is_flag=True, help="Plan against the lockfile alone: no token, no network.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there are changes or blocked meters.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def plan(
    options: Options,
    environment: str | None,
    lockfile_path: Path | None,
    targets: tuple[str, ...],
    offline: bool,
    detailed_exitcode: bool,
    format_: str,
) -> int:
    """Show what an apply would change, and why."""
    from polar_iac import environment as environments
    from polar_iac import journal
    from polar_iac.planner import make_plan
    from polar_iac.render.document import plan_json
    from polar_iac.render.text import plan_text

    manifest, path, recorded = _read(options, environment, lockfile_path, targets)
    recorded = journal.fold(recorded, journal.read(journal.path_for(path)))
    organization = environments.pinned_organization(manifest, recorded)
    live = None
    if not offline:
        with environments.connect(
            recorded.environment, os.environ, organization, path, options.say_wait
        ) as client:
            live = client.list_meters()
        organization = environments.confirm_organization(organization, live, recorded.environment)
    found = make_plan(
        manifest,
        recorded.meters,
        live,
        environment=recorded.environment,
        organization_id=organization,
        targets=targets,
    )
    _print(plan_json(found) if format_ == "json" else plan_text(found, str(options.file)))
    if found.refusal:
        options.say("An apply of this would be refused: " + printable_lines(found.refusal))
    return 2 if detailed_exitcode and found.changes else 0


@cli.add_command
@command
@_environment
@_lockfile
@_target
@click.option("-y", "--auto-approve", is_flag=True, help="Do not ask. Required without a terminal.")
@click.option("--allow-archive", is_flag=True, help="Archive meters that are gone from the manifest.")
@click.option(
    "--parallelism", type=click.IntRange(1, 32), default=4, show_default=True, help="Requests at a time."
)
def apply(
    options: Options,
    environment: str | None,
    lockfile_path: Path | None,
    targets: tuple[str, ...],
    auto_approve: bool,
    allow_archive: bool,
    parallelism: int,
) -> int:
    """Show the plan, ask, carry it out, and record each effect."""
    from polar_iac import environment as environments
    from polar_iac import executor, journal, lockfile
    from polar_iac.errors import RefusedError
    from polar_iac.plan import Done
    from polar_iac.planner import make_plan
    from polar_iac.render.text import event_text, plan_text, result_text

    manifest, path, recorded = _read(options, environment, lockfile_path, targets)
    lockfile.state_directory(path)
    recorded = journal.fold(recorded, journal.read(journal.path_for(path)))
    organization = environments.pinned_organization(manifest, recorded)
    with environments.connect(
        recorded.environment, os.environ, organization, path, options.say_wait
    ) as client:
        live = client.list_meters()
        organization = environments.confirm_organization(organization, live, recorded.environment)
        found = make_plan(
            manifest,
            recorded.meters,
            live,
            environment=recorded.environment,
            organization_id=organization,
            targets=targets,
            allow_archive=allow_archive,
        )
        _print(plan_text(found, str(options.file)))
        if found.refusal:
            raise RefusedError(found.refusal)
        if any(change.action != "blocked" for change in found.changes):
            _confirm(recorded.environment, auto_approve)
        events = []
        with journal.Journal(journal.path_for(path), recorded) as record:
            if organization and recorded.organization_id != organization:
                record.learn_organization(organization)
            for event in executor.execute(found, manifest, live, client, record, parallelism=parallelism):
                events.append(event)
                _print(event_text(event))
            record.finish(path)
    if events:
        _print(result_text(events) + "\n")
    return 0 if all(isinstance(event, Done) for event in events) else 1


@cli.add_command
@command
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8010, show_default=True, help="0: any free one."
)
def serve(options: Options, port: int) -> int:
    """Serve the embedded Polar of the `local` environment on loopback, until interrupted."""
    import threading

    from polar_iac import environment as environments
    from polar_iac.local import LocalPolar, serving
    from polar_iac.lockfile import state_directory

    server = LocalPolar(state_directory(options.file) / environments.LOCAL_DATABASE)
    try:
        with serving(server, port) as base_url:
            click.echo(f"Polar, embedded, on {base_url} (Ctrl-C stops it). For example:")
            click.echo(
                f"  POLAR_BASE_URL={base_url} POLAR_ACCESS_TOKEN={environments.LOCAL_TOKEN} "
                "polar-iac plan -e sandbox"
            )
            sys.stdout.flush()
            threading.Event().wait()
    finally:
        server.close()
    return 0


def _read(
    options: Options, environment: str | None, lockfile_path: Path | None, targets: tuple[str, ...]
) -> tuple[Manifest, Path, Lockfile]:
    """The manifest, the lockfile's path and the lockfile of the environment that is meant."""
    from polar_iac import lockfile, manifest

    if environment is None:
        raise click.UsageError(
            "say which environment is meant: -e local, -e sandbox or -e production (or POLAR_ENVIRONMENT)"
        )
    desired = manifest.read(options.file)
    path = lockfile_path or lockfile.default_path(options.file, environment)
    recorded = lockfile.read(path, environment, desired.project)
    for key in targets:
        if key not in desired.meters and key not in recorded.meters:
            raise click.UsageError(f"--target {key}: neither the manifest nor the lockfile has this key")
    return desired, path, recorded


def _confirm(environment: str, auto_approve: bool) -> None:
    if auto_approve:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here, without a terminal: approve with -y")
    if environment == "production":
        answer = click.prompt("This changes what customers are billed. Type `production` to apply", err=True)
        if answer.strip() != "production":
            raise click.Abort
    else:
        click.confirm(f"Apply this to {environment}?", abort=True, err=True)


def main() -> None:
    """The entry point: click's own errors exit 1, since 2 means that a plan has changes."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = 1
    except click.Abort:
        click.echo("Aborted; nothing was changed.", err=True)
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
