"""Random faults at rates up to 30 % on every method: `apply`, repeated until all is done, converges."""

from __future__ import annotations

import json
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from polar_iac.apply.events import Applied, Event
from polar_iac.apply.marked import active_by_marker
from polar_iac.errors import PolarIacError
from polar_iac.local import LocalPolar, serving
from polar_iac.manifest.model import Manifest
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.marker import MARKER
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.polar.client import PolarClient
from polar_iac.polar.errors import ApiError
from polar_iac.state import lockfile
from polar_iac.state.lockfile import Lockfile
from tests.soak import Soak
from tests.support import openapi
from tests.support.build import PROJECT, desired, meter, spec_of
from tests.support.command import HANG_SECONDS
from tests.support.crash_trials import only_lost_creates
from tests.support.fault_trials import Choose, Request, at_random, faulty_polar
from tests.support.workspace import Checkout

LOCKFILE = "meters.sandbox.lock.json"
TIMEOUT = 0.3
LOOKUP_TIMEOUT = 0.4
LAG = 0.1
"""The longest lag of a replica: even with a late request it stays below LOOKUP_TIMEOUT."""
APPLIES = 12
"""More than this, and it does not converge."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Declared and existing meters: `there` maps keys to the blocks of our own meters,
    `recorded` the keys of them that the lockfile knows; `foreign` are bodies.
    """

    meters: dict[str, dict[str, Any]]
    moved: list[dict[str, str]]
    there: dict[str, dict[str, Any]]
    recorded: frozenset[str]
    foreign: list[dict[str, Any]]

    @property
    def manifest(self) -> Manifest:
        return desired(self.meters, moved=self.moved)


@cache
def small_scene(creates: int = 2) -> Scene:
    """One of everything that sends something."""
    return _scene(creates, equals=0, recorded=True)


def random_scene(seed: int) -> Scene:
    rng = random.Random(seed)
    return _scene(creates=rng.randint(2, 6), equals=rng.randint(0, 6), recorded=rng.random() < 0.8)


def _scene(creates: int, equals: int, recorded: bool) -> Scene:
    there = {
        "renamed": meter(name="Before"),
        "refiltered": meter(name="Counted", aggregation={"func": "count"}),
        "marked": meter(name="Marked", metadata={"ours": 1, "gone": 1, "theirs": 9}),
        "retiring": meter(name="Retiring"),
        "back": meter(name="Back", archived=True),
        "old-key": meter(name="Moved"),
        "unlisted": meter(name="Unlisted"),
        "adopted": meter(name="Adopted"),
        **{f"equal-{n}": meter(name=f"Equal {n}") for n in range(equals)},
    }
    meters = {
        "renamed": meter(name="After", unit="custom", custom_label="call"),
        "refiltered": meter(name="Counted", aggregation={"func": "sum", "property": "tokens"}),
        "marked": meter(name="Marked", metadata={"ours": 2, "new": True}),
        "retiring": meter(name="Retiring", archived=True),
        "back": meter(name="Back again"),
        "new-key": meter(name="Moved"),
        "adopted": meter(name="Adopted"),
        **{f"equal-{n}": meter(name=f"Equal {n}") for n in range(equals)},
        **{f"created-{n}": meter(name=f"Created {n}", metadata={"n": n}) for n in range(creates)},
    }
    foreign = [
        meter(name="Created 0", aggregation={"func": "sum", "property": "tokens"}),
        meter(name="Created 0", metadata={"n": 0}),
        meter(name="Created 0", metadata={MARKER: "other/created-0"}),
        meter(name="Created 1", metadata={MARKER: f"{PROJECT}x/created-1"}),
        meter(name="Renamed", metadata={MARKER: "other/renamed", "theirs": 1}),
    ]
    recorded_keys = frozenset(there) - {"adopted"} if recorded else frozenset()
    return Scene(meters, [{"from": "old-key", "to": "new-key"}], there, recorded_keys, foreign)


