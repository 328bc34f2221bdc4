"""The group `ci`: a command for each step of the GitHub actions, which are thin scripts around them.

Inputs come as variables `INPUT_…`, tokens as variables too. Neither is ever part of a command line.
"""

from __future__ import annotations

import click

from polar_iac.cli.main import LazyGroup

STEPS = {
    "plan": ("polar_iac.cli.ci.plan.plan", "Plan each environment, and say what it means to later steps."),
    "judge": (
        "polar_iac.cli.ci.plan.judge",
        "Fail the check of a plan whose merge, or tests, would fail.",
    ),
    "begin": ("polar_iac.cli.ci.apply.begin", "Check what is to be applied, and say how."),
    "stopped": ("polar_iac.cli.ci.apply.stopped", "Explain why an apply ended, and what was left."),
    "keep": ("polar_iac.cli.ci.apply.keep", "Push the lockfiles that an apply has written."),
    "drift": ("polar_iac.cli.ci.drift.drift", "Look for drift, and for what else is wrong."),
    "issue": ("polar_iac.cli.ci.drift.issue", "Open, update or close the issue about what is wrong."),
}


@click.group(cls=LazyGroup, lazy_subcommands=STEPS, context_settings={"help_option_names": ["-h", "--help"]})
def ci() -> None:
    """Run a step of the GitHub actions."""
