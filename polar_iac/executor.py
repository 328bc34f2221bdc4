"""Carries out a plan: calls Polar, records each effect before the next step, and tells what happened.

Requests run in a pool of threads; the caller's thread alone writes the journal and yields the events.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Literal

from polar_iac.api import ApiError, InvalidRequestError, PolarClient, TransientError
from polar_iac.errors import PolarIacError
from polar_iac.journal import Journal
from polar_iac.manifest import DesiredMeter, Manifest, problems_of
from polar_iac.meter import (
    FROZEN_FIELDS,
    MARKER,
    MAX_METADATA_KEYS,
    LiveMeter,
    Record,
    canonical_json,
    merge_metadata,
    record_of,
)
from polar_iac.plan import Bookkeeping, Change, Done, Event, Failed, Left, Plan, Unsure
from polar_iac.recovery import LOOKUP_TIMEOUT, active_by_marker, found_as, list_with, owners, settle_twins
from polar_iac.waiting import Clock, Stop, StoppedError, SystemClock, look_repeatedly

_HOPELESS = frozenset({401, 403})
"""Statuses that every further request would get too."""

_POSTS = 5
"""How often a create is sent, each time after a lookup found nothing."""

_FAILURES_IN_A_ROW = 8
"""After so many changes without a usable answer Polar is taken to be out of reach."""


@dataclass
class _Job:
    """Everything that is to happen to one key. `base` is its record as the run found it."""

    key: str
    change: Change | None
    bookkeeping: Sequence[Bookkeeping]
    desired: DesiredMeter | None
    base: Record | None
    step: Literal["send", "look up"] = "send"
    posts: int = 0
    number: int = 0
    """Of its last POST, among all POSTs of the run."""
    lost_at: int = 0
    """How many POSTs the run had begun when the answer to this one was lost."""
    over: bool = False
    """Whether Polar is done with the lost POST: it answered itself, if not usefully."""

    @property
    def action(self) -> str:
        return self.change.action if self.change else self.bookkeeping[0].action

    @property
    def id(self) -> str:
        """The meter's id; a create has none yet."""
        found = self.change.id if self.change else self.bookkeeping[0].id
        return found or ""

    @property
    def was(self) -> str | None:
        return next((b.was for b in self.bookkeeping if b.was), None)

    @property
    def rewrites_marker(self) -> bool:
        return any(b.action in ("marker", "moved") for b in self.bookkeeping)

    @property
    def only_recorded(self) -> bool:
        return self.change is None and not self.rewrites_marker


@dataclass(frozen=True)
class _Witness:
    """A meter that this run created: the number of its POST, its marker and id."""

    number: int
    marker: str
    id: str


def execute(
    plan: Plan,
    manifest: Manifest,
    live: Sequence[LiveMeter],
    client: PolarClient,
    journal: Journal,
    *,
    at_start: Mapping[str, Record],
    stop: Stop,
    parallelism: int = 4,
    lookup_timeout: float = LOOKUP_TIMEOUT,
    clock: Clock | None = None,
) -> Iterator[Event]:
    """Do what the plan says; one meter's failure does not stop the others. Yields one event a key, and one
    for each second meter under a marker that was settled.

    `live` is the list that the plan was made from, `at_start` what the lockfile held when the run began. Once
    `stop` is requested nothing more is begun. When an event is yielded, the journal holds its effect. Raises
    PolarIacError when the journal cannot be written, or when the first answer shows that the token belongs to
    another organisation than the pinned one.
    """
    for change in plan.changes:
        if change.action == "blocked":
            yield Left(change.key, change.action, change.reason or "")
    run = _Run(
        plan,
        manifest,
        client,
        journal,
        at_start,
        stop,
        lookup_timeout,
        clock or SystemClock(stop),
        owners(journal.meters),
    )
    jobs = _jobs(plan, manifest, journal)
    for job in jobs:
        if job.only_recorded:
            yield run.record(job, job.id)
    remote = deque(job for job in jobs if not job.only_recorded)
    while remote and not live and not run.belongs:
        # In an empty organisation only an answer can tell whose the token is: until one does, a create goes
        # alone.
        yield from run.all(deque([remote.popleft()]), parallelism=1)
    yield from run.all(remote, parallelism)
    yield from run.sweep()


def _jobs(plan: Plan, manifest: Manifest, journal: Journal) -> list[_Job]:
    changes = {change.key: change for change in plan.changes if change.action != "blocked"}
    bookkeeping: dict[str, list[Bookkeeping]] = defaultdict(list)
    for entry in plan.bookkeeping:
        bookkeeping[entry.key].append(entry)
    jobs = []
    for key in sorted({*changes, *bookkeeping}):
        job = _Job(key, changes.get(key), bookkeeping[key], manifest.meters.get(key), journal.meters.get(key))
        if job.base is None and job.was:
            job.base = journal.meters.get(job.was)
        jobs.append(job)
    return jobs


