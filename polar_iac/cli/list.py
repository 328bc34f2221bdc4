"""The command `list`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.inputs import check_environment, read_manifest
from polar_iac.cli.output import print_result
from polar_iac.errors import ExitCode, PolarIacError
from polar_iac.meter.record import Record
from polar_iac.report.layout import display_width
from polar_iac.report.wording import listed
from polar_iac.sanitize import printable
from polar_iac.state import lockfile
from polar_iac.yaml.scalars import nearest


@dataclass(frozen=True)
class _Entry:
    """A recorded meter. `state` and `name` are those of the last apply; None for a meter without any."""

    environment: str
    key: str
    id: str
    state: str | None
    frozen: bool
    name: str | None

    @classmethod
    def of(cls, environment: str, key: str, record: Record) -> _Entry:
        spec = record.spec
        if spec is None:
            return cls(environment, key, record.id, None, record.frozen, None)
        state = "archived" if spec.archived else "active"
        return cls(environment, key, record.id, state, record.frozen, spec.name)


@command
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@options.environments_or_all
@options.lockfile
@click.option("--id", "id_only", is_flag=True, help="Print only the id: of one KEY in one environment.")
@click.option("--format", "format_", type=click.Choice(("text", "json")), default="text", show_default=True)
def list_(
    common: options.Options,
    keys: tuple[str, ...],
    environments: tuple[str, ...],
    lockfile_path: Path | None,
    id_only: bool,
    format_: str,
) -> ExitCode:
    """List the meters that the lockfiles record, offline.

    Without -e: those of every environment that has a lockfile. What Polar has now, `plan` shows.
    """
    chosen = tuple(dict.fromkeys(environments))
    if id_only and (len(keys) != 1 or len(chosen) != 1):
        raise click.UsageError("--id prints one id: name one KEY, and one environment with -e")
    if lockfile_path and len(chosen) != 1:
        raise click.UsageError("--lockfile names one file: use it with one environment")
    manifest = read_manifest(common.file)
    project = manifest.project
    entries: list[_Entry] = []
    for environment in chosen or manifest.environments:
        check_environment(environment, manifest)
        path = lockfile_path or lockfile.default_path(common.file, environment)
        recorded = lockfile.read(path, environment, project).meters
        entries += (_Entry.of(environment, key, record) for key, record in sorted(recorded.items()))
    _check_keys(keys, entries, chosen)
    shown = [entry for entry in entries if not keys or entry.key in keys]
    if id_only:
        print_result(f"{shown[0].id}\n")
    elif format_ == "json":
        document = {"format_version": 1, "project": project, "meters": [asdict(entry) for entry in shown]}
        print_result(json.dumps(document, indent=2) + "\n")
    else:
        print_result("".join(f"{line}\n" for line in _lines(shown)))
        if not shown:
            common.say(f"Nothing was applied yet{f' to {listed(chosen)}' if chosen else ''}.")
    return ExitCode.OK


def _check_keys(keys: Sequence[str], entries: Sequence[_Entry], environments: Sequence[str]) -> None:
    """Raise PolarIacError for a key that no lockfile has."""
    known = {entry.key for entry in entries}
    for key in keys:
        if key not in known:
            guess = nearest(key, tuple(sorted(known)))
            hint = f": did you mean {guess}?" if guess else ": `plan` shows if an apply would create it"
            where = f"the lockfile of {listed(environments)}" if environments else "any lockfile"
            raise PolarIacError(f"{key} is not in {where}{hint}")


def _lines(entries: Sequence[_Entry]) -> Iterator[str]:
    """Yield one line for each meter: environment, key, id, state and name."""
    rows = [
        (
            entry.environment,
            printable(entry.key),
            entry.id,
            (entry.state or "never applied") + (", frozen" if entry.frozen else ""),
        )
        for entry in entries
    ]
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    for entry, row in zip(entries, rows, strict=True):
        cells = (cell + " " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=True))
        name = f'"{printable(entry.name)}"' if entry.name is not None else ""
        yield "  ".join((*cells, name)).rstrip()
