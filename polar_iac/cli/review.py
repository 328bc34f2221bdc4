"""Review: an apply carries out exactly the plan that was reviewed, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polar_iac.cli.inputs import Selection
from polar_iac.errors import RefusedError, StalePlanError
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, Plan, differences
from polar_iac.report.stale import stale_text
from polar_iac.report.text import refusal_text

if TYPE_CHECKING:
    from polar_iac.state.lockfile import Lockfile


def selection_of(reviewed: Plan, plan_file: Path, given: Selection, *, file_given: bool) -> Selection:
    """Return the selection that a saved plan was made with.

    `file_given` is True if the command line names the manifest. Raises click.UsageError or RefusedError when
    the command line differs from the saved plan.
    """
    if given.environment not in (None, reviewed.environment):
        raise click.UsageError(
            f"{plan_file} is a plan for {reviewed.environment}, not for {given.environment}"
        )
    if given.targets and set(given.targets) != set(reviewed.targets):
        raise click.UsageError(f"{plan_file} has its own targets: remove --target")
    file, lockfile_path = given.file, given.lockfile_path
    if reviewed.manifest is not None:
        file = Path(reviewed.manifest)
        if file_given and given.file.resolve() != file.resolve():
            raise _other_plan(f"manifest {file}", str(given.file))
    if reviewed.lockfile is not None:
        lockfile_path = Path(reviewed.lockfile)
        if given.lockfile_path and given.lockfile_path.resolve() != lockfile_path.resolve():
            raise _other_plan(f"lockfile {lockfile_path}", str(given.lockfile_path))
    return replace(
        given,
        targets_may_be_gone=True,
        file=file,
        environment=reviewed.environment,
        lockfile_path=lockfile_path,
        targets=reviewed.targets,
        allow_archive=given.allow_archive or reviewed.allow_archive,
    )


def check_project(reviewed: Plan, project: str) -> None:
    """Raise RefusedError when a saved plan is for another project than the manifest's."""
    if reviewed.project != project:
        raise _other_plan(f"project {reviewed.project}", project)


def _other_plan(planned: str, given: str) -> RefusedError:
    return RefusedError(f"the plan is for the {planned}, not for {given}: plan again, or remove the option")


def is_applied(reviewed: Plan, fresh: Plan, recorded: Lockfile, meters: Sequence[LiveMeter]) -> bool:
    """Tell whether a saved plan was carried out already: nothing of it is left, and its meters show it."""
    left = differences(reviewed, fresh)
    specs = {meter.id: meter.spec for meter in meters}
    return (
        bool(left)
        and not (fresh.wanted or fresh.refusal or reviewed.outdated)
        and all(
            difference.fresh is None
            and difference.reviewed is not None
            and _is_carried_out(difference.reviewed, recorded, specs)
            for difference in left
        )
    )


def _is_carried_out(change: Change, recorded: Lockfile, specs: Mapping[str, MeterSpec | None]) -> bool:
    record = recorded.meters.get(change.key)
    meter_id = change.id or (record.id if record else "")  # a create has no id yet
    spec = specs.get(meter_id)
    if change.action == "blocked" or change.after is None or spec is None:
        return False
    return canonical_json(spec.canonical) == canonical_json(change.after.canonical)


def permit(
    plan: Plan, reviewed: Plan | None, *, digest: str | None = None, max_changes: int | None = None
) -> None:
    """Check a plan before any effect.

    Raises StalePlanError when it is not the reviewed one, and RefusedError when it is refused as a whole.
    """
    stale = "the plan is stale, and nothing of it was done. Plan and review again:\n"
    if reviewed and reviewed.outdated:
        raise StalePlanError(
            "the plan was saved by an earlier version of polar-iac, which planned fewer actions: plan again"
        )
    if reviewed and plan.digest != reviewed.digest:
        raise StalePlanError(stale + stale_text(differences(reviewed, plan)))
    if digest and not plan.digest.startswith(digest):
        raise StalePlanError(f"{stale}  the digest is {plan.digest}\n")
    if plan.refusal:
        raise RefusedError(refusal_text(plan))
    if max_changes is not None and plan.wanted > max_changes:
        changes = "1 change" if plan.wanted == 1 else f"{plan.wanted} changes"
        raise RefusedError(
            f"the plan has {changes}, and --max-changes allows {max_changes}: "
            f"allow it with --max-changes {plan.wanted}"
        )