@dataclass
class _Run:
    """What the steps of one run share."""

    plan: Plan
    manifest: Manifest
    client: PolarClient
    journal: Journal
    at_start: Mapping[str, Record]
    stop: Stop
    patience: float
    clock: Clock
    elsewhere: Mapping[str, str]
    """Under which key each id was recorded when the run began."""
    hopeless: str | None = None
    belongs: bool = False
    """Whether a meter that this run made or found has told that the token is the pinned organisation's."""
    failures_in_a_row: int = 0
    posts: int = 0
    witnesses: list[_Witness] = field(default_factory=list)
    unheard: list[_Job] = field(default_factory=list)
    """Creates that may have been done: the sweep at the end decides what is told of them."""

    @property
    def stopped(self) -> str | None:
        """Why nothing more is begun."""
        return self.stop.reason or self.hopeless

    def all(self, jobs: deque[_Job], parallelism: int) -> Iterator[Event]:
        """Run the jobs, so many at a time; what a stop leaves over is told as left."""
        running: dict[Future[LiveMeter | None], _Job] = {}
        with ThreadPoolExecutor(parallelism, thread_name_prefix="polar") as pool:
            while running or (jobs and self.stopped is None):
                while jobs and len(running) < parallelism and self.stopped is None:
                    job = jobs.popleft()
                    running[self._start(job, pool)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    match self._settle(job, future):
                        case "again":
                            jobs.appendleft(job)
                        case "unheard":
                            self.unheard.append(job)
                        case event:
                            yield event
        for job in jobs:
            if job.posts:
                self.unheard.append(job)
            else:
                yield Left(job.key, job.action, self.stopped or "")

    def sweep(self) -> Iterator[Event]:
        """One last look at everything, where this run has created something: for what landed late, and for
        markers that appeared twice. A run that was stopped leaves that to the next one."""
        if self.posts and self.stop.reason is None:
            try:
                live = list_with(self.journal.created, self.client, lambda _: None, self.patience, self.clock)
            except (ApiError, StoppedError) as error:
                yield Unsure(f"whether another run created the same meters is not known: {error}")
            else:
                yield from self._swept(live)
        for job in self.unheard:
            sent = "once" if job.posts == 1 else f"{job.posts} times"
            told = f"Polar was sent this {sent} and never answered, and no meter bears the marker yet"
            yield Failed(job.key, job.action, f"{told}: apply again, which looks for it first")

    def _swept(self, live: Sequence[LiveMeter]) -> Iterator[Event]:
        by_marker = active_by_marker(live, owners(self.journal.meters))
        for job in list(self.unheard):
            if found := by_marker.get(self._marker(job.key)):
                self.unheard.remove(job)
                self._check_organization(job, found[0], created=False)
                yield self._found(job, found[0])
        yield from settle_twins(
            live,
            self.plan.project,
            self.at_start,
            self.manifest.specs,
            self.client,
            self.journal,
        )

    def _start(self, job: _Job, pool: ThreadPoolExecutor) -> Future[LiveMeter | None]:
        if job.action != "create" or job.desired is None:
            return pool.submit(self._change, job)
        marker = self._marker(job.key)
        if job.step == "look up":
            return pool.submit(self._look_up, job, marker)
        self.journal.intend(job.key, marker, job.desired.spec)
        job.posts += 1
        self.posts += 1
        job.number = self.posts
        return pool.submit(self.client.create_meter, job.desired.spec.create_body(marker))

    def _settle(self, job: _Job, future: Future[LiveMeter | None]) -> Event | Literal["again", "unheard"]:
        """Record what came of a step, and say what comes next."""
        sent = job.action == "create" and job.step == "send"
        try:
            meter = future.result()
        except StoppedError as error:
            job.posts -= sent  # it was waiting, and never sent
            if job.posts:
                return "unheard"  # an earlier one may land yet
            if sent:
                self.journal.give_up(job.key)
            return Left(job.key, job.action, str(error))
        except TransientError as error:
            if sent:
                job.step = "look up"
                # A gateway's error says nothing of the request behind it; Polar's own 500 ends it.
                job.over, job.lost_at = error.status == 500, self.posts
                return "again"
            self._fail(str(error))
            return "unheard" if job.action == "create" else Failed(job.key, job.action, str(error))
        except ApiError as error:
            if sent and job.posts == 1:
                self.journal.give_up(job.key)
            if error.status in _HOPELESS:
                self.hopeless = f"not tried: {error}"
            return self._refused(job, error)
        if meter is None:
            job.step = "send"
            if job.posts < _POSTS:
                return "again"
            self._fail("Polar takes no creates")
            return "unheard"
        self.failures_in_a_row = 0
        if job.action == "create":
            self._check_organization(job, meter, created=sent)
            if not sent:
                return self._found(job, meter)
            self.witnesses.append(_Witness(job.number, self._marker(job.key), meter.id))
        return self.record(job, meter.id, created=sent)

    def _found(self, job: _Job, meter: LiveMeter) -> Event:
        """A lookup found what a create may have made: this run's or another's. `record` is for the first."""
        declared = job.desired.spec if job.desired else None
        if declared == meter.spec:
            return self.record(job, meter.id)
        self.journal.record(job.key, found_as(meter, declared), was=job.was)
        told = f"another run created {meter.id} under the same marker, declared otherwise: plan again"
        return Left(job.key, job.action, told)

    def _fail(self, told: str) -> None:
        """A change came to no usable answer; after enough of them in a row no other is tried."""
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= _FAILURES_IN_A_ROW:
            self.hopeless = f"not tried: {told}, {self.failures_in_a_row} times in a row"

    def record(self, job: _Job, meter_id: str, *, created: bool = False) -> Done:
        """Write down what a key is now; a key that left the manifest is forgotten. `created`: a 201 that
        this run holds told of the meter."""
        if job.desired is None:
            self.journal.forget(job.key)
        else:
            spec, ignored = job.desired.spec, job.desired.ignore_changes
            record = record_of(meter_id, spec, ignored, job.base, created=job.action == "create")
            self.journal.record(job.key, record, was=job.was, created=created)
        return Done(job.key, job.action, meter_id)

    def _refused(self, job: _Job, error: ApiError) -> Failed:
        """An error as the manifest's author reads it: at the lines of the fields that Polar named."""
        if not isinstance(error, InvalidRequestError):
            return Failed(job.key, job.action, str(error))
        if job.id and any(e["type"] == "forbidden" and e["loc"][-1] in FROZEN_FIELDS for e in error.detail):
            # Remembered, so that later plans say it without asking.
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
        """The first answer in an empty organisation tells whose the token is. `created`: a 201 told of the
        meter, so that it is this run's to archive."""
        pinned = self.journal.organization_id or self.plan.organization_id
        if pinned is None:
            self.journal.learn_organization(meter.organization_id)
        elif meter.organization_id != pinned:
            self.journal.give_up(job.key)
            raise PolarIacError(
                f"the token belongs to organisation {meter.organization_id}, not to {pinned}, which is "
                f"pinned for {self.plan.environment}. {self._withdraw(meter, created)}; nothing else was done"
            )
        self.belongs = True

    def _withdraw(self, meter: LiveMeter, created: bool) -> str:
        """Archive a meter that was created in an organisation that was not meant; what to say of it."""
        if not created:
            return f"{meter.id} bears the marker {meter.marker} there: archive it there, if nobody uses it"
        try:
            self.client.update_meter(meter.id, {"is_archived": True})
        except (ApiError, StoppedError) as error:
            return f"{meter.id} was created there and should be archived, which failed ({error})"
        return f"The one meter created there, {meter.id}, is archived"

    def _marker(self, key: str) -> str:
        return f"{self.plan.project}/{key}"

    # What follows runs in the pool.

    def _look_up(self, job: _Job, marker: str) -> LiveMeter | None:
        """The oldest active meter that bears the marker, looked for patiently.

        Where Polar itself answered with an error the request is over, and a meter that this run created
        later is a witness: a replica that shows the witness would show the meter too. A request that was
        given up without such an answer may still land, so nothing but patience helps.
        """
        found: list[LiveMeter] = []

        def look() -> bool:
            later = (w for w in self.witnesses if job.over and w.number > job.lost_at)
            witness = next(later, None)
            meters = self.client.find_by_markers(marker, *([witness.marker] if witness else []))
            found.extend(active_by_marker(meters, self.elsewhere).get(marker, ()))
            return bool(found) or any(witness and m.id == witness.id for m in meters)

        look_repeatedly(look, self.patience, self.clock)
        return found[0] if found else None

    def _change(self, job: _Job) -> LiveMeter:
        """Update, archive, unarchive or mark again, in one PATCH that carries only what changed."""
        change, desired, body = job.change, job.desired, dict[str, Any]()
        fields = change.fields if change else ()
        for name in (f.path for f in fields if not f.path.startswith("metadata.")):
            body[name] = desired.spec.wire(name) if desired else None
        if job.action in ("archive", "unarchive"):
            body["is_archived"] = job.action == "archive"
        if job.rewrites_marker or any(f.path.startswith("metadata.") for f in fields):
            # A PATCH replaces the whole object: read just before, so that nobody's key is lost.
            live = self.client.get_meter(job.id)
            metadata = self._metadata(job, live)
            if canonical_json(metadata) != canonical_json({**live.spec.metadata, MARKER: live.marker}):
                body["metadata"] = metadata
            if not body:
                return live
        return self.client.update_meter(job.id, body)

    def _metadata(self, job: _Job, live: LiveMeter) -> dict[str, Any]:
        """The whole metadata object to send: ours merged into what is there now, and the marker."""
        known = {None, self._marker(job.key), self._marker(job.was or job.key)}
        if live.marker not in known and not (live.marker or "").startswith(f"{self.plan.project}/"):
            raise ApiError(f"{live.id} has meanwhile been marked as {live.marker}: plan again")
        metadata = dict(live.spec.metadata)
        if job.desired and not job.desired.spec.archived:
            base = job.base.applied_metadata if job.base else {}
            ignored = job.desired.ignore_changes
            metadata = merge_metadata(job.desired.spec.metadata, base, metadata, ignored)
        metadata[MARKER] = self._marker(job.key)
        if len(metadata) > MAX_METADATA_KEYS:
            raise ApiError(f"{live.id} would have {len(metadata)} metadata keys, Polar takes 50: plan again")
        return metadata
