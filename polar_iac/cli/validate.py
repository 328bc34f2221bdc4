"""The command `validate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.inputs import manifest_name, read_manifest
from polar_iac.cli.output import print_result
from polar_iac.errors import DiagnosticError, ExitCode, PolarIacError
from polar_iac.manifest.done import done_entries, has_entries
from polar_iac.manifest.model import Manifest
from polar_iac.meter.record import Record


@command
@click.argument("files", type=options.File(), nargs=-1, metavar="[FILE...]")
def validate(common: options.Options, files: tuple[Path, ...]) -> ExitCode:
    """Check manifests, offline; needs no environment.

    Each FILE and each -f is checked; without any, meters.yaml. `-` is standard input.
    """
    given = common.files if common.file_given or not files else ()
    errors = [_errors_of(file, common) for file in dict.fromkeys((*files, *given))]
    if not any(errors):
        return ExitCode.OK
    wrong = sum(count > 0 for count in errors)
    common.say(f"Found {_counted(sum(errors), 'error')} in {_counted(wrong, 'file')}.")
    return ExitCode.ERROR


def _errors_of(file: Path, common: options.Options) -> int:
    """Report the errors of a manifest, or that there are none. Return their number."""
    try:
        manifest = read_manifest(file)
    except PolarIacError as error:
        # Here, so that a valid manifest does not wait for the modules of the reports.
        from polar_iac.cli.error_report import report_error

        report_error(error, debug=common.debug)
        return len(error.diagnostics) if isinstance(error, DiagnosticError) else 1
    if not common.quiet:
        count = len(manifest.meters)
        print_result(
            f"{manifest_name(file)}: {_counted(count, 'meter')} {'is' if count == 1 else 'are'} fine.\n"
        )
        if has_entries(manifest) and file != options.STANDARD_INPUT:
            _list_done_entries(file, manifest)
    return 0


def _list_done_entries(file: Path, manifest: Manifest) -> None:
    recorded = _recorded(file, manifest)
    where = ", ".join(recorded)
    for span, done in done_entries(manifest, recorded):
        print_result(f"{span}: note: {done} in every lockfile ({where}), and can go.\n")


def _recorded(file: Path, manifest: Manifest) -> dict[str, Mapping[str, Record]]:
    """Return the records of each lockfile beside a manifest, by environment.

    Nothing where one cannot be read: that is no fault of the manifest, and nothing is known to be done.
    """
    # Here, so that a manifest without such entries does not wait for pydantic.
    from polar_iac.state import lockfile

    recorded: dict[str, Mapping[str, Record]] = {}
    for environment in manifest.environments:
        path = lockfile.default_path(file, environment)
        if path.exists():
            try:
                recorded[environment] = lockfile.read(path, environment, manifest.project).meters
            except PolarIacError:
                return {}
    return recorded


def _counted(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"
