"""The command `validate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.error_report import report_error, report_findings
from polar_iac.cli.inputs import manifest_name, read_manifest
from polar_iac.cli.output import print_result
from polar_iac.cli.validate_output import print_findings
from polar_iac.errors import Diagnostic, DiagnosticError, ExitCode, PolarIacError, Severity
from polar_iac.manifest.done import done_entries, has_entries
from polar_iac.manifest.findings import diagnostics
from polar_iac.manifest.model import Manifest
from polar_iac.meter.record import Record


@dataclass(frozen=True)
class Checked:
    """A manifest that was read and linted, or why it could not be read."""

    file: Path
    manifest: Manifest | None
    error: PolarIacError | None
    found: Sequence[Diagnostic]
    """Errors, warnings and infos, by position."""

    def count(self, severity: Severity) -> int:
        """Return how many there are. An error without a position counts as one."""
        if severity == "error" and self.error and not self.found:
            return 1
        return sum(diagnostic.severity == severity for diagnostic in self.found)

    def fails(self, *, strict: bool) -> bool:
        """Tell whether a check fails that minds warnings."""
        strict = strict or (self.manifest is not None and self.manifest.lint.strict)
        return strict and any(diagnostic.severity != "info" for diagnostic in self.found)


@command
@click.argument("files", type=options.File(), nargs=-1, metavar="[FILE...]")
@click.option("--strict", is_flag=True, help="Exit 3 for errors, and for warnings too.")
@click.option(
    "--format", "format_", type=click.Choice(("text", "json", "github")), default="text", show_default=True
)
def validate(common: options.Options, files: tuple[Path, ...], strict: bool, format_: str) -> ExitCode:
    """Check manifests, offline; needs no environment.

    Each FILE and each -f is checked; without any, meters.yaml. `-` is standard input. Warnings name what is
    valid but probably a mistake; -v adds infos. `polar-iac explain RULE` explains one.
    """
    given = common.files if common.file_given or not files else ()
    checked = [_check(file, common) for file in dict.fromkeys((*files, *given))]
    if format_ == "text":
        for result in checked:
            _print(result, common)
        _print_total(checked, common)
    else:
        print_findings(checked, format_)
    if any(result.error and (not strict or not result.found) for result in checked):
        return ExitCode.ERROR
    return ExitCode.CHECK_FAILED if any(result.fails(strict=strict) for result in checked) else ExitCode.OK


def _check(file: Path, common: options.Options) -> Checked:
    try:
        manifest = read_manifest(file)
    except PolarIacError as error:
        return Checked(file, None, error, error.diagnostics if isinstance(error, DiagnosticError) else ())
    return Checked(file, manifest, None, diagnostics(manifest, infos=common.verbose))


def _print(checked: Checked, common: options.Options) -> None:
    """Print the findings of a manifest to stderr, and how it is to stdout."""
    if checked.error or checked.found:
        if checked.error:
            report_error(checked.error, debug=common.debug)
        else:
            report_findings(checked.found)
    if checked.manifest is None or common.quiet:
        return
    count = len(checked.manifest.meters)
    warnings = checked.count("warning")
    state = "fine" if not warnings else f"valid, with {_counted(warnings, 'warning')}"
    name = manifest_name(checked.file)
    print_result(f"{name}: {_counted(count, 'meter')} {'is' if count == 1 else 'are'} {state}.\n")
    if has_entries(checked.manifest) and checked.file != options.STANDARD_INPUT:
        _list_done_entries(checked.file, checked.manifest)


def _print_total(checked: Sequence[Checked], common: options.Options) -> None:
    errors = sum(result.count("error") for result in checked)
    if errors:
        wrong = sum(result.error is not None for result in checked)
        common.say(f"Found {_counted(errors, 'error')} in {_counted(wrong, 'file')}.")


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
