"""Trials of crash safety: a run is killed, stopped or raced, and the result must keep the invariants."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polar_iac.files import state_directory
from polar_iac.local import LocalPolar, serving
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.marker import MARKER
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.polar.client import PolarClient
from polar_iac.state import journal, lockfile
from polar_iac.state.lockfile import Lockfile
from tests.support.build import PROJECT, manifest_text, meter, spec_of
from tests.support.command import COMMAND, clean_environment
from tests.support.fork_server import ForkServer
from tests.support.served_polar import served_polar

LOCK = "meters.sandbox.lock.json"
APPLY = ("apply", "-e", "sandbox", "-y", "-q", "--lookup-timeout", "0.25", "--resend-after", "0.25")

BEFORE = {
    "renamed": meter(name="Before"),
    "marked": meter(metadata={"ours": 1, "gone": 1}),
    "retiring": meter(name="Retiring"),
    "old-key": meter(name="Moved"),
    "leaving": meter(name="Leaving"),
}
BACK = meter(name="Back")
AFTER = {
    "renamed": meter(name="After"),
    "marked": meter(metadata={"ours": 2}),
    "retiring": meter(name="Retiring", archived=True),
    "new-key": meter(name="Moved"),
    "back": BACK,
    "new-1": meter(name="New one"),
    "new-2": meter(name="New two", metadata={"a": 1}),
    "new-3": meter(name="New three", unit="custom", custom_label="call"),
}
NEW = tuple(f"{PROJECT}/{key}" for key in AFTER if key.startswith("new-") and key != "new-key")
MOVED = [{"from": "old-key", "to": "new-key"}]
MANIFEST = manifest_text(AFTER, moved=MOVED)
TAKEN_OVER = meter(name="Taken over")
"""The block of a meter that `import` names, and that has no owner and another name before."""
EXPECTED = {
    key: MeterSpec.from_json(block).fingerprint
    for key, block in {
        **AFTER,
        "marked": meter(metadata={"ours": 2, "theirs": 9}),
        "taken-over": {**TAKEN_OVER, "metadata": {"theirs": 8}},
    }.items()
    if not block.get("archived")
}
"""The active meters after an apply that nothing disturbed."""
WITHOUT_BASE = EXPECTED | {
    "marked": MeterSpec.from_json(meter(metadata={"ours": 2, "theirs": 9, "gone": 1})).fingerprint
}
"""The same where the lockfile was lost first: what is not known to have been ours is not removed."""


@dataclass
class Scene:
    """A served Polar in which something is to be changed; `url` is what the command sees of it."""

    polar: LocalPolar
    url: str
    truth: PolarClient
    """Past all faults, on a connection of its own."""
    lag: float = 0.0
    """Seconds by which what the command reads is behind the truth."""

    @property
    def environ(self) -> dict[str, str]:
        return {"POLAR_BASE_URL": self.url, "POLAR_ACCESS_TOKEN": "polar_oat_test"}

    def furnish(self, directory: Path) -> dict[str, LiveMeter]:
        """Everything as before: our meters, and foreign ones, which are returned."""
        self.polar.reset()
        records = {}
        for key, block in {**BEFORE, "back": BACK}.items():
            spec = MeterSpec.from_json(block)
            made = self.truth.create_meter(spec.create_body(f"{PROJECT}/{key}"))
            records[key] = Record(made.id, spec)
            if key == "back":
                self.truth.update_meter(made.id, {"is_archived": True})
            if key == "marked":
                metadata = {"ours": 1, "gone": 1, "theirs": 9, MARKER: f"{PROJECT}/marked"}
                self.truth.update_meter(made.id, {"metadata": metadata})
            if key == "leaving":
                metadata = {"theirs": 7, MARKER: f"{PROJECT}/leaving"}
                self.truth.update_meter(made.id, {"metadata": metadata})
        unowned = self.truth.create_meter(meter(name="Of nobody", metadata={"theirs": 8}))
        foreign = [
            self.truth.create_meter(meter(name="Unmarked")),
            self.truth.create_meter(meter(metadata={MARKER: "other/new-1"})),
        ]
        state = Lockfile("sandbox", self.polar.organization_id, PROJECT, records)
        state_directory(directory / LOCK)
        lockfile.save(directory / LOCK, state)
        blocks: dict[str, Any] = {"import": [{"to": "taken-over", "id": {"sandbox": unowned.id}}]}
        text = manifest_text(
            AFTER | {"taken-over": TAKEN_OVER}, moved=MOVED, removed=[{"from": "leaving"}], **blocks
        )
        (directory / "meters.yaml").write_text(text, encoding="utf-8")
        self.catch_up()
        return {meter.id: meter for meter in foreign}

    def catch_up(self) -> None:
        """Wait until the replicas show all that was done outside the command."""
        if self.lag:
            with PolarClient(self.url, "polar_oat_test") as seen:
                seen.list_meters()
            time.sleep(self.lag)

    def check(self, directory: Path, foreign: dict[str, LiveMeter], *, forgot: bool = False) -> None:
        """Nothing is doubled, nothing is lost, nobody else's is touched."""
        live = self.truth.list_meters()
        (left,) = [m for m in live if m.name == "Leaving"]
        ours = [m for m in live if not m.archived and m.id not in foreign and m is not left]
        active = {m.marker: m for m in ours}
        doubled = [marker for marker, count in Counter(m.marker for m in ours).items() if count > 1]
        assert not doubled, f"two active meters under {doubled}"
        by_key = {(marker or "").partition("/")[2]: spec_of(m).fingerprint for marker, m in active.items()}
        assert by_key == EXPECTED or (forgot and by_key == WITHOUT_BASE)
        recorded = lockfile.read(directory / LOCK, "sandbox", PROJECT).meters
        ids = {key: record.id for key, record in recorded.items() if key in EXPECTED}
        assert ids == {(marker or "").partition("/")[2]: m.id for marker, m in active.items()}
        assert {m.id: m for m in live if m.id in foreign} == foreign
        assert (left.archived, spec_of(left).metadata) == (False, {"theirs": 7})
        # Without a lockfile nothing shows that it was ours: it is left as it is.
        assert left.marker is None or (forgot and left.marker == f"{PROJECT}/leaving")
        assert "leaving" not in recorded
        assert only_lost_creates(directory / LOCK), "the journal holds more than lost creates"

    def recover(self, fork_server: ForkServer, directory: Path) -> int:
        """Apply until it succeeds; how often that took."""
        for attempt in range(1, 6):
            ended = fork_server.run(directory, self.environ, *APPLY)
            assert "Traceback" not in ended.output, ended.output
            if ended.code == 0:
                return attempt
        raise AssertionError(f"five applies did not heal it: {ended.output}")


