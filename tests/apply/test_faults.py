"""Applies against a Polar that misbehaves: each fault on its own, and a sample of the random ones."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from polar_iac.apply.creates import MAX_SENDS
from polar_iac.polar.client import PolarClient
from polar_iac.polar.retry import RetryPolicy
from tests.soak import attempt
from tests.soak.faults import LAG, LOOKUP_TIMEOUT, TIMEOUT, converge, small_scene
from tests.support.build import ORGANIZATION, meter
from tests.support.command import HANG_SECONDS, Workspace
from tests.support.fault_trials import FAULTS, FINAL, REFUSED, by_rule, faulty_polar

SEEDS = range(10)
PINNED = {"sandbox": {"organization_id": ORGANIZATION}}
# Each is a whole apply of many requests, through lines that the tests of the parts measure.
pytestmark = pytest.mark.unmeasured

PAGED = ("repeated-items", "repeated-page")
LONG = 120.0
"""A lookup timeout for creates that are found in the end, however slow the machine: finding them ends it."""


def time_out(kind: str) -> float:
    """Seconds that a client waits for an answer: forever where only a slow machine could make it wait."""
    return TIMEOUT if kind.startswith(("hang", "slow")) else HANG_SECONDS


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind not in (*PAGED, *FINAL)])
def test_one_fault_and_one_apply_is_enough(kind: str, tmp_path: Path) -> None:
    """The second request of a method meets the fault: of the creates it has company, of the reads it is one
    before a PATCH.
    """

    def meet(method: str) -> None:
        lookup_timeout = LOOKUP_TIMEOUT if kind.endswith("-before") else LONG
        choose = by_rule(kind, method, 2)
        outcome = converge(
            small_scene(),
            tmp_path / method,
            choose,
            applies=1,
            lookup_timeout=lookup_timeout,
            timeout=time_out(kind),
        )
        assert outcome.served == {f"{method} {kind}": 1}

    # Most of it is waiting: the three methods at a time.
    with ThreadPoolExecutor() as pool:
        list(pool.map(meet, ["POST", "PATCH", "GET"]))


@pytest.mark.parametrize("kind", ["502-late", "503-late", "504-late"])
def test_what_a_proxy_gave_up_may_still_land_beside_later_creates(kind: str, tmp_path: Path) -> None:
    """A gateway's error says nothing of the request behind it, so no witness may shorten the look for it."""
    outcome = converge(
        small_scene(creates=9),
        tmp_path,
        by_rule(kind, "POST", 1),
        applies=1,
        late=0.2,
        lookup_timeout=LONG,
        timeout=time_out(kind),
    )
    assert outcome.requests["POST"] == 9


@pytest.mark.parametrize("kind", PAGED)
def test_pages_that_repeat_hide_no_meter(kind: str) -> None:
    with (
        faulty_polar(page_size=3) as faulty,
        PolarClient(faulty.url, "polar_oat_test", retry=RetryPolicy(first_wait=0.001)) as client,
    ):
        made = [client.create_meter(meter(name=f"Meter {n}")).id for n in range(8)]
        faulty.choose = by_rule(kind, "GET", 2)
        assert [m.id for m in client.list_meters()] == made
        assert faulty.served == {f"GET {kind}": 1}


@pytest.mark.parametrize("kind", ["reset-late", "500-after", "hang-late", "cut"])
def test_a_lost_create_is_found_on_a_replica_that_lags(kind: str, tmp_path: Path) -> None:
    choose = by_rule(kind, "POST", 1, 3)
    outcome = converge(
        small_scene(creates=6),
        tmp_path,
        choose,
        applies=1,
        lag=LAG,
        lookup_timeout=LONG,
        timeout=time_out(kind),
    )
    assert outcome.requests["POST"] == 6
    assert outcome.served["GET lag"]


@pytest.mark.parametrize("kind", ["reset-after", "500-after", "504-late", "hang-late"])
def test_creates_that_are_never_answered_are_all_found(kind: str, tmp_path: Path) -> None:
    choose = by_rule(kind, "POST")
    outcome = converge(
        small_scene(creates=6),
        tmp_path,
        choose,
        applies=1,
        lag=LAG,
        lookup_timeout=LONG,
        timeout=time_out(kind),
    )
    assert outcome.requests["POST"] == 6


