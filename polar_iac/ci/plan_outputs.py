"""Outputs of the action `plan`: what its saved plans mean to the steps and jobs after it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polar_iac.ci.blocked import blocked_keys, changed_keys, keys_markdown
from polar_iac.manifest.model import Manifest
from polar_iac.plan.model import Plan
from polar_iac.report.wording import outcome_line


def differs(plans: Sequence[Plan]) -> bool:
    """Tell whether Polar is not as the manifest says: something would change, or is blocked."""
    return any(plan.changes for plan in plans)


def needed(plans: Sequence[Plan]) -> bool:
    """Tell whether an apply has anything to do, be it only for the lockfile."""
    return any(plan.changes or plan.bookkeeping for plan in plans)


def plan_step_outputs(
    plans: Sequence[Plan], environments: Sequence[str], head: Manifest, base: Manifest | None
) -> Mapping[str, str]:
    """Return the outputs of a step that planned `environments`, of which `plans` could be planned.

    `base` is the manifest at the merge base: a blocked meter counts where the two manifests declare it
    differently, and without a base each one counts. Digest and summary are outputs of `polar-iac plan`.
    """
    keys = blocked_keys(plans)
    changed = changed_keys(keys, base, head)
    planned = {plan.environment for plan in plans}
    return {
        "differs": _flag(differs(plans)),
        "needed": _flag(needed(plans)),
        "refused": _flag(any(plan.refusal for plan in plans)),
        "unplanned": " ".join(name for name in environments if name not in planned),
        "blocked": keys_markdown(changed),
        "blocked_before": keys_markdown(keys - changed),
        "tests": next((outcome_line(p.tests) for p in plans if p.tests and not p.tests.is_good), ""),
    }


def _flag(value: bool) -> str:
    return "true" if value else "false"
