"""Output of `validate` for scripts and for GitHub."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from polar_iac.ci.annotations import Annotation, diagnostic_annotations, error_annotation
from polar_iac.ci.github import workflow_commands, working_directory
from polar_iac.cli.error_report import error_message
from polar_iac.cli.inputs import manifest_name
from polar_iac.cli.output import print_result
from polar_iac.errors import Diagnostic

if TYPE_CHECKING:
    from polar_iac.cli.validate import Checked


def print_findings(checked: Sequence[Checked], format_: str) -> None:
    """Print the findings of manifests to stdout: as one JSON object, or as commands for GitHub's runner."""
    if format_ == "json":
        print_result(json.dumps(findings_json(checked), indent=2, ensure_ascii=False) + "\n")
    else:  # Not through the sanitizer, for which these would be commands that someone smuggled in.
        click.echo(workflow_commands(_annotations(checked), working_directory(os.environ)), nl=False)


def findings_json(checked: Sequence[Checked]) -> dict[str, Any]:
    """Return the findings as JSON data. See docs/formats.md."""
    findings = [_finding(diagnostic) for result in checked for diagnostic in result.found]
    findings += [
        {
            "severity": "error",
            "code": None,
            "name": None,
            "message": error_message(result.error),
            "source": None,
        }
        for result in checked
        if result.error and not result.found
    ]
    return {
        "format_version": 1,
        "errors": sum(result.count("error") for result in checked),
        "warnings": sum(result.count("warning") for result in checked),
        "infos": sum(result.count("info") for result in checked),
        "files": [
            {
                "file": manifest_name(result.file),
                "meters": len(result.manifest.meters) if result.manifest else None,
            }
            for result in checked
        ],
        "findings": findings,
    }


def _finding(diagnostic: Diagnostic) -> dict[str, Any]:
    code, _, name = diagnostic.rule.partition(" ")
    return {
        "severity": diagnostic.severity,
        "code": code or None,
        "name": name or None,
        "message": diagnostic.message,
        "source": diagnostic.span.json,
    }


def _annotations(checked: Sequence[Checked]) -> list[Annotation]:
    placed = diagnostic_annotations([diagnostic for result in checked for diagnostic in result.found])
    unplaced = [
        error_annotation(error_message(result.error))
        for result in checked
        if result.error and not result.found
    ]
    return [*placed, *unplaced]
