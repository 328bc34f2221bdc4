"""Inputs of a plan and of an apply: the manifest, and the lockfile of the environment."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polar_iac.cli.options import STANDARD_INPUT
from polar_iac.files import refuse_tracked_state
from polar_iac.manifest import read as manifest
from polar_iac.manifest.model import Manifest
from polar_iac.yaml.messages import MAX_BYTES
from polar_iac.yaml.scalars import nearest

if TYPE_CHECKING:
    from polar_iac.state.lockfile import Lockfile


_INPUT_STANDS_FOR = Path("meters.yaml")
"""The manifest whose lockfile goes with standard input."""


@dataclass(frozen=True)
class Selection:
    """Files, environment and meters, as chosen on the command line or by a saved plan."""

    file: Path
    environment: str | None
    lockfile_path: Path | None
    targets: tuple[str, ...]
    allow_archive: bool
    targets_may_be_gone: bool = False
    """The targets of a saved plan may be gone by now. That makes the plan stale: it is not a usage error."""


@dataclass(frozen=True)
class Inputs:
    """The manifest and the lockfile of a run, as read from disk."""

    manifest: Manifest
    lockfile: Lockfile
    lockfile_path: Path
    others: Mapping[str, str]
    """Organizations of other environments, with their names, where the manifest defines one of the two."""


def manifest_name(file: Path) -> str:
    """Return how messages name a manifest."""
    return "<stdin>" if file == STANDARD_INPUT else str(file)


def read_manifest(file: Path) -> Manifest:
    """Read a manifest, `-` from standard input. Raises what `manifest.read.read` raises."""
    if file == STANDARD_INPUT:
        return manifest.load(_standard_input(), manifest_name(file))
    return manifest.read(file)


@functools.cache
def _standard_input() -> bytes:
    """Read standard input: once, because several environments may be planned."""
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def read_inputs(selection: Selection) -> Inputs:
    """Read the manifest and the lockfile of the chosen environment.

    Raises click.UsageError when no environment is chosen, or when a target is unknown.
    """
    _environment(selection)
    return inputs_for(selection, read_manifest(selection.file))


def inputs_for(selection: Selection, desired: Manifest) -> Inputs:
    """Read the lockfile of the chosen environment, for a manifest that is read already.

    Raises the same as `read_inputs`.
    """
    # Here, so that `plan --help` does not wait for pydantic, through which lockfiles are read.
    from polar_iac.state import lockfile

    environment = _environment(selection)
    check_environment(environment, desired)
    beside = _INPUT_STANDS_FOR if selection.file == STANDARD_INPUT else selection.file
    path = selection.lockfile_path or lockfile.default_path(beside, environment)
    refuse_tracked_state(path)
    recorded = lockfile.read(path, environment, desired.project)
    if not selection.targets_may_be_gone:
        _check_targets(selection.targets, desired, recorded)
    return Inputs(desired, recorded, path, lockfile.other_organizations(desired, environment, beside))


def _environment(selection: Selection) -> str:
    if selection.environment is None:
        raise click.UsageError(
            "choose an environment: -e local, -e sandbox or -e production (or POLAR_ENVIRONMENT)"
        )
    return selection.environment


def check_environment(name: str, manifest_: Manifest) -> None:
    """Raise click.UsageError for an environment that does not exist."""
    if name not in manifest_.environments:
        guess = nearest(name, manifest_.environments)
        hint = (
            f"did you mean {guess}?"
            if guess
            else "define it under `environments`, at the top of the manifest"
        )
        raise click.UsageError(f"{name} is none of {', '.join(manifest_.environments)}: {hint}")


def _check_targets(targets: tuple[str, ...], desired: Manifest, recorded: Lockfile) -> None:
    keys = desired.meters.keys() | recorded.meters.keys()
    renamed = {move.source: move.target for move in desired.moved}
    for key in targets:
        if key in renamed:
            raise click.UsageError(
                f"--target {key}: this key was moved to {renamed[key]}: use --target {renamed[key]}"
            )
        if key not in keys:
            guess = nearest(key, tuple(sorted(keys)))
            hint = f": did you mean {guess}?" if guess else ""
            raise click.UsageError(
                f"--target {key}: neither the manifest nor the lockfile has this key{hint}"
            )