@pytest.mark.parametrize("kind", ["reset-before", "503-before"])
def test_when_polar_is_away_for_a_while_the_next_apply_goes_on(kind: str, tmp_path: Path) -> None:
    """Away for the writes of the first apply: each create is sent twice, each PATCH six times."""
    writes = by_rule(kind, "POST", *range(1, 5)), by_rule(kind, "PATCH", *range(1, 43))
    outcome = converge(small_scene(), tmp_path, lambda r: writes[0](r) or writes[1](r), applies=2)
    assert outcome.applies == 2


def test_a_slow_lookup_does_not_count_as_a_late_one(tmp_path: Path) -> None:
    """The answer arrives after the lookup timeout, but shows the time before the create could be seen."""
    lookup = by_rule("slow", "GET", 1, when=lambda request: "metadata" in request.query)
    lost = by_rule("reset-after", "POST", 1)
    outcome = converge(
        small_scene(), tmp_path, lambda r: lookup(r) or lost(r), applies=1, lag=LAG, drip=LOOKUP_TIMEOUT / 6
    )
    assert outcome.served["GET slow"] == outcome.served["POST reset-after"] == 1
    assert outcome.requests["POST"] == 2


@pytest.mark.parametrize("seeds", [SEEDS[n::5] for n in range(5)], ids=str)
def test_random_faults_end_in_what_was_declared(seeds: Sequence[int]) -> None:
    with ThreadPoolExecutor() as pool:
        attempts = list(pool.map(lambda seed: attempt("faults", seed), seeds))
    failed = "\n".join(f"seed {seed}: {error}" for seed, _, error in attempts if error)
    assert not failed, failed


class TestAnEmptyOrganizationThatIsNotThePinnedOne:
    """Until an answer tells whose the token is, nothing goes beside a create."""

    def test_the_first_creates_answer_is_lost(self, workspace: Workspace) -> None:
        workspace.write({"a": meter(), "b": meter()}, environments=PINNED)
        with faulty_polar(choose=by_rule("reset-after", "POST", 1)) as faulty:
            done = workspace.run("apply", "-e", "sandbox", "-y", POLAR_BASE_URL=faulty.url)
            assert done.returncode == 1
            assert f"belongs to organization {faulty.polar.organization_id}" in done.stderr
            assert faulty.requests["POST"] == 1
            # No 201 says that it is this run's: it is named, not touched.
            assert faulty.requests["PATCH"] == 0
            assert "bears the marker acme/a there" in done.stderr

    def test_the_first_creates_are_refused(self, workspace: Workspace) -> None:
        keys = [f"m{number}" for number in range(6)]
        workspace.write({key: meter() for key in keys}, environments=PINNED)
        with faulty_polar(choose=by_rule(REFUSED, "POST", 1, 2)) as faulty:
            done = workspace.run("apply", "-e", "sandbox", "-y", POLAR_BASE_URL=faulty.url)
            assert done.returncode == 1
            assert faulty.requests["POST"] == 3
            assert "is archived; nothing else was done" in done.stderr

    def test_what_was_created_there_cannot_be_archived(self, workspace: Workspace) -> None:
        workspace.write({"a": meter(), "b": meter()}, environments=PINNED)
        with faulty_polar(choose=by_rule(REFUSED, "PATCH")) as faulty:
            done = workspace.run("apply", "-e", "sandbox", "-y", POLAR_BASE_URL=faulty.url)
            assert done.returncode == 1
            assert "was created there and should be archived" in done.stderr
            assert faulty.requests["POST"] == 1


def test_a_run_ends_soon_if_no_create_succeeds(workspace: Workspace) -> None:
    """Polar still lists, but takes no create: after eight that came to nothing no other is tried."""
    workspace.write({f"m{number:02}": meter() for number in range(30)})
    with faulty_polar(choose=by_rule("503-before", "POST")) as faulty:
        done = workspace.run(
            "apply",
            "-e",
            "sandbox",
            "-y",
            "--lookup-timeout",
            "0",
            "--resend-after",
            "0",
            POLAR_BASE_URL=faulty.url,
        )
        assert done.returncode == 1
        assert "skipped: 8 creates in a row failed" in done.stdout
        assert faulty.requests["POST"] <= MAX_SENDS * (8 + 3)
