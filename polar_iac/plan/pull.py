"""What someone changed at Polar, written into the manifest's text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from polar_iac.errors import DiagnosticError
from polar_iac.manifest import read
from polar_iac.manifest.model import Manifest
from polar_iac.manifest.revise import revised
from polar_iac.meter.record import Record
from polar_iac.plan.model import Plan
from polar_iac.plan.outside import OutsideChange, outside_changes


@dataclass(frozen=True)
class Pulled:
    """The edited text, with `count` changes taken.

    `left` are the changes that are left alone, and `errors` say which ones cannot be written.
    """

    text: bytes
    count: int
    left: Sequence[OutsideChange]
    errors: Sequence[DiagnosticError]


def take(
    text: bytes,
    file: str,
    plan_of: Callable[[Manifest], Plan],
    elsewhere: Mapping[str, Mapping[str, Record]],
    named: Collection[str] = (),
) -> Pulled:
    """Edit a manifest until its plan shows no change outside that may be taken.

    `elsewhere` are the records of other environments; of `named` keys everything is taken.
    """
    errors: list[DiagnosticError] = []
    tried = set[tuple[str, str]]()
    edited, count = text, 0
    while True:
        found = [*outside_changes(plan_of(read.load(edited, file)), elsewhere, named)]
        # Again, since the fields of a meter are compared only once it is not declared as archived.
        new = [change for change in found if not change.doubt and (change.key, change.path) not in tried]
        if not new:
            return Pulled(edited, count, [change for change in found if change.doubt], errors)
        tried |= {(change.key, change.path) for change in new}
        for _, changes in groupby(new, key=lambda change: change.key):
            edited, taken, faults = _take(edited, text, file, [*changes])
            count += taken
            errors += faults


def _take(
    text: bytes, original: bytes, file: str, changes: Sequence[OutsideChange]
) -> tuple[bytes, int, Sequence[DiagnosticError]]:
    """Write the changes of one meter. Errors have their positions in the original text."""
    edited, faults = text, list[DiagnosticError]()
    for change in changes:
        try:
            edited = revised(edited, file, change.key, change.steps, change.value)
        except DiagnosticError as error:
            place = read.load(original, file)
            message = f"{change.path} has another value at Polar: {error.diagnostics[0].message}"
            faults.append(DiagnosticError([place.diagnose(change.key, change.steps, message)]))
    try:
        # All at once, since each alone may be wrong. Example: a unit and its label.
        read.load(edited, file)
    except DiagnosticError as error:
        message = f"what Polar has cannot be declared: {error.diagnostics[0].message}"
        place = read.load(original, file)
        return text, 0, [*faults, DiagnosticError([place.diagnose(changes[0].key, (), message)])]
    return edited, len(changes) - len(faults), faults
