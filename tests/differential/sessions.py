"""The real command in a world: plans and applies, each held against the oracle."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.differential import oracle, table
from tests.differential.rounds import Flag, Moment, Round, Write, brief
from tests.differential.table import Table
from tests.differential.truth import Json
from tests.differential.world import TOKEN, World
from tests.support.fault_trials import FAULTS, Choose, Faulty, Request, no_fault
from tests.support.fork_server import Ended, ForkServer

RECOVERIES = 3
"""Applies without faults within which everything is as if there had been none."""
RESEND = 0.3
"""Seconds after which a lost create can no longer land; a late one lands sooner."""
QUICK = ("--timeout", "0.3", "--lookup-timeout", "0.1")
DIGEST = re.compile(r"^Digest: ([0-9a-f]+)$", re.MULTILINE)
UNPROCESSED = {kind for kind in FAULTS if f"{kind.removesuffix('-before')}-late" in FAULTS}
"""Faults by which a request is lost that a gateway may let through later."""
CODES = frozenset({0, 1, 2, 4, 5, 130, 143})


@dataclass(frozen=True)
class Options:
    """Options that a plan and its apply share."""

    targets: tuple[str, ...] = ()
    allow_archive: bool = False

    @property
    def arguments(self) -> list[str]:
        targets = [part for key in self.targets for part in ("--target", key)]
        return [*targets, *(["--allow-archive"] if self.allow_archive else [])]


def changes_of(plan: Json) -> int:
    """The number of changes that a plan counts, blocked ones among them."""
    return sum(count for name, count in plan["summary"].items() if name != "unchanged")


def is_whole(request: Request) -> bool:
    return len(request.body) == int(request.headers.get("content-length", 0))


@dataclass
class Session:
    """The command in a world, each run of it held against the oracle."""

    world: World
    fork_server: ForkServer
    faulty: Faulty
    parallelism: int
    counts: Counter[str] = field(default_factory=Counter)
    flags: list[Flag] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    sent: list[Request] = field(default_factory=list)
    let_go: set[str] = field(default_factory=set)
    """Ids that plans let go of since the last apply that was complete."""
    pending: bool = False
    """True if a run that was disturbed may have left something undone."""

    @property
    def rng(self) -> random.Random:
        return self.world.rng

    def flag(self, kind: str, detail: Any) -> None:
        self.flags.append(Flag(kind, str(detail)))

    def meet(self, choose: Choose) -> None:
        """Let requests meet these faults from now on, and keep what is sent."""

        def chosen(request: Request) -> str | None:
            self.sent.append(request)
            kind = choose(request)
            if request.method == "POST" and kind in UNPROCESSED and is_whole(request):
                self.world.held.append(json.loads(request.body))
            return kind

        self.faulty.choose = chosen

    # --- The command ---

    def run(self, *arguments: str, kill_at: int | None = None) -> Ended:
        """Run the command and hold it against what is true of any."""
        self.sent.clear()
        self.counts["commands"] += 1
        environ = {"POLAR_BASE_URL": self.faulty.url, "POLAR_ACCESS_TOKEN": TOKEN}
        ended = self.fork_server.run(self.world.directory, environ, *arguments, kill_at=kill_at)
        self.faulty.part()
        self.log.append(f"    {' '.join(arguments)} → {ended.code}, {self.writes}")
        if ended.code not in CODES and not (kill_at and ended.code == -9):
            self.flag("exit-code", f"{ended.code}: {ended.output}")
        if ended.code == 2 and "--detailed-exitcode" not in arguments:
            self.flag("exit-code", f"2: {ended.output}")
        if "Traceback" in ended.output:
            self.flag("traceback", ended.output)
        files = [path for path in self.world.directory.rglob("*") if path.is_file()]
        if TOKEN in ended.output or any(TOKEN.encode() in path.read_bytes() for path in files):
            self.flag("token", ended.output)
        return ended

    @property
    def writes(self) -> list[Write]:
        """The writes that were sent, except one that a kill cut off."""
        whole = (r for r in self.sent if r.method != "GET" and is_whole(r))
        return [Write(r.method, r.path.rpartition("/")[2], json.loads(r.body)) for r in whole]

    def moment(self) -> Moment:
        return Moment(self.world.live, self.world.lockfile_text, self.world.journal_text)

    def plan(self, options: Options, *more: str) -> tuple[Json | None, Ended]:
        """Plan; the document, if there is one."""
        self.counts["plans"] += 1
        before = self.moment()
        ended = self.run("plan", "-e", "sandbox", "--format", "json", *QUICK[2:], *options.arguments, *more)
        if any(request.method != "GET" for request in self.sent) or self.moment() != before:
            self.flag("plan-writes", self.writes)
        if "--offline" in more and self.sent:
            self.flag("offline-asks", self.sent)
        if ended.code not in (0, 2, 5) or not ended.stdout:
            self.flag("exit-code", f"plan: {ended.code}: {ended.output}")
            return None, ended
        document = json.loads(ended.stdout)
        differs = changes_of(document) and "--detailed-exitcode" in more
        due = 5 if "refusal" in document else 2 if differs else 0
        if ended.code != due:
            self.flag("exit-code", f"plan {more}: {ended.code} instead of {due}")
        if not (self.pending or not before.lockfile_is_complete or "--offline" in more):
            self.counts["decided"] += 1
            self.flags += table.flags(self.table(before, options), document, options.targets)
        summary = "; ".join(f"{brief(c)} {c.get('cause') or ''}" for c in document["changes"])
        kept = [f"{entry['action']} {entry['key']}" for entry in document["bookkeeping"]]
        self.log.append(f"      {summary or 'no changes'}; {kept} {document.get('refusal') or ''}")
        return document, ended

    def table(self, now: Moment, options: Options) -> Table:
        world = self.world
        return Table(
            world.meters,
            world.moved,
            now.records,
            now.meters,
            options.allow_archive,
            world.imports,
            world.removed,
        )

    @property
    def known_keys(self) -> set[str]:
        """The keys that may be a target."""
        return (self.world.meters.keys() | self.world.recorded.keys()) - self.world.moved.keys()

    def is_known(self, options: Options) -> bool:
        return self.known_keys.issuperset(options.targets)

    # --- Applies ---

    def refusals(self, plan: Json, more: Sequence[str], digest: str | None) -> set[int]:
        """The exit codes of which one is due where the whole apply is refused; none: it is permitted."""
        codes = {5} if "refusal" in plan else set()
        count = sum(change["action"] != "blocked" for change in plan["changes"])
        if more[:1] == ["--max-changes"] and count > int(more[1]):
            codes.add(5)
        if more[:1] == ["--digest"] and not plan["digest"].startswith(more[1]):
            codes.add(4)
        if digest is not None and digest != plan["digest"]:
            codes.add(4)
        return codes

    def apply_as(
        self,
        options: Options,
        more: Sequence[str] = (),
        digest: str | None = None,
        *,
        choose: Choose = no_fault,
        kill_at: int | None = None,
    ) -> None:
        """Plan, apply, and hold the two against each other. `digest` is that of the saved plan in `more`."""
        plan, _ = self.plan(options)
        if plan is None:
            return
        before, disturbed = self.moment(), choose is not no_fault or kill_at is not None
        served = self.faulty.served.total()
        self.meet(choose)
        ended = self.run(*self.arguments(options, more, digest), kill_at=kill_at)
        self.meet(no_fault)
        self.counts["applies"] += 1
        self.counts["faults"] += self.faulty.served.total() - served
        self.counts["kills"] += ended.code == -9
        after = self.moment()
        self.world.made |= after.meters.keys() - before.meters.keys()
        self.world.keep_lockfile()
        refusals = self.refusals(plan, more, digest)
        calm = not disturbed and not self.pending
        if refusals and ended.code not in refusals and not disturbed:
            self.flag("exit-code", f"{ended.code} instead of {refusals}: {ended.output}")
        if not refusals and ended.code in (4, 5):
            self.flag("exit-code", f"{ended.code}, and the plan is permitted: {ended.output}")
        if (shown_digest := DIGEST.search(ended.output)) and not plan["digest"].startswith(shown_digest[1]):
            self.flag("other-plan", f"the plan just before was {[brief(c) for c in plan['changes']]}")
        complete = calm or ended.code == 0
        of = Round(
            declared=self.world.meters,
            plan=plan,
            targets=options.targets,
            allow_archive=options.allow_archive,
            permitted=not refusals,
            calm=calm,
            complete=complete,
            before=before,
            after=after,
            sent=self.writes,
            code=ended.code,
            made=frozenset(self.world.made),
            let_go_before=frozenset(self.let_go),
            imports=frozenset(self.world.imports.values()),
        )
        self.flags += oracle.flags(of)
        self.let_go = set() if complete else self.let_go | of.lets_go
        if self.flags:
            self.log += [ended.output, f"before: {before.lockfile} {before.journal}"]
        if refusals or self.flags:
            return
        if complete:
            self.pending = self.pending and bool(options.targets)
            self.again(options, of)
        else:
            self.pending = disturbed or bool(options.targets) or self.is_left(of)

    def is_left(self, of: Round) -> bool:
        """True if one more apply could do something."""
        plan, _ = self.plan(Options(allow_archive=of.allow_archive))
        able = [c for c in plan["changes"] if c["action"] != "blocked"] if plan else []
        return bool(plan and plan["bookkeeping"]) or any(c["key"] not in of.refused for c in able)

    def arguments(self, options: Options, more: Sequence[str], digest: str | None) -> list[str]:
        asked = [] if digest is not None else ["-e", "sandbox", *options.arguments]
        at_once = ["--parallelism", str(self.parallelism)]
        return ["apply", *more, *asked, "-y", *QUICK, "--resend-after", str(RESEND), *at_once]

    def again(self, options: Options, of: Round) -> None:
        """After an apply nothing is left but what is blocked, and another one does nothing."""
        if not self.is_known(options):
            return
        plan, _ = self.plan(options, "--detailed-exitcode")
        if plan is None:
            return
        remaining = [change for change in plan["changes"] if change["action"] != "blocked"]
        blocked = {change["key"] for change in plan["changes"]}
        if remaining or plan["bookkeeping"]:
            self.flag("left-over", f"{[brief(c) for c in remaining]}, {plan['bookkeeping']}")
        if surplus := blocked - of.blocked.keys() - of.refused:
            self.flag("newly-blocked", surplus)
        if of.code == 0 or self.rng.random() < 0.3:
            self.second_apply(options)

    def second_apply(self, options: Options) -> None:
        before = self.moment()
        ended = self.run(*self.arguments(options, (), None))
        after = self.moment()
        if self.writes or (after.meters, after.lockfile) != (before.meters, before.lockfile):
            self.flag(
                "not-idempotent", f"exit {ended.code}: {self.writes}, {before.lockfile} → {after.lockfile}"
            )

    def recover(self) -> None:
        """Apply without faults until everything is as if there had been none."""
        for number in range(RECOVERIES):
            if not self.pending or self.flags:
                return
            if number:
                time.sleep(RESEND)
            self.counts["recoveries"] += 1
            self.apply_as(Options())
        if self.pending and not self.flags and not self.refused_now():
            self.flag("not-recovered", f"after {RECOVERIES} applies")

    def refused_now(self) -> bool:
        plan, _ = self.plan(Options())
        return plan is None or "refusal" in plan
