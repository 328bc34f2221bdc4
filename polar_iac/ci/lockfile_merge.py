"""Merge of lockfiles, three ways and key by key: theirs, plus what we changed since the base. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from polar_iac.errors import PolarIacError
from polar_iac.report.wording import agree, listed
from polar_iac.state.lockfile import Lockfile

_LISTED = 10
_Value = TypeVar("_Value")


class MergeConflictError(PolarIacError):
    """Two sides changed one thing in two ways. The message names it."""


def merge(base: Lockfile, theirs: Lockfile, ours: Lockfile) -> Lockfile:
    """Return `theirs` with what changed from `base` to `ours`. Raises MergeConflictError.

    A key is one thing: whoever changed one record in two ways must look at it. What both sides changed in the
    same way is no conflict. All three must be of one environment and project, as `lockfile.loads` sees to.
    """
    if theirs.project != ours.project or theirs.environment != ours.environment:
        raise MergeConflictError(
            f"one lockfile is of {theirs.project} in {theirs.environment}, the other of {ours.project} in "
            f"{ours.environment}"
        )
    conflicts: list[str] = []
    meters = _merged(base.meters, theirs.meters, ours.meters, conflicts)
    if conflicts:
        keys = [f"`{key}`" for key in conflicts]
        meters_ = agree(len(keys), "meter", "meters")
        raise MergeConflictError(f"another run changed the same {meters_} in it: {listed(keys, _LISTED)}")
    _check_ids(meters, theirs)
    organization = _one("organization_id", base.organization_id, theirs.organization_id, ours.organization_id)
    extra = _merged(base.extra, theirs.extra, ours.extra, conflicts)
    if conflicts:
        raise MergeConflictError(f"another run changed {listed(conflicts, _LISTED)} in it, too")
    return replace(theirs, organization_id=organization, meters=meters, extra=extra)


def _merged(
    base: Mapping[str, _Value], theirs: Mapping[str, _Value], ours: Mapping[str, _Value], conflicts: list[str]
) -> dict[str, _Value]:
    """Merge maps key by key, and add the keys that both sides changed differently to `conflicts`."""
    merged = {}
    for key in sorted({*theirs, *ours}):
        was, there, here = base.get(key), theirs.get(key), ours.get(key)
        if here not in (was, there) and there != was:
            conflicts.append(key)
        value = there if here == was else here
        if value is not None:
            merged[key] = value
    return merged


def _one(name: str, base: Any, theirs: Any, ours: Any) -> Any:
    if ours not in (base, theirs) and theirs != base:
        raise MergeConflictError(f"another run recorded another {name} in it: {theirs}, and not {ours}")
    return theirs if ours == base else ours


def _check_ids(meters: Mapping[str, Any], theirs: Lockfile) -> None:
    """Raise MergeConflictError if two keys record one meter. Example: two sides renamed one key."""
    keys: dict[str, str] = {}
    for key, record in meters.items():
        other = keys.setdefault(record.id, key)
        if other != key:
            here, there = (other, key) if key in theirs.meters else (key, other)
            raise MergeConflictError(
                f"another run recorded the meter {record.id} under `{there}`, and this one under `{here}`"
            )