@contextmanager
def slow_scene(seconds: float = 0.02) -> Iterator[Scene]:
    """A Polar that takes its time, so that a random moment lies between a request and its answer."""
    polar = LocalPolar()

    def slowly(environ: Any, start_response: Any) -> Any:
        time.sleep(seconds)
        return polar(environ, start_response)

    with (
        closing(polar),
        serving(slowly) as url,
        served_polar(polar) as served,
        PolarClient(served.url, "polar_oat_truth") as truth,
    ):
        yield Scene(polar, url, truth)


def only_lost_creates(path: Path) -> bool:
    """Tell whether all that the journal still knows are creates without an answer, of keys that have a meter
    by now: a meter that they made may appear late, and is then known as ours.
    """
    state = lockfile.read(path, "sandbox", PROJECT)
    unfinished = journal.read(journal.path_for(path), state)
    return unfinished.meters == state.meters and not unfinished.created and not unfinished.unresolved


def forget_everything(directory: Path) -> None:
    """The runner died with its disk: no lockfile, no journal."""
    (directory / LOCK).unlink(missing_ok=True)
    (directory / ".polar-iac" / f"{LOCK}.journal").unlink(missing_ok=True)


def valid_lockfile(directory: Path) -> None:
    """At no time is it half written."""
    json.loads((directory / LOCK).read_text(encoding="utf-8"))
    lockfile.read(directory / LOCK, "sandbox", PROJECT)


