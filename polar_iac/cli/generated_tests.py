"""Tests that are generated, written into a file of tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from polar_iac.cli.manifest_file import read_source, write_source
from polar_iac.cli.options import Options
from polar_iac.cli.output import print_message
from polar_iac.errors import ExitCode, PolarIacError
from polar_iac.manifest.model import Manifest
from polar_iac.report.coverage import part_text
from polar_iac.report.wording import listed, quantity
from polar_iac.testing.generate import appended, generate, text_of
from polar_iac.testing.model import Json, Reading
from polar_iac.testing.read import load


def write_generated(
    keys: Sequence[str], files: Sequence[Path], manifest: Manifest, common: Options
) -> ExitCode:
    """Append tests of meters to a file of tests, which is made if there is none.

    Raises DiagnosticError when the file has errors, or cannot be edited.
    """
    if len(files) > 1:
        raise click.UsageError("--generate writes one file: name one FILE, or none")
    path = files[0] if files else common.file.with_suffix(".test.yaml")
    source = read_source(path) or b""
    there = load(source, str(path), manifest) if source.strip() else Reading(())
    if there.has_defaults:
        raise PolarIacError(f"{path} has `defaults`, which would change what is generated: name another FILE")
    names = {test.name for test in there.tests}
    tests: list[Json] = []
    left: list[str] = []
    for key in dict.fromkeys(keys):
        generated = generate(key, manifest.meters[key].spec, names)
        if not generated.tests:
            raise PolarIacError(f"{key} counts no event at all: there is nothing to test")
        tests += generated.tests
        left += [f"{key}: {part_text(part.data)}" for part in generated.left]
    edited = appended(source, str(path), tests) if source.strip() else text_of(tests).encode()
    load(edited, str(path), manifest)  # what is written can be read
    write_source(path, source or None, edited)
    wrote = f"Wrote {quantity(len(tests), 'test')} to {path}."
    common.say(f"{wrote} They expect what the meters do today: check each one.")
    if left:
        print_message(f"No event was found for some change of {listed(left)}: write a test of your own.")
    return ExitCode.OK
