"""Plan executor: calls Polar, records each effect before the next step, and yields the results.

Requests run in a thread pool. Only the caller's thread writes the journal and yields events.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from polar_iac.apply.bearers import active_by_marker, find, found_as, owners
from polar_iac.apply.creates import Create, Look, LostCreates
from polar_iac.apply.duplicates import archive_duplicate, no_duplicates, settle_duplicates
from polar_iac.apply.events import Applied, Event, Failed, Skipped, Unconfirmed, Unknown
from polar_iac.apply.resume import LOOKUP_TIMEOUT, RESEND_AFTER, answered_by, list_with, time_left
from polar_iac.clock import Clock, Stop, StoppedError, SystemClock
from polar_iac.errors import PolarIacError
from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import FROZEN_FIELDS, MAX_METADATA_KEYS, FieldPath
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.marker import MARKER, OwnershipMarker
from polar_iac.meter.merge import merge_metadata
from polar_iac.meter.record import Record, record_of
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Bookkeeping, Change, Plan
from polar_iac.polar.client import PolarClient
from polar_iac.polar.errors import ApiError, InvalidRequestError, TransientError
from polar_iac.polar.refusals import problems_of
from polar_iac.state.journal import Journal
from polar_iac.state.journal_state import Answer, Intent

_ABORTING = frozenset({401, 403})
"""Statuses that every later request would also get."""
_FAILURES_IN_A_ROW = 8
"""Number of consecutive changes without a usable answer after which Polar counts as unreachable."""


@dataclass(frozen=True)
class Limits:
    """Limits of an apply, in seconds except for `parallelism`.

    `lookup_timeout` is how long to look for data that a read replica may not show yet. `resend_after` is how
    long a create without an answer may still take effect; it is not sent again before that.
    """

    parallelism: int = 4
    lookup_timeout: float = LOOKUP_TIMEOUT
    resend_after: float = RESEND_AFTER


@dataclass
class _Job:
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
        found = self.change.id if self.change else self.bookkeeping[0].id
        return found or ""

    @property
    def was(self) -> str | None:
        return next((b.was for b in self.bookkeeping if b.was), None)


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
    for change in plan.changes:
        if change.action == "blocked":
            yield Skipped(change.key, change.action, change.reason or "")
    run = _Run(plan, manifest, live, client, journal, at_start, stop, limits, clock or SystemClock(stop))
    settles, jobs = _jobs(plan, manifest, journal)
    yield from run.all(deque(settles), limits.parallelism)
    while jobs and not live and not run.organization_confirmed and not organization_confirmed:
        # In an empty organization, only an answer shows which organization the token belongs to. Until then,
        # run one create at a time.
        yield from run.all(deque([jobs.popleft()]), parallelism=1)
    yield from run.all(jobs, limits.parallelism)
    yield from run.sweep()


def _jobs(plan: Plan, manifest: Manifest, journal: Journal) -> tuple[list[_Job], deque[_Job]]:
    """Return the duplicates to settle, and all other jobs in key order."""
    settles = [_Job(change.key, change) for change in plan.changes if change.action == "settle"]
    changes = {c.key: c for c in plan.changes if c.action not in ("blocked", "settle")}
    bookkeeping: dict[str, list[Bookkeeping]] = defaultdict(list)
    for entry in plan.bookkeeping:
        bookkeeping[entry.key].append(entry)
    jobs = deque[_Job]()
    for key in sorted({*changes, *bookkeeping}):
        job = _Job(key, changes.get(key), bookkeeping[key], manifest.meters.get(key), journal.meters.get(key))
        if job.base is None and job.was:
            job.base = journal.meters.get(job.was)
        jobs.append(job)
    return settles, jobs


@dataclass
class _InOrder:
    """Buffer that yields events in job order: each one as soon as all events before it are available."""

    numbers: Mapping[int, int]
    """Position of each job, by the job's `id()`."""
    events: dict[int, Event | None] = field(default_factory=dict)
    given: int = 0

    def add(self, job: _Job, event: Event | None) -> Iterator[Event]:
        """Add an event, or None when a later step of the run decides about the job."""
        self.events[self.numbers[id(job)]] = event
        while self.given in self.events:
            ready = self.events.pop(self.given)
            self.given += 1
            if ready is not None:
                yield ready

    def rest(self) -> Iterator[Event]:
        """Yield the remaining events when the run ends early."""
        yield from (event for _, event in sorted(self.events.items()) if event is not None)


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
    organization_confirmed: bool = False
    """True once a meter that this run created or found has shown that the token belongs to the pinned
    organization."""
    abort_reason: str | None = None
    failures_in_a_row: int = 0
    creates: dict[str, Create] = field(default_factory=dict)
    intents: list[tuple[str, Intent]] = field(default_factory=list)
    """Creates that this run sent, with their keys."""
    created: set[str] = field(default_factory=set)
    """Meter ids from the 201 answers of this run."""
    archived: set[str] = field(default_factory=set)
    """Ids of the duplicates that this run settled."""
    unconfirmed: list[_Job] = field(default_factory=list)
    """Creates that may have taken effect. The final sweep decides their result."""

    def __post_init__(self) -> None:
        self.by_id = {meter.id: meter for meter in self.live}
        self.lost = LostCreates(
            lambda markers: find(markers, self.client), owners(self.journal.meters), self.clock
        )

    @property
    def stopped(self) -> str | None:
        """Reason for starting nothing more, or None."""
        return self.stop.reason or self.abort_reason

    def all(self, jobs: deque[_Job], parallelism: int) -> Iterator[Event]:
        """Run the jobs, at most `parallelism` at a time, while looking for lost creates.

        A stop skips the rest.
        """
        order = _InOrder({id(job): number for number, job in enumerate(jobs)})
        by_key = {job.key: job for job in jobs}
        running: dict[Future[_Result], _Job] = {}
        looking: Future[Look] | None = None
        try:
            with ThreadPoolExecutor(parallelism + 1, thread_name_prefix="polar") as pool:
                while running or looking or ((jobs or self.lost) and self.stopped is None):
                    while jobs and len(running) < parallelism and self.stopped is None:
                        job = jobs.popleft()
                        future = self._start(job, pool)
                        if isinstance(future, Future):
                            running[future] = job
                        elif future is not None:
                            yield from order.add(job, future)
                    if self.lost and looking is None and self._may_look():
                        looking = pool.submit(self.lost.look, self.lost.markers)
                    for done in self._wait(running, looking):
                        if done is looking:
                            for key, event in self._judge(looking.result(), jobs, by_key):
                                yield from order.add(by_key[key], event)
                            looking = None
                        else:
                            job = running.pop(done)
                            event = self._finish(job, done)
                            if event is not None or job in self.unconfirmed:
                                yield from order.add(job, event)
            for job in [*jobs, *(by_key[key] for key in self.lost.creates if key in by_key)]:
                yield from order.add(job, self._skip(job))
        except Exception:
            yield from order.rest()  # report what was done, even if the run fails
            raise

    def _may_look(self) -> bool:
        return self.stopped is None and self.clock.now() >= self.lost.next_look

    def _wait(self, running: Mapping[Future[_Result], _Job], looking: Future[Look] | None) -> Sequence[Any]:
        """Wait for an answer, or until the next lookup of lost creates is due."""
        looks_again = self.lost and looking is None and self.stopped is None
        pause = max(0.0, self.lost.next_look - self.clock.now()) if looks_again else None
        futures: list[Future[Any]] = [*running, *([looking] if looking else [])]
        if futures:
            return list(wait(futures, timeout=pause, return_when=FIRST_COMPLETED).done)
        if pause:
            with suppress(StoppedError):  # `stopped` holds the reason
                self.clock.sleep(pause)
        return ()

    def _start(self, job: _Job, pool: ThreadPoolExecutor) -> Future[_Result] | Event | None:
        """Start a job.

        Returns a running request, or an event when no request is needed. Returns None for a create that an
        earlier run may have sent, because it must be looked for first.
        """
        if job.change is None:
            return self.record(job, job.id)
        if job.action == "settle":
            return pool.submit(self._settle, job.change)
        if job.action == "create" and job.desired:
            create = self.creates.get(job.key)
            earlier = self.journal.unresolved.get(job.key, ())
            if create is None:
                create = self.creates[job.key] = Create(job.key, self._marker(job.key), earlier=len(earlier))
                if earlier:
                    self.lost.add(create, time_left(earlier, self.client.now(), self._patience))
                    return None
            return self._send(job, job.desired.spec, create, pool)
        return pool.submit(self._change, job, job.change)

    @property
    def _patience(self) -> float:
        """Seconds after which a create that is not found was not made."""
        return max(self.limits.resend_after, self.limits.lookup_timeout)

    def _send(self, job: _Job, spec: MeterSpec, create: Create, pool: ThreadPoolExecutor) -> Future[_Result]:
        self.journal.intend(job.key, create.marker, spec, self.client.now())
        self.intents.append((job.key, self.journal.intents(job.key)[-1]))
        create.sends += 1
        return pool.submit(self.client.create_meter, spec.create_body(create.marker))

    def _judge(
        self, look: Look, jobs: deque[_Job], by_key: Mapping[str, _Job]
    ) -> Iterator[tuple[str, Event | None]]:
        """Yield what a lookup decides: creates that are found, sent again, or given up as unconfirmed."""
        for create, meter in self.lost.judge(look):
            job = by_key[create.key]
            if meter is not None:
                yield create.key, self._found(job, meter)
            elif create.may_be_sent:
                jobs.appendleft(job)
            else:
                self.unconfirmed.append(job)
                yield create.key, None

    def _skip(self, job: _Job) -> Event | None:
        """Return the event of a job that a stop skipped.

        Returns None for a create that was sent: it is not skipped, and the sweep decides its result.
        """
        create = self.creates.get(job.key)
        if job.action == "create" and create and (create.sends or create.earlier):
            self.lost.creates.pop(job.key, None)
            self.unconfirmed.append(job)
            return None
        return Skipped(job.key, job.action, self.stopped or "")

    def _finish(self, job: _Job, future: Future[_Result]) -> Event | None:
        """Record the result of a request. Returns None for a lost create."""
        try:
            result = future.result()
        except (ApiError, StoppedError) as error:
            return self._not_created(job, error) if job.action == "create" else self._not_changed(job, error)
        self.failures_in_a_row = 0
        if isinstance(result, Applied | Failed | Skipped):
            if isinstance(result, Applied):
                self.archived.add(result.id)
            return result
        if job.action == "create":
            self.created.add(result.id)
            self._check_organization(job, result, created=True)
            return self.record(job, result.id, answer="created")
        return self.record(job, result.id)

    def _not_created(self, job: _Job, error: ApiError | StoppedError) -> Event | None:
        """Separate lost creates, which may still take effect, from creates that made nothing."""
        create = self.creates[job.key]
        fate = error.fate if isinstance(error, TransientError) else "not-sent"
        if fate == "not-sent":
            self.journal.give_up(job.key)
            create.sends -= 1
            refused = not isinstance(error, TransientError | StoppedError)
            if refused or not (create.sends or create.earlier):
                return self._not_changed(job, error)
            self.unconfirmed.append(job)  # an earlier POST may still take effect
            return None
        create.trouble = str(error)
        if create.sends == 1:
            self._count_failure("create")
        # Polar's own 500 ends the request, so only a lagging replica can still hide its meter.
        self.lost.add(create, self.limits.lookup_timeout if fate == "over" else self._patience)
        return None

    def _not_changed(self, job: _Job, error: ApiError | StoppedError) -> Event:
        if isinstance(error, StoppedError):
            return Skipped(job.key, job.action, str(error))
        if isinstance(error, TransientError):
            self._count_failure(job.action)
            return Failed(job.key, job.action, str(error))
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
            if self.intents or self.unconfirmed:
                try:
                    live = list_with(
                        self.journal.created,
                        self.client,
                        lambda _: None,
                        self.limits.lookup_timeout,
                        self.clock,
                    )
                except (ApiError, StoppedError) as error:
                    yield Unknown(f"whether another run created the same meters is not known: {error}")
                else:
                    yield from self._swept(live)
            elif self.journal.created:
                self._close(self.live)
        for job in self.unconfirmed:
            yield Unconfirmed(job.key, job.action, self.creates[job.key].unconfirmed)

    def _swept(self, live: Sequence[LiveMeter]) -> Iterator[Event]:
        by_marker = active_by_marker(live, owners(self.journal.meters))
        for job in list(self.unconfirmed):
            if found := by_marker.get(self._marker(job.key)):
                self.unconfirmed.remove(job)
                yield self._found(job, found[0])
        # An answered create made exactly the meter in its answer.
        lost = [intent for key, intent in self.intents if intent in self.journal.intents(key)]
        landed = {m.id for m in live if any(intent.may_have_made(m) for intent in lost)}
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
        self._close(live)

    def _close(self, live: Sequence[LiveMeter]) -> None:
        """Clear the list of created meters once none of them can be a duplicate.

        Later runs then need not check them.
        """
        if self.journal.created and no_duplicates(live, self.journal, self.archived):
            self.journal.swept()

    def _found(self, job: _Job, meter: LiveMeter) -> Event:
        """Handle a meter that a lookup found and that a create, of this run or another, may have made.

        Only a meter that is as declared is recorded as fully applied.
        """
        self._check_organization(job, meter, created=False)
        self.failures_in_a_row = 0
        declared = job.desired.spec if job.desired else None
        answer = answered_by(meter, self.journal.intents(job.key))
        if declared == meter.spec:
            return self.record(job, meter.id, answer=answer)
        self.journal.record(job.key, found_as(meter, declared), was=job.was, answer=answer)
        reason = f"another run created {meter.id} under the same marker, declared otherwise: plan again"
        return Skipped(job.key, job.action, reason)

    def record(self, job: _Job, meter_id: str, *, answer: Answer | None = None) -> Applied:
        """Record the new state of a key. Forget a key that left the manifest."""
        if job.desired is None:
            self.journal.forget(job.key, meter_id)
        else:
            spec, ignored = job.desired.spec, job.desired.ignore_changes
            record = record_of(meter_id, spec, ignored, job.base, created=job.action == "create")
            self.journal.record(job.key, record, was=job.was, answer=answer)
        return Applied(job.key, job.action, meter_id)

    def _refused(self, job: _Job, error: ApiError) -> Failed:
        """Convert an error to diagnostics at the manifest lines of the fields that Polar named."""
        if not isinstance(error, InvalidRequestError):
            return Failed(job.key, job.action, str(error))
        if job.id and any(e["type"] == "forbidden" and e["loc"][-1] in FROZEN_FIELDS for e in error.detail):
            # Remember this, so that later plans report it without a request.
            spec = job.base.spec if job.base else None
            self.journal.record(job.key, Record(job.id, spec, frozen=True), was=job.was)
        if job.desired is None:
            return Failed(job.key, job.action, str(error))
        diagnostics = tuple(
            self.manifest.diagnose(
                job.key,
                ("archived",) if path == ("is_archived",) else path,
                f"Polar refused `{job.key}`: {message}",
            )
            for path, message in problems_of(error.detail).items()
        )
        return Failed(job.key, job.action, str(error), diagnostics)

    def _check_organization(self, job: _Job, meter: LiveMeter, *, created: bool) -> None:
        """Check the token's organization, which in an empty organization only the first answer shows.

        `created` means that a 201 returned the meter, so this run may archive it.
        """
        pinned = self.journal.organization_id or self.plan.organization_id
        if pinned is None:
            self.journal.learn_organization(meter.organization_id)
        elif meter.organization_id != pinned:
            self.journal.give_up(job.key)
            raise PolarIacError(
                f"the token belongs to organization {meter.organization_id}, not to {pinned}, which is "
                f"pinned for {self.plan.environment}. {self._withdraw(meter, created)}; nothing else was done"
            )
        self.organization_confirmed = True

    def _withdraw(self, meter: LiveMeter, created: bool) -> str:
        """Archive a meter that was created in the wrong organization. Return the message about it."""
        if not created:
            return f"{meter.id} bears the marker {meter.marker} there: archive it there, if nobody uses it"
        try:
            self.client.update_meter(meter.id, {"is_archived": True})
        except (ApiError, StoppedError) as error:
            return f"{meter.id} was created there and should be archived, which failed ({error})"
        return f"The one meter created there, {meter.id}, is archived"

    def _marker(self, key: str) -> str:
        return str(OwnershipMarker(self.plan.project, key))

    # The methods below run in the pool.

    def _settle(self, change: Change) -> Applied | Failed | Skipped:
        """Archive a duplicate that the plan lists."""
        loser, winner = self.by_id[change.id or ""], self.by_id[change.duplicate_of or ""]
        return archive_duplicate(change.key, loser, winner, self.client)

    def _change(self, job: _Job, change: Change) -> LiveMeter:
        """Update, archive, unarchive, or mark a meter in one PATCH that carries only what changed."""
        desired, body = job.desired, dict[str, Any]()
        for name in (f.path for f in change.fields if FieldPath.parse(f.path).key is None):
            body[name] = desired.spec.wire(name) if desired else None
        if job.action in ("archive", "unarchive"):
            body["is_archived"] = job.action == "archive"
        if change.marker or any(FieldPath.parse(f.path).key is not None for f in change.fields):
            # A PATCH replaces the whole object. Read it just before, so that nobody else's key is lost.
            live = self.client.get_meter(job.id)
            metadata = self._metadata(job, change, live)
            if live.spec and canonical_json(metadata) != canonical_json(
                _whole(live.spec.metadata, live.marker)
            ):
                body["metadata"] = metadata
            if not body:
                return live
        return self.client.update_meter(job.id, body)

    def _metadata(self, job: _Job, change: Change, live: LiveMeter) -> dict[str, Any]:
        """Return the whole metadata object to send: ours merged into the live one, and the marker."""
        marker = self._marker(job.key)
        planned = change.marker.before if change.marker else live.marker and marker
        if live.spec is None or live.marker not in (planned, marker):
            now = f"has been marked as {live.marker}" if live.spec else "has changed"
            raise ApiError(f"{live.id} {now} since it was planned: plan again")
        metadata = dict(live.spec.metadata)
        if job.desired and not job.desired.spec.archived:
            base = job.base.applied_metadata if job.base and job.base.id == live.id else {}
            ignored = job.desired.ignore_changes
            metadata = merge_metadata(job.desired.spec.metadata, base, metadata, ignored)
        metadata = _whole(metadata, marker if change.marker or live.marker else None)
        if len(metadata) > MAX_METADATA_KEYS:
            raise ApiError(f"{live.id} would have {len(metadata)} metadata keys, Polar takes 50: plan again")
        return metadata


def _whole(metadata: Mapping[str, Any], marker: str | None) -> dict[str, Any]:
    """Return the metadata as Polar holds it, including the marker."""
    return {**metadata, **({MARKER: marker} if marker else {})}