def killed_at(scene: Scene, fork_server: ForkServer, directory: Path, boundary: int, *, forget: bool) -> int:
    """Kill -9 at the n-th boundary, then apply until it succeeds; the exit code of the killed run."""
    foreign = scene.furnish(directory)
    ended = fork_server.run(directory, scene.environ, *APPLY, kill_at=boundary)
    assert ended.code in (0, -signal.SIGKILL), ended.output
    valid_lockfile(directory)
    if forget:
        forget_everything(directory)
    scene.recover(fork_server, directory)
    scene.check(directory, foreign, forgot=forget)
    return ended.code


def killed_after(
    scene: Scene, fork_server: ForkServer, directory: Path, seconds: float, *, forget: bool
) -> int:
    """Kill -9 of the real command, started afresh, after `seconds`."""
    foreign = scene.furnish(directory)
    process = subprocess.Popen(
        [*COMMAND, *APPLY],
        cwd=directory,
        env=clean_environment(**scene.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds)
    process.kill()
    code = process.wait()
    valid_lockfile(directory)
    if forget:
        forget_everything(directory)
    scene.recover(fork_server, directory)
    scene.check(directory, foreign, forgot=forget)
    return code


def stopped_after(scene: Scene, fork_server: ForkServer, directory: Path, seconds: float, number: int) -> int:
    """SIGINT or SIGTERM `seconds` after the first request: what was under way is recorded, and the next
    run goes on.
    """
    foreign = scene.furnish(directory)
    pid = fork_server.start(directory, scene.environ, *APPLY)
    fork_server.reach(pid)
    time.sleep(seconds)
    os.kill(pid, number)
    ended = fork_server.wait(pid)
    assert "Traceback" not in ended.output, ended.output
    assert ended.code in (0, 128 + number), ended.output
    created = {m.id for m in scene.truth.list_meters() if m.marker in NEW}
    recorded = lockfile.read(directory / LOCK, "sandbox", PROJECT)
    records = journal.read(journal.path_for(directory / LOCK), recorded).meters
    assert created <= {record.id for record in records.values()}, "a create was answered and not recorded"
    scene.recover(fork_server, directory)
    scene.check(directory, foreign)
    return ended.code


@dataclass(frozen=True)
class Raced:
    """The exit codes of two simultaneous runs, and the number of duplicates that they made and archived."""

    codes: tuple[int, int]
    archived: int


def raced(scene: Scene, fork_server: ForkServer, directory: Path, rng: random.Random) -> Raced:
    """Two applies of one manifest on two machines, with nothing shared but Polar."""
    scene.polar.reset()
    scene.catch_up()
    checkouts = [directory / "one", directory / "two"]
    for checkout in checkouts:
        checkout.mkdir(parents=True, exist_ok=True)
        forget_everything(checkout)
        (checkout / "meters.yaml").write_text(MANIFEST, encoding="utf-8")
    pids = []
    for checkout in checkouts:
        pids.append(fork_server.start(checkout, scene.environ, *APPLY))
        time.sleep(rng.random() * 0.1)
    ended = [fork_server.wait(pid) for pid in pids]
    for one in ended:
        assert one.code in (0, 1), one.output
        assert "Apply:" in one.output or "No changes" in one.output, one.output
        assert "Traceback" not in one.output, one.output
    again = [fork_server.run(checkout, scene.environ, *APPLY) for checkout in checkouts]
    assert [one.code for one in again] == [0, 0], [one.output for one in again]
    live = scene.truth.list_meters()
    active = Counter(m.marker for m in live if not m.archived)
    expected = {f"{PROJECT}/{key}" for key, block in AFTER.items() if not block.get("archived")}
    assert active == dict.fromkeys(expected, 1)
    ids = [lockfile.read(checkout / LOCK, "sandbox", PROJECT).meters for checkout in checkouts]
    assert {k: r.id for k, r in ids[0].items()} == {k: r.id for k, r in ids[1].items()}
    archived = sum(m.archived and m.marker is None for m in live)
    return Raced((ended[0].code, ended[1].code), archived)