@dataclass
class Site:
    """A directory and a Polar as a scene says, and the truth about it, past all faults."""

    directory: Path
    polar: LocalPolar
    truth: PolarClient
    foreign: dict[str, str]

    @contextmanager
    def checkout(
        self, url: str, lookup_timeout: float = LOOKUP_TIMEOUT, timeout: float = TIMEOUT
    ) -> Iterator[Checkout]:
        checkout = Checkout(
            url, self.directory, timeout=timeout, retry_wait=0.001, lookup_timeout=lookup_timeout
        )
        with checkout.client:
            yield checkout

    @property
    def recorded(self) -> Mapping[str, Record]:
        return lockfile.read(self.directory / LOCKFILE, "sandbox", PROJECT).meters

    def ours(self) -> list[LiveMeter]:
        return [m for m in self.truth.list_meters() if m.id not in self.foreign]

    def state(self) -> dict[str, Any]:
        """The live and the recorded meters, without ids."""
        return {
            "live": sorted((m.marker or "", m.archived, spec_of(m).fingerprint) for m in self.ours()),
            "recorded": sorted(
                (k, r.spec and r.spec.fingerprint, r.frozen) for k, r in self.recorded.items()
            ),
        }

    def check(self, checkout: Checkout, manifest: Manifest, expected: dict[str, Any]) -> None:
        """Nothing is doubled, nothing lost, nobody else's touched, and nothing is left to do."""
        by_marker = active_by_marker(self.ours(), {})
        doubled = {marker: [m.id for m in ms] for marker, ms in by_marker.items() if len(ms) > 1}
        assert not doubled, f"two active meters under one marker: {doubled}"
        for what, state in self.state().items():
            surplus = [entry for entry in state if entry not in expected[what]]
            missing = [entry for entry in expected[what] if entry not in state]
            assert state == expected[what], f"{what}: there is {surplus}, and there is not {missing}"
        ids = {f"{PROJECT}/{key}": record.id for key, record in self.recorded.items()}
        live = {m.marker: m.id for m in self.ours() if m.marker in ids}
        assert ids == live, f"recorded {ids}, live {live}"
        assert documents(self.polar, self.foreign) == self.foreign, "a foreign meter was touched"
        assert only_lost_creates(checkout.lockfile), "the journal holds more than lost creates"
        planned = checkout.plan(manifest)
        assert not planned.changes, f"the next plan has {planned.changes}"
        assert not planned.bookkeeping, f"the next plan has {planned.bookkeeping}"


def documents(polar: LocalPolar, ids: Any) -> dict[str, str]:
    """Meters as Polar answers them, byte for byte."""
    headers = {"Authorization": "Bearer polar_oat_test"}
    with httpx.Client(
        transport=httpx.WSGITransport(app=polar), base_url="http://truth", headers=headers
    ) as web:
        return {meter_id: web.get(f"/v1/meters/{meter_id}").raise_for_status().text for meter_id in ids}


def furnish(scene: Scene, polar: LocalPolar, directory: Path) -> Site:
    truth = PolarClient("http://truth", "polar_oat_test", transport=httpx.WSGITransport(app=polar))
    records = {}
    for key, block in scene.there.items():
        spec = MeterSpec.from_json(block)
        made = truth.create_meter(spec.create_body(f"{PROJECT}/{key}"))
        if block.get("archived"):
            truth.update_meter(made.id, {"is_archived": True})
        if key in scene.recorded:
            ours = {k: v for k, v in spec.metadata.items() if k != "theirs"}
            records[key] = Record(made.id, MeterSpec.from_json(block | {"metadata": ours}))
    foreign = [truth.create_meter(body).id for body in scene.foreign]
    truth.update_meter(foreign[1], {"is_archived": True})
    directory.mkdir(parents=True)
    if records:
        state = Lockfile("sandbox", polar.organization_id, PROJECT, records)
        lockfile.save(directory / LOCKFILE, state)
    return Site(directory, polar, truth, documents(polar, foreign))


