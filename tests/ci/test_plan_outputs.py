"""Outputs of the action `plan`: what saved plans mean to the steps and jobs after it."""

from __future__ import annotations

from dataclasses import replace

from polar_iac.ci.plan_outputs import plan_step_outputs
from polar_iac.plan.model import MeterTests, Plan
from tests.support.build import desired, live, meter, plan, record

HEAD = desired({"calls": meter()})
SAME = plan(HEAD, {"calls": record(1)}, [live(1)])
NEW = plan(HEAD, {}, [])
ADOPTED = plan(HEAD, {}, [live(1)])
UNLISTED = plan(
    desired({"calls": meter()}), {"calls": record(1), "gone": record(2)}, [live(1), live(2, "gone")]
)
BLOCKED = plan(HEAD, {"calls": record(1)}, [live(1, "other")])


def outputs(*plans: Plan, base: bool = False) -> dict[str, str]:
    return dict(plan_step_outputs(plans, ["sandbox", "production"], HEAD, HEAD if base else None))


def test_what_differs_and_what_an_apply_has_to_do() -> None:
    flags = {
        name: (outputs(made)["differs"], outputs(made)["needed"], outputs(made)["refused"])
        for name, made in {"same": SAME, "new": NEW, "adopted": ADOPTED, "unlisted": UNLISTED}.items()
    }
    assert flags == {
        "same": ("false", "false", "false"),
        "new": ("true", "true", "false"),
        "adopted": ("false", "true", "false"),  # for the lockfile alone
        "unlisted": ("true", "true", "true"),
    }
    both = outputs(SAME, replace(NEW, environment="production"))
    assert (both["differs"], both["needed"], both["unplanned"]) == ("true", "true", "")
    assert outputs(SAME)["unplanned"] == "production"


def test_blocked_meters_count_where_their_blocks_changed() -> None:
    assert (outputs(BLOCKED)["blocked"], outputs(BLOCKED)["blocked_before"]) == ("`calls`", "")
    before = outputs(BLOCKED, base=True)
    assert (before["blocked"], before["blocked_before"]) == ("", "`calls`")


def test_tests_are_an_output_where_they_fail_the_check() -> None:
    said = {
        tested: outputs(replace(SAME, tests=tested))["tests"]
        for tested in (None, MeterTests(14, 0), MeterTests(13, 1), MeterTests(0, 0, 2))
    }
    assert list(said.values()) == [
        "",
        "",
        "1 of 14 tests failed",
        "no test was run: the files of tests have 2 errors",
    ]


def test_no_key_breaks_out_of_an_output() -> None:
    """A key of a lockfile is somebody's text."""
    odd = replace(BLOCKED, changes=tuple(replace(change, key="a`\n::x") for change in BLOCKED.changes))
    assert outputs(odd)["blocked"] == "`a????x`"
