"""Random histories: what a team does, step by step."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from polar_iac.local import LocalPolar
from tests.differential import dashboard_edits, late, lockfile_edits, manifest_edits
from tests.differential.rounds import Flag
from tests.differential.sessions import UNPROCESSED, Options, Session
from tests.differential.truth import MARKER, typed
from tests.differential.world import new_world
from tests.support.fault_trials import (
    COSTLY,
    FAULTS,
    FINAL,
    Choose,
    at_random,
    by_rule,
    faulty_polar,
    no_fault,
)
from tests.support.fork_server import ForkServer

STEPS = 40
KINDS = sorted(set(FAULTS) - COSTLY - FINAL)
LAST_BOUNDARY = 45
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Saved:
    """A plan that was saved."""

    file: str
    options: Options
    digest: str


@dataclass(frozen=True)
class Outcome:
    """The counts of a history, and the flags of its last step."""

    counts: Counter[str]
    flags: tuple[Flag, ...]
    log: tuple[str, ...]


class FlaggedError(AssertionError):
    """A history did what must not be. Holds its outcome."""

    def __init__(self, result: Outcome) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        flags = [f"{flag.kind}: {flag.detail}" for flag in self.result.flags]
        return _legible("\n".join([*self.result.log, "", *flags]))

    def __reduce__(self) -> tuple[type[FlaggedError], tuple[Outcome]]:
        return FlaggedError, (self.result,)


def _legible(text: str) -> str:
    """A text with short names for ids, the same in two runs."""
    names: dict[str, str] = {}
    return UUID.sub(lambda match: names.setdefault(match[0], f"meter-{len(names) + 1}"), text)


@dataclass
class History(Session):
    """One history under way."""

    saved: list[Saved] = field(default_factory=list)
    last: tuple[Options, str] = (Options(), "0" * 64)
    """The options and the digest of the last plan that a step took."""

    def some_options(self) -> Options:
        keys = sorted(self.known_keys)
        targets = self.rng.sample(keys, 1) if keys and self.rng.random() < 0.15 else []
        return Options(tuple(targets), self.rng.random() < 0.35)

    def manifest(self) -> str:
        return manifest_edits.edit(self.world)

    def dashboard(self) -> str:
        return dashboard_edits.edit(self.world)

    def lockfile(self) -> str:
        return lockfile_edits.edit(self.world)

    def repair(self) -> str:
        return lockfile_edits.repair(self.world)

    def take_plan(self) -> str:
        """Plan, in one of the ways to do that."""
        options, more = self.some_options(), list[str]()
        offline = self.rng.random() < 0.15
        more += ["--offline"] if offline else []
        more += ["--detailed-exitcode"] if self.rng.random() < 0.3 else []
        file = f"plan-{len(self.saved)}.json" if self.rng.random() < 0.4 else ""
        more += ["--out", file] if file else []
        document, _ = self.plan(options, *more)
        if document is not None:
            self.last = options, document["digest"]
            if file:
                self.saved.append(Saved(file, options, document["digest"]))
        return f"plan {more}"

    def apply(self) -> str:
        """Apply what is there, some with a condition that may not hold."""
        options, more = self.some_options(), list[str]()
        choice = self.rng.random()
        if choice < 0.1:
            options = self.last[0]
            more = ["--digest", self.last[1][: self.rng.choice([32, 64])]]
        elif choice < 0.2:
            more = ["--max-changes", str(self.rng.randint(0, 4))]
        if not self.is_known(options):
            options, more = Options(), []
        self.apply_as(options, more)
        return "apply"

    def apply_saved(self) -> str:
        """Apply a plan that was saved, fresh or stale."""
        if not self.saved:
            return "apply no saved plan"
        saved = self.rng.choice(self.saved[-3:])
        if not self.is_known(saved.options):
            return "apply no saved plan: its target is gone"
        self.apply_as(saved.options, [saved.file], saved.digest)
        return f"apply {saved}"

    def apply_fresh(self) -> str:
        """Save a plan, and apply just that."""
        options = self.some_options()
        document, _ = self.plan(options, "--out", "fresh.json")
        if document is not None:
            self.apply_as(options, ["fresh.json"], document["digest"])
        return "apply a fresh plan"

    def apply_disturbed(self) -> str:
        """Apply under faults, or be killed, or both; and go on from there, now or later."""
        for _ in range(self.rng.randint(1, 3)):
            manifest_edits.edit(self.world)
        options = Options((), self.rng.random() < 0.6)
        kill_at = self.rng.randint(1, LAST_BOUNDARY) if self.rng.random() < 0.4 else None
        choose = self.some_faults() if kill_at is None or self.rng.random() < 0.2 else no_fault
        self.apply_as(options, [], choose=choose, kill_at=kill_at)
        if not self.flags and self.rng.random() < 0.6:
            self.recover()
        if not self.flags and self.rng.random() < 0.5:
            self.log.append(f"    {self.land_late()}")
        return f"apply, disturbed, kill_at={kill_at}"

    def land_late(self) -> str:
        """Let one of the creates land that were lost."""
        held = self.world.held
        if not held:
            return "nothing lands"
        held.sort(key=typed)  # The threads of an apply have no order.
        body = held.pop(self.rng.randrange(len(held)))
        return f"{late.land(self, body)} lands late, marked {body['metadata'][MARKER]}"

    def some_faults(self) -> Choose:
        if self.rng.random() < 0.5:
            method, kind = self.rng.choice(["POST", "POST", "PATCH", "GET"]), self.rng.choice(KINDS)
            if method == "POST" and self.rng.random() < 0.4:
                kind = self.rng.choice(sorted(UNPROCESSED))
            return by_rule(kind, method, *self.rng.sample([1, 2, 3], 2))
        rates = {"GET": self.rng.choice([0.0, 0.15]), "POST": 0.6, "PATCH": 0.5}
        return at_random(self.rng.randrange(1 << 30), rates, self.rng.sample(KINDS, 5))


STEPS_BY_WEIGHT: tuple[tuple[int, Callable[[History], str]], ...] = (
    (30, History.manifest),
    (20, History.dashboard),
    (6, History.lockfile),
    (6, History.repair),
    (8, History.take_plan),
    (18, History.apply),
    (3, History.apply_saved),
    (3, History.apply_fresh),
    (13, History.apply_disturbed),
    (3, History.land_late),
)


@contextmanager
def new_history(seed: int, directory: Path, fork_server: ForkServer) -> Iterator[History]:
    polar = LocalPolar()
    try:
        with faulty_polar(polar) as faulty, new_world(directory, polar) as world:
            history = History(world, fork_server, faulty, parallelism=4 if seed % 3 == 0 else 1)
            history.meet(no_fault)
            yield history
    finally:
        polar.close()


def play(
    seed: int,
    directory: Path,
    fork_server: ForkServer,
    *,
    steps: int = STEPS,
    without: frozenset[int] = frozenset(),
) -> Outcome:
    """Play a history, without some of its steps, up to the first that is flagged."""
    with new_history(seed, directory, fork_server) as history:
        weights, choices = zip(*STEPS_BY_WEIGHT, strict=True)
        for number in range(steps):
            if number in without:
                continue
            rng = history.world.rng = random.Random(f"{seed} {number}")
            history.counts["steps"] += 1
            said = rng.choices(choices, weights)[0](history)
            history.log.append(f"{number}. {said}")
            if history.flags:
                break
        for flag in history.flags:
            history.counts[f"flag {flag.kind}"] += 1
        return Outcome(history.counts, tuple(history.flags), tuple(history.log))


def trial(seed: int, directory: Path, fork_server: ForkServer) -> Outcome:
    """Play a history; raises FlaggedError when it is flagged."""
    outcome = play(seed, directory, fork_server)
    if outcome.flags:
        raise FlaggedError(outcome)
    return outcome
