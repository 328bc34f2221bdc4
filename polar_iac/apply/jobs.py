"""Jobs of an apply: the work for each key, and the order of their events."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from polar_iac.apply.events import Event, Failed, Skipped, stamped
from polar_iac.apply.live import LOOKUP_TIMEOUT
from polar_iac.apply.resume import RESEND_AFTER
from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.meter.fields import FROZEN_FIELDS, FieldPath
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.record import Record
from polar_iac.plan.model import Bookkeeping, Change, Plan
from polar_iac.plan.same_events import as_counted
from polar_iac.polar.errors import InvalidRequestError
from polar_iac.polar.refusals import problems_of


@dataclass(frozen=True)
class Limits:
    """Limits of an apply, in seconds except for `parallelism`.

    `lookup_timeout` is how long to look for data that a read replica may not show yet. `resend_after` is how
    long a create without an answer may still take effect; it is not sent again before that.
    """

    parallelism: int = 4
    lookup_timeout: float = LOOKUP_TIMEOUT
    resend_after: float = RESEND_AFTER


@dataclass(frozen=True, eq=False)
class Job:
    """All the work for one key, or for one duplicate of it. `base` is its record at the start of the run."""

    key: str
    change: Change | None
    bookkeeping: Sequence[Bookkeeping] = ()
    desired: DesiredMeter | None = None
    base: Record | None = None

    @property
    def action(self) -> str:
        return self.change.action if self.change else self.bookkeeping[0].action

    @property
    def id(self) -> str:
        """Meter id; empty for a create."""
        return (self.change.id if self.change else self.bookkeeping[0].id) or ""

    @property
    def was(self) -> str | None:
        """Former key of a moved meter."""
        return next((b.was for b in self.bookkeeping if b.was), None)

    @property
    def is_urgent(self) -> bool:
        """Tell whether the job changes filter or aggregation of a meter that exists.

        Billing runs every quarter of an hour, and freezes both from then on (read).
        """
        fields = self.change.fields if self.change and self.change.action != "create" else ()
        return any(field.path in FROZEN_FIELDS for field in fields)


def in_sending_order(jobs: Iterable[Job]) -> deque[Job]:
    """Return the jobs in the order in which they begin: the urgent ones first, and else as they are."""
    return deque(sorted(jobs, key=lambda job: not job.is_urgent))


def may_begin(job: Job, running: Iterable[Job]) -> bool:
    """Tell whether a job may begin: nothing else does while one that is urgent has no answer yet.

    Example: an urgent job reads the meter first. A create that began meanwhile would be sent before it.
    """
    return job.is_urgent or not any(other.is_urgent for other in running)


def settle_jobs(plan: Plan) -> list[Job]:
    """Return one job for each duplicate that the plan settles."""
    return [Job(change.key, change) for change in plan.changes if change.action == "settle"]


def key_jobs(
    plan: Plan, manifest: Manifest, records: Mapping[str, Record], live: Sequence[LiveMeter]
) -> list[Job]:
    """Return one job for each key with something to do, in key order."""
    by_id = {meter.id: meter for meter in live}
    changes = {c.key: c for c in plan.changes if c.action not in ("blocked", "settle")}
    bookkeeping: dict[str, list[Bookkeeping]] = defaultdict(list)
    for entry in plan.bookkeeping:
        bookkeeping[entry.key].append(entry)
    jobs = []
    for key in sorted({*changes, *bookkeeping}):
        # A moved meter is still recorded under its former key.
        keys = [key, *(entry.was for entry in bookkeeping[key] if entry.was)]
        base = next((records[name] for name in keys if name in records), None)
        job = Job(key, changes.get(key), bookkeeping[key], manifest.meters.get(key), base)
        desired = job.desired and as_counted(job.desired, by_id.get(job.id))
        jobs.append(replace(job, desired=desired))
    return jobs


def blocked_events(plan: Plan, manifest: Manifest) -> Iterator[Skipped]:
    """Yield an event for each blocked change."""
    yield from (_blocked_event(c, manifest) for c in plan.changes if c.action == "blocked")


def _blocked_event(change: Change, manifest: Manifest) -> Skipped:
    """Return the event of a blocked change, with a diagnostic at its first field if the key is declared."""
    reason = change.reason or ""
    key, path = change.key, FieldPath.parse(change.fields[0].path).steps if change.fields else ()
    if key in manifest.elsewhere:
        key, path = manifest.elsewhere[key].key, ("environments",)
    elif key not in manifest.meters:
        return Skipped(change.key, change.action, reason, id=change.id or "")
    message = f"`{change.key}` is blocked: {reason}"
    if change.cause == "import" and change.source:
        problem = manifest.document.diagnose_span(change.source, message)
    else:
        problem = manifest.diagnose(key, path, message)
    return Skipped(change.key, change.action, reason, (problem,), id=change.id or "")


def failed_with_diagnostics(job: Job, error: InvalidRequestError, manifest: Manifest) -> Failed:
    """Return the event of a refusal, with diagnostics at the lines of the fields that Polar named."""
    if job.desired is None:
        return Failed(job.key, job.action, str(error), status=error.status)
    diagnostics = tuple(
        manifest.diagnose(
            job.key,
            # The request says `is_archived`, and the manifest `archived`.
            ("archived",) if path == ("is_archived",) else path,
            f"Polar refused `{job.key}`: {message}",
        )
        for path, message in problems_of(error.detail).items()
    )
    return Failed(job.key, job.action, str(error), diagnostics, status=error.status)


@dataclass
class EventQueue:
    """Events in the order of their jobs: each is ready once all jobs before it have been decided.

    Example: of the jobs a, b and c, the job c ends first. Its event waits for those of a and b.
    """

    jobs: Sequence[Job]
    _decided: dict[int, Event | None] = field(default_factory=dict)
    _next: int = 0

    def __post_init__(self) -> None:
        self._positions = {job: position for position, job in enumerate(self.jobs)}

    def put(self, job: Job, event: Event) -> None:
        self._decided[self._positions[job]] = stamped(event, job.id)

    def postpone(self, job: Job) -> None:
        """Let the jobs after this one go ahead: a later step of the run yields its event."""
        self._decided[self._positions[job]] = None

    def ready(self) -> Iterator[Event]:
        while self._next in self._decided:
            event = self._decided.pop(self._next)
            self._next += 1
            if event is not None:
                yield event

    def rest(self) -> Iterator[Event]:
        """Yield the remaining events when the run ends early."""
        yield from (event for _, event in sorted(self._decided.items()) if event is not None)
