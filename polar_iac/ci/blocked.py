"""Blocked meters of a pull request: those whose blocks it changes, and those that were blocked before it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Set
from pathlib import Path

from polar_iac.errors import DiagnosticError, PolarIacError
from polar_iac.manifest import read as manifest
from polar_iac.manifest.model import Manifest
from polar_iac.plan.model import Plan
from polar_iac.plan.saved import read_plan
from polar_iac.report.wording import listed

_LISTED = 20


def blocked_keys(plans: Iterable[Plan]) -> set[str]:
    """Return the keys that are blocked in at least one plan."""
    return {change.key for plan in plans for change in plan.changes if change.action == "blocked"}


def changed_keys(keys: Set[str], base: Manifest | None, head: Manifest) -> set[str]:
    """Return those of the keys whose blocks differ between two manifests; all of them without a base.

    What a block means is compared, so that a changed anchor counts and a moved or commented line does not.
    """
    return {key for key in keys if base is None or _meaning(base, key) != _meaning(head, key)}


def _meaning(document: Manifest, key: str) -> object:
    meter = document.meters.get(key)
    return meter and (meter.spec, meter.ignore_changes)


def base_manifest(file: Path) -> Manifest | None:
    """Read the manifest at the merge base; None if there was none, or none that could be read."""
    try:
        return manifest.read(file)
    except (DiagnosticError, PolarIacError):
        return None


def _markdown(keys: Set[str]) -> str:
    # A key of a lockfile is somebody's text: nothing in it ends the code span or the line.
    return listed([f"`{re.sub('[^A-Za-z0-9_-]', '?', key)}`" for key in sorted(keys)], _LISTED)


def main(arguments: list[str]) -> str:
    """Return the outputs of a step. `arguments`: the manifest, the one at the merge base, and saved plans."""
    head_file, base_file, *plan_files = map(Path, arguments)
    keys = blocked_keys(map(read_plan, plan_files))
    changed = changed_keys(keys, base_manifest(base_file), manifest.read(head_file))
    return f"blocked={_markdown(changed)}\nblocked_before={_markdown(keys - changed)}\n"


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]))
