"""Meters that the manifest declares for other environments only."""

from __future__ import annotations

from polar_iac.manifest.model import Manifest
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.index import State
from polar_iac.plan.outcome import Blocked


def elsewhere(
    key: str, meter_id: str, manifest: Manifest, state: State, after: MeterSpec | None = None
) -> Blocked:
    """Return why a meter is left alone that is still active here. `after` is the spec if it were archived."""
    declared, environment = manifest.elsewhere[key], state.environment
    now = "" if key == declared.key else f", now `{declared.key}`,"
    names = declared.environments or ()
    only = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    return Blocked(
        "elsewhere",
        f"`{key}`{now} is declared for {only} only, but {meter_id} is still active in {environment}. Archive "
        f"it once with --allow-archive -e {environment}, or add {environment} to its `environments`.",
        after,
    )
