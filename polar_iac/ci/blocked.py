"""Blocked meters of a pull request: those whose blocks it changes, and those that were blocked before it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set

from polar_iac.errors import PolarIacError
from polar_iac.manifest import read as manifest
from polar_iac.manifest.model import Manifest
from polar_iac.plan.model import Plan
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
    """Return what a manifest says of a key: its block, and its entries of `import` and `removed`."""
    meter = document.meters.get(key)
    imports = [sorted(entry.ids.items()) for entry in document.imports if entry.key == key]
    is_removed = any(entry.key == key for entry in document.removed)
    block = meter and (meter.spec, meter.ignore_changes, meter.environments)
    return block, sorted(imports), is_removed


def base_manifest(text: bytes | None, name: str) -> Manifest | None:
    """Read the manifest at the merge base; None if there was none, or none that could be read."""
    try:
        return None if text is None else manifest.load(text, name)
    except PolarIacError:
        return None


def keys_markdown(keys: Set[str]) -> str:
    """Return keys as Markdown, at most 20 of them."""
    # A key of a lockfile is somebody's text: nothing in it ends the code span or the line.
    return listed([f"`{re.sub('[^A-Za-z0-9_-]', '?', key)}`" for key in sorted(keys)], _LISTED)
