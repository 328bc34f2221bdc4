"""Tests beside a manifest: found, read and run, for the commands `test` and `plan`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polar_iac.ci.host import host_for
from polar_iac.cli.options import STANDARD_INPUT
from polar_iac.cli.output import print_error
from polar_iac.errors import Diagnostic, DiagnosticError, PolarIacError
from polar_iac.manifest.model import Manifest
from polar_iac.plan.model import MeterTests
from polar_iac.report.testing import outcome
from polar_iac.testing.model import MeterTest, Result
from polar_iac.testing.read import read_tests
from polar_iac.testing.run import compiled, run


@dataclass(frozen=True)
class Found:
    """The tests of several files, what is doubtful about them, and what is wrong."""

    tests: Sequence[MeterTest]
    warnings: Sequence[Diagnostic]
    problems: Sequence[PolarIacError]
    """One for the mistakes of all files, and one for each file that cannot be read."""


def files_beside(source: Path) -> list[Path]:
    """Return the files of tests beside a manifest."""
    beside = Path() if source == STANDARD_INPUT else source.parent
    return sorted(beside.glob("*.test.yaml"))


def read_all(paths: Sequence[Path], manifest: Manifest) -> Found | None:
    """Read the tests of all files. None if there are no files."""
    if not paths:
        return None
    tests: list[MeterTest] = []
    warnings: list[Diagnostic] = []
    diagnostics: list[Diagnostic] = []
    others: list[PolarIacError] = []
    for path in paths:
        try:
            reading = read_tests(path, manifest)
        except DiagnosticError as error:
            diagnostics += error.diagnostics
        except PolarIacError as error:
            others.append(error)
        else:
            tests += reading.tests
            warnings += reading.warnings
    problems = [DiagnosticError(diagnostics)] if diagnostics else []
    return Found(tests, warnings, [*problems, *others])


def run_tests(tests: Sequence[MeterTest], manifest: Manifest) -> list[Result]:
    """Run tests, in their order. Each meter is compiled once."""
    specs = {test.meter: manifest.meters[test.meter].spec for test in tests}
    meters = {key: compiled(spec) for key, spec in specs.items()}
    return [run(test, specs[test.meter], meters[test.meter]) for test in tests]


def tested_beside(source: Path, manifest: Manifest) -> MeterTests | None:
    """Run the tests beside a manifest, and publish those that failed. None if there are none."""
    found = read_all(files_beside(source), manifest)
    if found is None:
        return None
    if found.problems:
        return MeterTests(0, 0, sum(len(getattr(problem, "diagnostics", ".")) for problem in found.problems))
    results = run_tests(found.tests, manifest)
    print_error(host_for(os.environ).publish_tests(results, None))
    return outcome(results) if results else None
