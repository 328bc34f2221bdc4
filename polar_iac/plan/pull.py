"""Changes that someone made at Polar, written into the manifest's text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from polar_iac.errors import DiagnosticError
from polar_iac.manifest import read
from polar_iac.manifest.model import Manifest
from polar_iac.manifest.revise import revise
from polar_iac.meter.record import Record
from polar_iac.plan.model import Plan
from polar_iac.plan.outside import OutsideChange, outside_changes
from polar_iac.yaml.edit import Editor


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
        edited, faults = _write(edited, text, file, new)
        count += len(new) - len(faults)
        errors += faults


def _write(
    text: bytes, original: bytes, file: str, changes: Sequence[OutsideChange]
) -> tuple[bytes, Sequence[DiagnosticError]]:
    """Write changes into a text. Return it, and an error for each one that cannot be written.

    All are written at once, as long as that is possible: a large manifest takes seconds to read.
    """
    try:
        return _written(text, file, changes), ()
    except DiagnosticError as error:
        if len(changes) == 1:
            return text, [_fault(original, file, changes[0], error)]
    faults = list[DiagnosticError]()
    # By meter, since each field alone may be wrong: a unit and its label. In a meter, one by one.
    by_meter = [[*group] for _, group in groupby(changes, key=lambda change: change.key)]
    for part in by_meter if len(by_meter) > 1 else [[change] for change in changes]:
        text, found = _write(text, original, file, part)
        faults += found
    return text, faults


def _written(text: bytes, file: str, changes: Sequence[OutsideChange]) -> bytes:
    """Return a text with changes. Raises DiagnosticError when it cannot be written, or would be wrong."""
    for whole in (False, True):
        editor = Editor(text, file)
        for change in changes:
            revise(editor, change.key, change.steps, change.value, whole=whole)
        try:
            edited = editor.finish()
        except DiagnosticError:
            if whole:
                raise
        else:
            break
    read.load(edited, file)
    return edited


def _fault(original: bytes, file: str, change: OutsideChange, error: DiagnosticError) -> DiagnosticError:
    """Return why a change cannot be written, at the place of its value in the original text."""
    message = f"{change.path} has another value at Polar: {error.diagnostics[0].message}"
    return DiagnosticError([read.load(original, file).diagnose(change.key, change.steps, message)])
