"""The command `test`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from polar_iac.ci.host import host_for
from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.error_report import report_error
from polar_iac.cli.generated_tests import write_generated
from polar_iac.cli.inputs import read_manifest
from polar_iac.cli.output import print_error, print_message, print_result, sanitize
from polar_iac.cli.terminal import columns
from polar_iac.cli.tests import files_beside, read_all, run_tests
from polar_iac.errors import ExitCode, PolarIacError
from polar_iac.manifest.model import Manifest
from polar_iac.report.coverage import coverage_json, coverage_text, percent_text
from polar_iac.report.formats import check_replaceable, report_file, write_rendered
from polar_iac.report.testing import results_json, results_text, warnings_text
from polar_iac.report.wording import WIDTH
from polar_iac.testing.coverage import Coverage, cover
from polar_iac.testing.model import MeterTest, Result
from polar_iac.yaml.scalars import nearest

FORMATS = ("text", "json")


@command
@click.argument("files", type=options.File(), nargs=-1, metavar="[FILE...]")
@click.option("--meter", "meters", metavar="KEY", multiple=True, help="Only tests of this meter, repeatable.")
@click.option("-k", "text", metavar="TEXT", help="Only tests whose name contains this text.")
@click.option("--coverage", is_flag=True, help="Also show the clauses and aggregations that no test holds.")
@click.option(
    "--fail-under",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Exit 3 if tests hold a smaller share of them; implies --coverage.",
)
@click.option(
    "--generate", "generated", metavar="KEY", multiple=True, help="Write tests of this meter, repeatable."
)
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option(
    "--report",
    "reports",
    metavar="FORMAT=FILE",
    multiple=True,
    help="Also write the results to a file in this format, repeatable.",
)
def test(
    common: options.Options,
    files: tuple[Path, ...],
    meters: tuple[str, ...],
    text: str | None,
    coverage: bool,
    fail_under: float | None,
    generated: tuple[str, ...],
    format_: str,
    reports: tuple[str, ...],
) -> ExitCode:
    """Run tests of meters, offline: events, and what they must count.

    Each FILE is read; without any, every *.test.yaml beside the manifest.
    """
    check_reports(reports)
    manifest = read_manifest(common.source)
    check_keys("--meter", meters, manifest)
    if generated:
        check_keys("--generate", generated, manifest)
        return write_generated(generated, files, manifest, common)
    chosen = Choice(meters, text)
    found = read_all(list(dict.fromkeys(files)) or files_beside(common.source), manifest)
    if found is None:
        raise PolarIacError(f"there is no *.test.yaml beside {common.source}: write one (docs/testing.md)")
    print_error(sanitize(warnings_text(found.warnings), host_for(os.environ)))
    for problem in found.problems:
        report_error(problem, debug=common.debug)
    if found.problems:
        return ExitCode.ERROR
    tests = [test for test in found.tests if chosen.includes(test)]
    if not tests:
        raise PolarIacError(chosen.nothing())
    results = run_tests(tests, manifest)
    measured = None
    if coverage or fail_under is not None:
        measured = cover(manifest, meters or manifest.meters, tests)
    _output(results, measured, manifest, format_, reports)
    failed = not all(result.passed for result in results)
    if measured and fail_under is not None and measured.percent < fail_under:
        print_message(f"Tests must hold {percent_text(fail_under)} of them (--fail-under).")
        failed = True
    return ExitCode.CHECK_FAILED if failed else ExitCode.OK


def _output(
    results: Sequence[Result],
    coverage: Coverage | None,
    manifest: Manifest,
    format_: str,
    reports: Sequence[str],
) -> None:
    """Print results in a format, write the report files, and publish them where the run is in CI."""

    def text(width: int) -> str:
        return results_text(results, manifest, width) + (coverage_text(coverage) if coverage else "")

    def data(_width: int) -> str:
        return results_json(results, coverage_json(coverage) if coverage else None)

    renderers: Mapping[str, Callable[[int], str]] = {"text": text, "json": data}
    write_rendered(reports, lambda name: renderers[name](WIDTH))
    print_result(renderers[format_](columns(sys.stdout)))
    print_error(host_for(os.environ).publish_tests(results, coverage))


@dataclass(frozen=True)
class Choice:
    """The tests that the command line chooses."""

    meters: Sequence[str] = ()
    text: str | None = None

    def includes(self, test: MeterTest) -> bool:
        return (not self.meters or test.meter in self.meters) and (self.text or "") in test.name

    def nothing(self) -> str:
        """Return what to say where no test is chosen: a slip must not look like a success."""
        of = f" of {', '.join(self.meters)}" if self.meters else ""
        named = f" with {self.text!r} in its name" if self.text else ""
        return f"there is no test{of}{named}: nothing was tested"


def check_reports(reports: Sequence[str]) -> None:
    """Raise an error for a report that cannot be written, before anything is read."""
    for report in reports:
        format_, file = report_file(report)
        if format_ not in FORMATS:
            raise click.UsageError(f"--report {report}: tests are written as {' or '.join(FORMATS)}")
        check_replaceable(file)


def check_keys(option: str, keys: Sequence[str], manifest: Manifest) -> None:
    """Raise click.UsageError for a key that the manifest does not have."""
    for key in keys:
        if key not in manifest.meters:
            guess = nearest(key, tuple(manifest.meters))
            hint = f": did you mean {guess}?" if guess else ""
            raise click.UsageError(f"{option} {key}: the manifest has no such meter{hint}")
