"""Saved plans: reads what `plan --out` and `plan --format json` wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polar_iac.errors import PolarIacError
from polar_iac.files import read_file
from polar_iac.plan.model import Plan


def read_plan(path: Path) -> Plan:
    """Read a plan that `plan --out` wrote. Raises PolarIacError when the file does not contain one."""
    plans = read_plans(path).plans
    if len(plans) != 1:
        raise PolarIacError(f"{path}: error: this file holds {len(plans)} plans: save one with `plan --out`")
    return plans[0]


@dataclass(frozen=True)
class SavedPlans:
    """The plans of one file."""

    plans: Sequence[Plan]
    several: bool
    """True if the file is of several environments, although only one may have been planned."""


def read_plans(path: Path) -> SavedPlans:
    """Read the plans that `plan` wrote as JSON. Raises PolarIacError when the file contains none."""
    # Imported here: `apply` without a file reads no plan, and the models take 30 ms to build.
    from polar_iac.plan.read_document import plans_from_document

    try:
        data = json.loads(read_file(path))
    except OSError as error:
        raise PolarIacError(f"{path}: error: cannot read the plan: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PolarIacError(f"{path}: error: not a saved plan: make one with `plan --out`") from error
    try:
        return SavedPlans(plans_from_document(data), several="plans" in data)
    except PolarIacError as error:
        raise PolarIacError(f"{path}: error: {error}") from error
