"""Probe: ask Polar which meters are frozen, and record it. Changes no meter."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from polar_iac.clock import StoppedError
from polar_iac.meter.live import LiveMeter, instant
from polar_iac.meter.record import Record
from polar_iac.plan.model import Cause, Plan
from polar_iac.polar.errors import ApiError

if TYPE_CHECKING:
    from polar_iac.apply.session import ApplySession, LiveMeters
    from polar_iac.polar.client import PolarClient

_UNCLEAR: frozenset[Cause] = frozenset({"mismatch", "duplicates", "unknown-id", "import"})
"""Causes for which it is not certain which meter a key means."""


@dataclass(frozen=True)
class Subject:
    """A declared meter that is recorded, and so is asked about.

    `recorded_as` is the key of its record: the former one, while a `moved` waits for an apply.
    """

    key: str
    recorded_as: str
    record: Record
    meter: LiveMeter


@dataclass(frozen=True)
class Left:
    """A declared meter that is recorded, and is not asked about for a `reason`."""

    key: str
    id: str
    reason: str


@dataclass(frozen=True)
class Probed:
    """Answer about one meter, `as_of` this time (RFC 3339). `was_frozen` is what its record said before."""

    key: str
    id: str
    name: str
    frozen: bool
    was_frozen: bool
    as_of: str


@dataclass(frozen=True)
class Refused:
    """An answer that is none of the two known ones, or none at all. Nothing was asked after it."""

    key: str
    id: str
    error: str


def subjects_of(
    plan: Plan,
    declared: Collection[str],
    recorded: Mapping[str, Record],
    live: LiveMeters,
    keys: Collection[str],
) -> tuple[list[Subject], list[Left]]:
    """Return the meters to ask about, and those that are left out, in key order.

    `keys` are those that the command line names; none of them means all that are `declared`.
    """
    by_id = {meter.id: meter for meter in live.meters}
    former = {entry.key: entry.was for entry in plan.bookkeeping if entry.was}
    unclear = {change.key: change.reason or "" for change in plan.changes if change.cause in _UNCLEAR}
    subjects, left = [], []
    for key in sorted(set(keys or declared) & set(declared)):
        recorded_as = key if key in recorded else former.get(key, key)
        if (record := recorded.get(recorded_as)) is None:
            continue
        meter = by_id.get(record.id)
        if key in unclear or meter is None:
            left.append(Left(key, record.id, unclear.get(key, "Polar does not list this id.")))
        else:
            subjects.append(Subject(key, recorded_as, record, meter))
    return subjects, left


def probe_meters(
    session: ApplySession, subjects: Sequence[Subject], client: PolarClient
) -> Iterator[Probed | Refused]:
    """Ask about one meter after the other, and write the lockfile. Ends early with the first `Refused`.

    When an answer is yielded, what is new in it is already in the journal. A record that says `frozen` keeps
    it: nothing is known to end that. A requested stop ends the questions, and everything learned is kept.
    Raises PolarIacError when journal or lockfile cannot be written.
    """
    for subject in subjects:
        meter = subject.meter
        try:
            frozen = client.is_frozen(meter)
        except StoppedError:
            break
        except ApiError as error:
            yield Refused(subject.key, meter.id, str(error))
            break
        if frozen and not subject.record.frozen:
            session.state.record(subject.recorded_as, replace(subject.record, frozen=True))
        as_of = instant(client.now())
        yield Probed(subject.key, meter.id, meter.name, frozen, subject.record.frozen, as_of)
    session.state.finish(session.path, client.now())
