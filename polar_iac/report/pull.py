"""The outcome of a pull, as text."""

from __future__ import annotations

from collections.abc import Sequence

from polar_iac.plan.outside import OutsideChange
from polar_iac.report.wording import quantity
from polar_iac.sanitize import printable


def left_text(left: Sequence[OutsideChange], command: str) -> str:
    """Return the changes that are left alone, each with its reason. `command` pulls keys that it is given."""
    if not left:
        return ""
    lines = [f"Left alone, {quantity(len(left), 'change')} at Polar:"]
    lines += [f"  {change.key}: {printable(change.path)}: {change.doubt}" for change in left]
    keys = " ".join(dict.fromkeys(change.key for change in left))
    lines.append(f"To take what Polar has: {command} {keys}")
    return "".join(f"{line}\n" for line in lines)
