"""Limits that Polar sets to a new meter or a new value. A meter that exists already may break them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from polar_iac.meter.fields import CUSTOM_UNIT, IMPACT
from polar_iac.meter.spec import MeterSpec

MIN_NAME = 3
"""Fewest code points of a name that a POST or a PATCH may have (observed)."""


def broken_limits(spec: MeterSpec, fields: Collection[str] = tuple(IMPACT)) -> Iterator[str]:
    """Yield why a meter cannot become like this, as far as these fields are new.

    A POST checks the unit and its label together, and a PATCH does not (observed): someone who changes the
    unit in the dashboard leaves the label there. Such a meter is managed as it is, and none is made.
    """
    if "name" in fields and len(spec.name) < MIN_NAME:
        yield f"the name must have {MIN_NAME} characters or more"
    if "unit" in fields or "custom_label" in fields:
        if spec.unit == CUSTOM_UNIT and spec.custom_label is None:
            yield "the unit custom needs a custom_label: write what one unit is called"
        elif spec.unit != CUSTOM_UNIT and spec.custom_label is not None:
            yield f"custom_label needs `unit: custom`, but the unit is {spec.unit}: remove one of them"
