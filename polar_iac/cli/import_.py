"""The command `import`."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import click

from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.inputs import Inputs, Selection, inputs_for
from polar_iac.cli.manifest_file import command_line, read_source, write_source
from polar_iac.cli.output import print_result
from polar_iac.cli.session import open_reader
from polar_iac.cli.terminal import Progress
from polar_iac.clock import SystemClock
from polar_iac.errors import ExitCode, RefusedError
from polar_iac.manifest import read as manifest
from polar_iac.manifest.adopt import Adoption, Surroundings, adopt, new_manifest, with_imports
from polar_iac.manifest.keys import slug
from polar_iac.manifest.model import Manifest
from polar_iac.meter.live import LiveMeter
from polar_iac.report.adoption import adoption_text, quoted_names, unowned_text
from polar_iac.report.edits import edits_text
from polar_iac.report.wording import agree, quantity
from polar_iac.yaml.scalars import nearest

USAGE_DAYS = 30
"""Days over which --usage adds up."""


@command
@click.argument("meters", nargs=-1, metavar="[METER...]")
@options.environment
@options.lockfile
@click.option("--all", "everything", is_flag=True, help="Import every active meter that no manifest owns.")
@click.option("--key", metavar="KEY", help="The key of the one METER, instead of one made of its name.")
@click.option("--project", metavar="NAME", help="Project of a new manifest, else the repository's name.")
@click.option("--usage", is_flag=True, help="List the usage of the last 30 days too: one request each.")
@options.dry_run
@options.connection
def import_(
    common: options.Options,
    meters: tuple[str, ...],
    environment: str | None,
    lockfile_path: Path | None,
    everything: bool,
    key: str | None,
    project: str | None,
    usage: bool,
    dry_run: bool,
    connection: options.Connection,
) -> ExitCode:
    """List meters that no manifest owns, or declare them.

    METER is an id or a name. What is named, or with --all everything, is written into the manifest. Nothing
    is changed at Polar: `apply` takes over what the manifest imports.
    """
    chooses = bool(meters or everything)
    _check_options(meters, everything=everything, key=key, usage=usage)
    source = read_source(common.file)
    selection = Selection(common.file, environment, lockfile_path, (), allow_archive=False)
    inputs = inputs_for(selection, _desired(common.file, source, project))
    with (
        Progress("reading", common.quiet) as progress,
        open_reader(inputs, selection, connection, SystemClock(), progress) as (_, live, client),
    ):
        around = _around(inputs, live.meters)
        counted = around.unowned if usage else []
        quantities = {meter.id: client.quantity(meter.id, USAGE_DAYS) for meter in counted}
    again, plan = (
        command_line(name, around.environment, common.file, lockfile_path) for name in ("import", "plan")
    )
    if not chooses:
        _list(common, around, quantities, again)
        return ExitCode.OK
    adoption = adopt(around, _chosen(around, meters, everything=everything), _checked(key, around))
    if not adoption.imported:
        common.say("Nothing is imported.")
    else:
        text = with_imports(source, inputs.manifest, around.environment, adoption)
        if dry_run:
            print_result(edits_text(source or b"", text, str(common.file)))
        else:
            write_source(common.file, source, text)
    print_result(adoption_text(adoption, again, "Would import" if dry_run else "Imported"))
    if adoption.imported and not dry_run:
        these = agree(len(adoption.imported), "it", "them")
        common.say(f"Next: `{plan}`. An apply takes {these} over.")
    return ExitCode.ERROR if meters and _leaves_out(adoption) else ExitCode.OK


def _leaves_out(adoption: Adoption) -> bool:
    return bool(adoption.near or adoption.left_out)


def _check_options(meters: Sequence[str], *, everything: bool, key: str | None, usage: bool) -> None:
    if meters and everything:
        raise click.UsageError("--all imports every meter: name some, or write --all")
    if key is not None and len(meters) != 1:
        raise click.UsageError("--key is the key of one meter: name one METER with it")
    if usage and (meters or everything):
        raise click.UsageError("--usage is for the list: leave out METER and --all")


def _desired(file: Path, source: bytes | None, project: str | None) -> Manifest:
    """Return the manifest, or a new one where there is no file."""
    if source is not None:
        desired = manifest.load(source, str(file))
        if project not in (None, desired.project):
            raise click.UsageError(f"--project {project}: {file} is of the project {desired.project} already")
        return desired
    name = project if project is not None else _project_name(file.absolute().parent)
    if not name or slug(name) != name:
        hint = f": write {slug(name)}" if slug(name) else ""
        raise click.UsageError(f"--project takes 1 to 63 of a-z, 0-9, _ and -, got {name!r}{hint}")
    return new_manifest(name)


def _project_name(directory: Path) -> str:
    """Return the name of the git repository around a directory, or else of the directory."""
    command = ["git", "-c", "safe.directory=*", "rev-parse", "--show-toplevel"]
    try:
        found = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)  # noqa: S603
        top = found.stdout.strip() if found.returncode == 0 else ""
    except OSError:
        top = ""
    return slug(Path(top).name) or slug(directory.name)


def _around(inputs: Inputs, live: Sequence[LiveMeter]) -> Surroundings:
    """Return what decides about an import. Raises RefusedError where Polar knows none of the ids."""
    recorded = {key: record.id for key, record in inputs.lockfile.meters.items()}
    around = Surroundings(inputs.manifest, inputs.lockfile.environment, recorded, live)
    if around.is_elsewhere:
        raise RefusedError(
            f"Polar knows none of the ids that `import` and the lockfile have for {around.environment}. The "
            "token is probably of another organization or environment; otherwise correct the entries, or "
            "remove them."
        )
    return around


def _list(
    common: options.Options, around: Surroundings, quantities: dict[str, float | None], again: str
) -> None:
    unowned = around.unowned
    if not unowned:
        common.say(f"No meter of {around.environment} is without an owner.")
        return
    common.say(f"{quantity(len(unowned), 'meter')} of {around.environment} without an owner:")
    print_result(unowned_text(unowned, quantities, USAGE_DAYS))
    common.say(
        f"To write them into {common.file}: `{again} --all`, or `{again} METER…` with ids or names. "
        "Archived ones are imported only when named. Nothing is changed at Polar."
    )


def _chosen(around: Surroundings, named: Sequence[str], *, everything: bool) -> list[LiveMeter]:
    unowned = around.unowned
    if everything:
        return [meter for meter in unowned if not meter.archived]
    chosen = {meter.id: meter for meter in (_found(around, unowned, name) for name in named)}
    return [*chosen.values()]


def _found(around: Surroundings, unowned: Sequence[LiveMeter], name: str) -> LiveMeter:
    """Return the one unowned meter with an id or a name. Raises click.UsageError for none or several."""
    found = [m for m in unowned if m.id == name.lower()] or [m for m in unowned if m.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise click.UsageError(
            f"{len(found)} meters are called {name!r}, so name an id: {quoted_names(found)}"
        )
    for meter in around.live:
        if name.lower() == meter.id or name == meter.name:
            raise click.UsageError(f"{quoted_names([meter])} has an owner: {around.owner(meter)}")
    names = {meter.name.lower(): meter.name for meter in around.live}
    guess = nearest(name, tuple(names))
    hint = f": did you mean {names[guess]!r}?" if guess else ""
    raise click.UsageError(f"{around.environment} has no meter with the id or name {name!r}{hint}")


def _checked(key: str | None, around: Surroundings) -> str | None:
    """Return the key that a person gave. Raises click.UsageError when it cannot be taken."""
    if key is None:
        return None
    if not key or slug(key) != key:
        hint = f": write {slug(key)}" if slug(key) else ""
        raise click.UsageError(f"--key takes 1 to 63 of a-z, 0-9, _ and -, got {key!r}{hint}")
    if key in around.ids:
        raise click.UsageError(f"--key {key}: this key has a meter here already, {around.ids[key]}")
    if key in around.elsewhere:
        raise click.UsageError(
            f"--key {key}: it is declared for other environments only: add {around.environment} to its "
            "`environments`, or choose another one"
        )
    if key in around.gone:
        raise click.UsageError(f"--key {key}: `moved` or `removed` names this key: choose another one")
    return key
