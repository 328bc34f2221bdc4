"""The command `init`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click

from polar_iac import SLUG
from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.output import print_result
from polar_iac.cli.repository import Repository, own_source, repository_of
from polar_iac.cli.scaffold import WORKFLOWS, left_to_do, manifest_text, project_name, workflow_text
from polar_iac.cli.terminal import Progress
from polar_iac.clock import SystemClock
from polar_iac.errors import ExitCode, PolarIacError
from polar_iac.manifest.environments import SERVERS, variable
from polar_iac.polar.environments import connect


@command
@click.option("--github", is_flag=True, help="Also write the two workflow files for GitHub Actions.")
@click.option(
    "--project", metavar="NAME", help="The project, instead of the repository's or directory's name."
)
def init(common: options.Options, github: bool, project: str | None) -> ExitCode:
    """Write a manifest to begin with, and print what is left to do.

    Overwrites nothing, and imports nothing.
    """
    file = common.file
    directory = file.parent.resolve()
    if not directory.is_dir():
        raise PolarIacError(f"there is no directory {file.parent}")
    repository = repository_of(directory)
    source = own_source()
    texts = {file: manifest_text(_project(project, repository, directory), source)}
    if github:
        if repository is None:
            raise PolarIacError(
                "--github writes into a git repository, and this is none: run `git init` first"
            )
        inputs = dict(_inputs(file, directory, repository))
        for name in WORKFLOWS:
            path = repository.top / ".github" / "workflows" / name
            texts[_shown(path)] = workflow_text(name, source, repository.branch, inputs)
    for path, text in texts.items():
        print_result(
            f"Wrote {path}.\n" if _write(path, text) else f"{path} is there already, and left as it is.\n"
        )
    branch = repository.branch if repository else "main"
    steps = [*_imports(quiet=common.quiet), *left_to_do(source, branch, github=github)]
    lines = "".join(f"  {number}. {step}\n" for number, step in enumerate(steps, 1))
    print_result(f"\nLeft to do:\n{lines}")
    return ExitCode.OK


def _project(given: str | None, repository: Repository | None, directory: Path) -> str:
    """Return the name of the project. Raises click.UsageError when none can be found."""
    if given is not None:
        if not re.fullmatch(SLUG, given):
            raise click.UsageError(f"--project takes 1 to 63 of a-z, 0-9, _ and -, got {given!r}")
        return given
    name = repository.name if repository else directory.name
    project = project_name(name)
    if project is None:
        raise click.UsageError(f"{name!r} makes no name of a project: pass --project NAME")
    return project


def _inputs(file: Path, directory: Path, repository: Repository) -> Iterator[tuple[str, str]]:
    """Yield the inputs that tell the actions where the manifest is."""
    below = directory.relative_to(repository.top.resolve())
    if below != Path():
        yield "working-directory", below.as_posix()
    if file.name != options.DEFAULT_FILE:
        yield "file", file.name


def _shown(path: Path) -> Path:
    """Return a path as seen from here, where that is shorter."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _write(path: Path, text: str) -> bool:
    """Write a new file. Return False if there is one. Raises PolarIacError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise PolarIacError(f"cannot write {path}: {error.strerror}") from error
    return True


def _imports(*, quiet: bool) -> Iterator[str]:
    """Yield how to go on with meters that exist already, in each environment whose own token is there."""
    for environment in SERVERS:
        if not os.environ.get(variable("POLAR_ACCESS_TOKEN", environment), "").strip():
            continue
        try:
            count = _unowned(environment, quiet=quiet)
        except PolarIacError as error:
            yield f"The meters of {environment} could not be counted: {error}"
            continue
        if count:
            meters = "1 meter" if count == 1 else f"{count:,} meters"
            yield (
                f"The organization of {environment} has {meters} without an owner: "
                f"`polar-iac import -e {environment} --all`."
            )


def _unowned(environment: str, *, quiet: bool) -> int:
    """Count the active meters of an environment that no manifest owns."""
    with (
        Progress("reading", quiet) as progress,
        connect(
            environment,
            environment,
            os.environ,
            None,
            _no_database,
            clock=SystemClock(),
            on_wait=progress.wait,
            on_retry=progress.retry,
        ) as client,
    ):
        meters = client.list_meters(progress.reach)
    return sum(meter.marker is None and not meter.archived for meter in meters)


def _no_database() -> NoReturn:
    raise AssertionError("only `local` has a database")
