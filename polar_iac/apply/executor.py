"""Plan executor: calls Polar, records each effect before the next step, and yields the results.

Requests run in a thread pool. Only the caller's thread writes the journal and yields events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from polar_iac.apply.creates import Create, Creates, CreateState, Lookup
from polar_iac.apply.duplicates import archive_duplicate, no_duplicates, settle_duplicates
from polar_iac.apply.events import Applied, Event, Failed, Skipped, Unconfirmed, Unknown
from polar_iac.apply.jobs import (
    EventQueue,
    Job,
    Limits,
    blocked_events,
    failed_with_diagnostics,
    in_sending_order,
    key_jobs,
    may_begin,
    settle_jobs,
)
from polar_iac.apply.live import read_live
from polar_iac.apply.marked import active_by_marker, find_marked, key_by_id, record_found
from polar_iac.apply.patches import change_meter, withdraw
from polar_iac.apply.resume import intent_of, time_left
from polar_iac.clock import Clock, Stop, StoppedError, SystemClock
from polar_iac.errors import PolarIacError
from polar_iac.manifest.model import Manifest
from polar_iac.meter.fields import FROZEN_FIELDS
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.marker import OwnershipMarker
from polar_iac.meter.record import Record, record_of
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, Plan
from polar_iac.polar.errors import ApiError, InvalidRequestError, TransientError
from polar_iac.state.journal import Journal
from polar_iac.state.journal_state import Answer, Intent

if TYPE_CHECKING:
    from polar_iac.polar.client import PolarClient

_ABORTING = frozenset({401, 403})
"""Statuses that every later request would also get."""
_FAILURES_IN_A_ROW = 8
"""Number of consecutive changes without a usable answer after which Polar counts as unreachable."""


_Result = LiveMeter | Applied | Failed | Skipped


def execute(
    plan: Plan,
    manifest: Manifest,
    live: Sequence[LiveMeter],
    client: PolarClient,
    journal: Journal,
    *,
    at_start: Mapping[str, Record],
    stop: Stop,
    limits: Limits = Limits(),
    clock: Clock | None = None,
    organization_confirmed: bool = False,
) -> Iterator[Event]:
    """Carry out the plan. A failure of one meter does not stop the others.

    Yields one event per change, in key order, and one per duplicate that this run created and settled. `live`
    is the list that the plan was made from; `at_start` is the lockfile content when the run began. Nothing
    new is started once `stop` is requested. When an event is yielded, its effect is already in the journal.
    Raises PolarIacError when the journal cannot be written, or when the first answer shows that the token
    belongs to another organization than the pinned one.
    """
    yield from blocked_events(plan, manifest)
    run = _Run(
        plan,
        manifest,
        live,
        client,
        journal,
        at_start,
        stop,
        limits,
        clock or SystemClock(stop),
        organization_confirmed or bool(live),
    )
    settles, jobs = settle_jobs(plan), deque(key_jobs(plan, manifest, journal.meters, live))
    yield from run.execute(settles, limits.parallelism)
    while jobs and not run.organization_confirmed:
        # In an empty organization, only an answer shows which organization the token belongs to. Until then,
        # run one create at a time.
        yield from run.execute([jobs.popleft()], parallelism=1)
    yield from run.execute(list(jobs), limits.parallelism)
    yield from run.sweep()


@dataclass
class _Run:
    """State shared by the steps of one run."""

    plan: Plan
    manifest: Manifest
    live: Sequence[LiveMeter]
    client: PolarClient
    journal: Journal
    at_start: Mapping[str, Record]
    stop: Stop
    limits: Limits
    clock: Clock
    organization_confirmed: bool
    """True once a live meter, or one that this run created or found, has shown that the token belongs to the
    pinned organization."""
    abort_reason: str | None = None
    failures_in_a_row: int = 0
    sent_intents: list[tuple[str, Intent]] = field(default_factory=list)
    """Creates that this run sent, with their keys."""
    created: set[str] = field(default_factory=set)
    """Meter ids from the 201 answers of this run."""
    archived: set[str] = field(default_factory=set)
    """Ids of the duplicates that this run settled."""

    def __post_init__(self) -> None:
        self.by_id = {meter.id: meter for meter in self.live}
        self.creates = Creates(
            lambda markers: find_marked(markers, self.client),
            key_by_id(self.journal.meters),
            self.clock,
            self.limits.lookup_timeout,
            self.limits.resend_after,
        )

    @property
    def stopped(self) -> str | None:
        """Reason for starting nothing more, or None."""
        return self.stop.reason or self.abort_reason

    def execute(self, jobs: Sequence[Job], parallelism: int) -> Iterator[Event]:
        """Run the jobs, the urgent ones first, at most `parallelism` at a time.

        Meanwhile, look for lost creates. A stop skips the rest. Events keep the order of the jobs.
        """
        events, waiting = EventQueue(jobs), in_sending_order(jobs)
        running: dict[Future[_Result], Job] = {}
        lookup: Future[Lookup] | None = None
        try:
            # One thread more than `parallelism`, for the lookups.
            with ThreadPoolExecutor(parallelism + 1, thread_name_prefix="polar") as pool:
                while running or lookup or ((waiting or self.creates.lost) and self.stopped is None):
                    while (
                        waiting
                        and len(running) < parallelism
                        and self.stopped is None
                        and may_begin(waiting[0], running.values())
                    ):
                        job = waiting.popleft()
                        if future := self._start(job, pool, events):
                            running[future] = job
                        yield from events.ready()
                    if lookup is None and self.stopped is None and self.creates.lookup_is_due():
                        lookup = pool.submit(self.creates.lookup, self.creates.begin_lookup())
                    for future in self._wait(running, lookup):
                        if future is lookup:
                            self._decide(lookup.result(), waiting, events)
                            lookup = None
                        else:
                            self._finish(running.pop(future), future, events)
                        yield from events.ready()
            for job in [*waiting, *(create.job for create in self.creates.lost)]:
                self._skip(job, events)
            yield from events.ready()
        except Exception:
            yield from events.rest()  # report what was done, even if the run fails
            raise

    def _wait(self, running: Mapping[Future[_Result], Job], lookup: Future[Lookup] | None) -> list[Any]:
        """Return the requests that have ended. Wait for one, or until the next lookup is due."""
        looks_again = self.creates.lost and lookup is None and self.stopped is None
        pause = max(0.0, self.creates.next_lookup - self.clock.now()) if looks_again else None
        futures: list[Future[Any]] = [*running, *([lookup] if lookup else [])]
        if futures:
            return list(wait(futures, timeout=pause, return_when=FIRST_COMPLETED).done)
        if pause:
            with suppress(StoppedError):  # `stopped` holds the reason
                self.clock.sleep(pause)
        return []

    def _start(self, job: Job, pool: ThreadPoolExecutor, events: EventQueue) -> Future[_Result] | None:
        """Start a job. Returns its request, or None when there is none now."""
        if job.change is None:
            events.put(job, self._record(job, job.id))
            return None
        if job.action == "settle":
            return pool.submit(self._settle, job.change)
        if job.action == "create" and job.desired:
            return self._start_create(job, job.desired.spec, pool)
        return pool.submit(change_meter, job, job.change, self.plan.project, self.client)

    def _start_create(self, job: Job, spec: MeterSpec, pool: ThreadPoolExecutor) -> Future[_Result] | None:
        """Send a create. Returns None for one that an earlier run may have sent: it is looked up first."""
        create = self.creates.get(job.key)
        if create is None:
            marker = str(OwnershipMarker(self.plan.project, job.key))
            if earlier := self.journal.unresolved.get(job.key, ()):
                seconds = time_left(earlier, self.client.now(), self.creates.landing_time)
                self.creates.resume(job, marker, len(earlier), seconds)
                return None
            create = self.creates.begin(job, marker)
        self.journal.intend(job.key, create.marker, spec, self.client.now())
        self.sent_intents.append((job.key, self.journal.intents(job.key)[-1]))
        self.creates.sent(create)
        return pool.submit(self.client.create_meter, spec.create_body(create.marker))

    def _settle(self, change: Change) -> Applied | Failed | Skipped:
        """Archive a duplicate that the plan lists. Runs in a pool thread."""
        loser, winner = self.by_id[change.id or ""], self.by_id[change.duplicate_of or ""]
        return archive_duplicate(change.key, loser, winner, self.client)

    def _decide(self, lookup: Lookup, waiting: deque[Job], events: EventQueue) -> None:
        """Continue with the creates that a lookup decides."""
        for create in self.creates.decide(lookup):
            if create.state is CreateState.FOUND and create.meter:
                events.put(create.job, self._record_found(create.job, create.meter))
            elif create.state is CreateState.RESEND:
                waiting.appendleft(create.job)
            else:
                events.postpone(create.job)

    def _skip(self, job: Job, events: EventQueue) -> None:
        """Decide about a job that a stop keeps from starting, or from being looked for."""
        if create := self.creates.get(job.key):
            # It was sent, so it is not skipped: its meter may exist.
            self.creates.stop_looking(create)
            events.postpone(job)
        else:
            events.put(job, Skipped(job.key, job.action, self.stopped or ""))

    def _finish(self, job: Job, future: Future[_Result], events: EventQueue) -> None:
        """Record the result of a request."""
        try:
            result = future.result()
        except (ApiError, StoppedError) as error:
            if create := self.creates.get(job.key):
                self._create_failed(create, error, events)
            else:
                events.put(job, self._failed(job, error))
            return
        self.failures_in_a_row = 0
        if isinstance(result, LiveMeter):
            events.put(job, self._done(job, result))
        else:
            if isinstance(result, Applied):
                self.archived.add(result.id)
            events.put(job, result)

    def _done(self, job: Job, meter: LiveMeter) -> Applied:
        create = self.creates.get(job.key)
        if create is None:
            return self._record(job, meter.id)
        create.state = CreateState.CREATED
        self.created.add(meter.id)
        self._check_organization(job, meter, created=True)
        return self._record(job, meter.id, answer="created")

    def _create_failed(self, create: Create, error: ApiError | StoppedError, events: EventQueue) -> None:
        self.creates.failed(create, error)
        if create.state is CreateState.LOST:
            if create.sends == 1:  # one create counts once, also if it is sent again
                self._count_failure("create")
            return
        self.journal.not_created(create.job.key)
        if create.state is CreateState.NOT_CREATED:
            events.put(create.job, self._failed(create.job, error))
        else:
            events.postpone(create.job)

    def _failed(self, job: Job, error: ApiError | StoppedError) -> Event:
        if isinstance(error, StoppedError):
            return Skipped(job.key, job.action, str(error))
        if isinstance(error, TransientError):
            self._count_failure(job.action)
            sent = error.fate != "not-sent"
            return Failed(job.key, job.action, str(error), status=error.status, unknown=sent)
        if error.status in _ABORTING:
            self.abort_reason = f"skipped: {error}"
        return self._refused(job, error)

    def _count_failure(self, action: str) -> None:
        """Count a change without a usable answer. Enough of them in a row abort the run."""
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= _FAILURES_IN_A_ROW:
            what = "creates" if action == "create" else "changes"
            self.abort_reason = f"skipped: {self.failures_in_a_row} {what} in a row failed"

    def sweep(self) -> Iterator[Event]:
        """Check everything once more if this run sent creates: find late meters and settle duplicates.

        A stopped run leaves this to the next run.
        """
        if self.stop.reason is None:
            if self.sent_intents or self.creates.unconfirmed:
                awaited, timeout = self.journal.created, self.limits.lookup_timeout
                try:
                    live = read_live(self.client, awaited, timeout, self.clock)
                except (ApiError, StoppedError) as error:
                    yield Unknown(f"whether another run created the same meters is not known: {error}")
                else:
                    yield from self._sweep(live)
            elif self.journal.created:
                self._forget_created(self.live)
        for create in self.creates.unconfirmed:
            yield Unconfirmed(create.job.key, create.job.action, create.unconfirmed_message)

    def _sweep(self, live: Sequence[LiveMeter]) -> Iterator[Event]:
        by_marker = active_by_marker(live, key_by_id(self.journal.meters))
        for job, meter in self.creates.find_late(by_marker):
            yield self._record_found(job, meter)
        # An answered create made exactly the meter in its answer. An unanswered one may have made any meter
        # that looks like it.
        unanswered = [intent for key, intent in self.sent_intents if intent in self.journal.intents(key)]
        landed = {m.id for m in live if any(intent.may_have_made(m) for intent in unanswered)}
        targets = self.plan.targets
        events = settle_duplicates(
            [m for m in live if not targets or (m.owner and m.owner.key in targets)],
            self.created | landed,
            self.plan.project,
            self.at_start,
            self.manifest.specs,
            self.client,
            self.journal,
        )
        yield from events
        self.archived |= {event.id for event in events if isinstance(event, Applied)}
        self._forget_created(live)

    def _forget_created(self, live: Sequence[LiveMeter]) -> None:
        """Clear the list of created meters once none of them can be a duplicate.

        Later runs then need not check them.
        """
        if self.journal.created and no_duplicates(live, self.journal, self.archived):
            self.journal.duplicates_settled()

    def _record_found(self, job: Job, meter: LiveMeter) -> Event:
        """Record the meter that a lookup found, and that a create, of this run or another, may have made.

        Only a meter that is as declared is recorded as fully applied.
        """
        self._check_organization(job, meter, created=False)
        self.failures_in_a_row = 0
        declared = job.desired.spec if job.desired else None
        answer = intent_of(meter, self.journal.intents(job.key))
        if declared == meter.spec:
            return self._record(job, meter.id, answer=answer)
        self.journal.record(job.key, record_found(meter, declared), was=job.was, answer=answer)
        reason = f"another run created {meter.id} under the same marker, declared otherwise: plan again"
        return Skipped(job.key, job.action, reason)

    def _record(self, job: Job, meter_id: str, *, answer: Answer | None = None) -> Applied:
        """Record the new state of a key. Forget a key that left the manifest."""
        if job.desired is None:
            self.journal.forget(job.key, meter_id)
        else:
            spec, ignored = job.desired.spec, job.desired.ignore_changes
            record = record_of(meter_id, spec, ignored, job.base, created=job.action == "create")
            self.journal.record(job.key, record, was=job.was, answer=answer)
        return Applied(job.key, job.action, meter_id)

    def _refused(self, job: Job, error: ApiError) -> Failed:
        """Return the event of a refusal. Remember a meter whose filter or aggregation is frozen."""
        if not isinstance(error, InvalidRequestError):
            return Failed(job.key, job.action, str(error), status=error.status)
        # Example: Polar refuses a frozen filter with `"type": "forbidden", "loc": ["body", "filter"]`.
        if job.id and any(e["type"] == "forbidden" and e["loc"][-1] in FROZEN_FIELDS for e in error.detail):
            # Later plans report it without a request.
            spec = job.base.spec if job.base else None
            self.journal.record(job.key, Record(job.id, spec, frozen=True), was=job.was)
        return failed_with_diagnostics(job, error, self.manifest)

    def _check_organization(self, job: Job, meter: LiveMeter, *, created: bool) -> None:
        """Check the token's organization, which in an empty organization only the first answer shows.

        `created` means that a 201 returned the meter, so this run may archive it.
        """
        pinned = self.journal.organization_id or self.plan.organization_id
        if pinned is None:
            self.journal.learn_organization(meter.organization_id)
        elif meter.organization_id != pinned:
            self.journal.not_created(job.key)
            outcome = withdraw(meter, self.client, created=created)
            raise PolarIacError(
                f"the token belongs to organization {meter.organization_id}, not to {pinned}, which is "
                f"pinned for {self.plan.environment}. {outcome}; nothing else was done"
            )
        self.organization_confirmed = True