@cache
def undisturbed(scene: Scene) -> dict[str, Any]:
    """The state that an apply reaches which meets no fault."""
    polar = LocalPolar()
    try:
        with tempfile.TemporaryDirectory() as directory:
            site = furnish(scene, polar, Path(directory) / "undisturbed")
            with serving(polar) as url, site.checkout(url, timeout=HANG_SECONDS) as checkout:
                events = checkout.apply(scene.manifest)
            assert all(isinstance(event, Applied) for event in events), events
            return site.state()
    finally:
        polar.close()


def apply_until_done(checkout: Checkout, manifest: Manifest, applies: int) -> int:
    """Apply until everything is done; the number of applies that it took."""
    complaints = []
    for number in range(1, applies + 1):
        try:
            events: Sequence[Event] = checkout.apply(manifest)
        except ApiError as error:
            complaints.append(f"apply {number}: {error}")
            continue
        undone = [event for event in events if not isinstance(event, Applied)]
        if not undone:
            return number
        complaints += [f"apply {number}: {event}" for event in undone]
    raise AssertionError("\n".join([f"not done after {applies} applies:", *complaints]))


@dataclass(frozen=True)
class Outcome:
    applies: int
    served: Counter[str]
    requests: Counter[str]


def converge(
    scene: Scene,
    directory: Path,
    choose: Choose,
    *,
    applies: int = APPLIES,
    lookup_timeout: float = LOOKUP_TIMEOUT,
    timeout: float = TIMEOUT,
    **server: Any,
) -> Outcome:
    """Apply a scene against a Polar with faults until all is done; check the result."""
    expected = undisturbed(scene)
    manifest = scene.manifest
    polar = LocalPolar()
    sent = list[tuple[str, bytes]]()

    def seen(request: Request) -> str | None:
        sent.append((request.method, request.body))
        return choose(request)

    try:
        site = furnish(scene, polar, directory / "faulty")
        with (
            faulty_polar(polar, seen, **server) as faulty,
            site.checkout(faulty.url, lookup_timeout, timeout) as checkout,
        ):
            try:
                taken = apply_until_done(checkout, manifest, applies)
                faulty.behave()
                site.check(checkout, manifest, expected)
                openapi.check((method, json.loads(body)) for method, body in sent if body)
            except (AssertionError, PolarIacError) as error:
                error.add_note(f"served: {dict(faulty.served)}")
                raise
            return Outcome(taken, faulty.served, faulty.requests)
    finally:
        polar.close()


def trial(seed: int, directory: Path, low: float = 0.1, high: float = 0.3, applies: int = APPLIES) -> Outcome:
    rng = random.Random(f"how {seed}")
    rates = {method: rng.uniform(low, high) for method in ("GET", "POST", "PATCH")}
    return converge(
        random_scene(seed),
        directory,
        at_random(seed, rates),
        applies=applies,
        lag=rng.choice([0.0, 0.0, LAG / 2, LAG]),
        late=rng.choice([0.02, 0.1]),
        page_size=rng.choice([100, 100, 5, 7]),
    )


def figures(outcomes: Sequence[Outcome]) -> list[str]:
    applies = sorted(outcome.applies for outcome in outcomes)
    served = sum((outcome.served for outcome in outcomes), Counter[str]())
    requests = sum((outcome.requests for outcome in outcomes), Counter[str]())
    lagged = served.pop("GET lag", 0)
    by_kind = Counter[str]()
    by_method = Counter[str]()
    for name, count in served.items():
        method, _, kind = name.partition(" ")
        by_kind[kind] += count
        by_method[method] += count
    rates = ", ".join(
        f"{method} {by_method[method]} of {count} ({by_method[method] / count:.0%})"
        for method, count in sorted(requests.items())
    )
    return [
        f"applies until done: min {applies[0]}, median {statistics.median(applies):g}, max {applies[-1]}",
        f"faults served: {served.total()} of {requests.total()} requests: {rates}",
        f"reads from a replica that was behind: {lagged}",
        "by kind: " + ", ".join(f"{kind} {count}" for kind, count in sorted(by_kind.items())),
    ]


SOAK = Soak("random faults at rates up to 30 % on every method", 200, trial, figures)
