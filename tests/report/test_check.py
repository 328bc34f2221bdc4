"""What a check found, as text, Markdown and JSON: golden files, limits, and untrusted names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from polar_iac.ci.github import GitHubLinks
from polar_iac.facts.model import EventName, Gap, Price
from polar_iac.plan.check import (
    Archived,
    BlockedKey,
    Check,
    Drifted,
    Finding,
    NeverCounted,
    Stopped,
    Uncounted,
    Watched,
)
from polar_iac.plan.drift import Drift, MeterDrift, find_drift
from polar_iac.report.check import check_json, check_text, day
from polar_iac.report.check_formats import CHECK_RENDERERS
from polar_iac.report.comment.check import check_markdown
from tests.support.build import ORGANIZATION, PROJECT, desired, identifier, live, meter, plan, record
from tests.support.comments import read_comment
from tests.support.golden import golden, golden_block

GOLDEN = Path(__file__).parent / "golden"
DOCUMENT = Path(__file__).parents[2] / "docs" / "checking.md"
LINKS = GitHubLinks("https://github.com", "acme/billing", "3f2a9c41d07be58c6a1f04d2e97bb8350c1d6e7a")
NOW = "2026-11-26T12:00:00Z"


def price(number: int, product: str) -> Price:
    return Price(f"price-{number}", identifier(1), f"product-{number}", product, False, "0.500000000000")


def name(text: str, occurrences: int = 38_911, first: str = "2026-11-24T09:00:00Z") -> EventName:
    return EventName(text, "user", occurrences, first, NOW)


def watched(number: int, key: str, **fields: Any) -> Watched:
    source = desired({key: meter()}).meters[key].span
    return Watched(key, live(number, key, created_at="2026-11-03T08:00:00.000000Z", **fields), source)


def check_of(
    *findings: Finding, gaps: tuple[Gap, ...] = (), drifted: tuple[MeterDrift, ...] = (), watched: int = 5
) -> Check:
    drift = Drift("sandbox", ORGANIZATION, PROJECT, drifted, 5, "meters.yaml", "meters.lock.json")
    return Check(drift, findings, gaps, NOW, requests=7, watched=watched)


TOKENS = watched(1, "llm-tokens", name="LLM tokens")
PRICES = (price(1, "Pro"), price(2, "Team"))
STOPPED = Stopped(TOKENS, "2026-11-24", 41_200.0, PRICES)
RENAMED = Uncounted(name("llm.completions"), "llm.completion", TOKENS.meter, "llm-tokens")
NO_TOKEN = "there is no token in POLAR_FACTS_TOKEN_SANDBOX"


@pytest.fixture(scope="module")
def everything() -> Check:
    """Each kind of finding, and each kind of gap."""
    manifest = desired(
        {
            "calls": meter(name="Calls"),
            "seats": meter(name="Seats", aggregation={"func": "max", "property": "n"}),
        }
    )
    recorded = {"calls": record(3, name="Calls"), "seats": record(4, name="Seats", frozen=True)}
    meters = [live(3, "calls", name="Changed"), live(4, "seats", name="Seats")]
    drifted = find_drift(manifest, recorded, meters, environment="sandbox")
    blocked = [change for change in plan(manifest, recorded, meters).changes if change.action == "blocked"]
    old = watched(6, "old", archived_at="2025-11-03T08:00:00.000000Z")
    other = live(9, None, name="Somebody's meter")
    findings: tuple[Finding, ...] = (
        STOPPED,
        Stopped(watched(2, "peak"), "2026-11-24", None, None),
        RENAMED,
        Uncounted(name("exports", 1), "export", other),
        Uncounted(name("zebra", 12, "2025-12-31T23:59:59Z")),
        Archived(old, tuple(price(number, f"Product {number}") for number in range(5))),
        NeverCounted(watched(7, "images"), ()),
        NeverCounted(watched(8, "audio"), PRICES[:1], "audio_call", "audio.call"),
        NeverCounted(watched(9, "video"), None, "zebra"),
        *map(BlockedKey, blocked),
        *map(Drifted, drifted),
    )
    gaps = (
        Gap("products", "scope", NO_TOKEN),
        Gap("names", "scope", NO_TOKEN),
        Gap("usage", "limited", "Polar limits the rate of requests (429)", ("a", "b", "c", "d", "e")),
    )
    return check_of(*findings, gaps=gaps, drifted=drifted)


def text_of(check: Check) -> str:
    return click.unstyle(check_text(check, "meters.yaml"))


def markdown_of(*checks: Check) -> str:
    return check_markdown(checks, manifest_file="meters.yaml", links=LINKS)


def test_the_commonest_loss_an_event_that_was_renamed() -> None:
    assert text_of(check_of(STOPPED, RENAMED)) == (
        "meters.yaml → sandbox · organization 1dbfc517\n"
        "\n"
        "! llm-tokens       counted 41,200 a day until Nov 24, nothing since.   Price on: Pro, Team\n"
        "! llm.completions  38,911 events since Nov 24, counted by no meter.    "
        "Nearest: llm.completion (llm-tokens)\n"
        "\n"
        "Check: 2 things are wrong. 5 meters were looked at.\n"
    )
    golden_block(DOCUMENT, "check", text_of(check_of(STOPPED, RENAMED)))


def test_golden_files(everything: Check) -> None:
    golden(GOLDEN / "check.txt", text_of(everything))
    golden(GOLDEN / "check.md", markdown_of(everything))
    golden(GOLDEN / "check.json", check_json([everything]))


def test_nothing_is_wrong() -> None:
    assert text_of(check_of(watched=1)).endswith("\n\nCheck: nothing is wrong. 1 meter was looked at.\n")
    gap = Gap("names", "scope", NO_TOKEN)
    assert text_of(check_of(gaps=(gap,))).endswith(
        f"\n\nnot checked: event names ({NO_TOKEN})\n"
        "Check: nothing is wrong in what could be read. 5 meters were looked at.\n"
    )
    markdown = markdown_of(check_of(), check_of())
    assert markdown.startswith("### Polar meters: nothing wrong · ")
    assert markdown.endswith("<!-- polar-iac:acme:sandbox -->\n")


def test_what_one_meter_counts_could_not_be_read() -> None:
    gap = Gap("usage", "timeout", "the 20 s of --facts-timeout are over", ("calls",))
    assert "not checked: what calls counts (the 20 s of --facts-timeout are over)" in text_of(
        check_of(gaps=(gap,))
    )


@pytest.mark.parametrize(
    ("daily", "shown"),
    [
        (41_199.6, "41,200"),
        (9.96, "10"),
        (10.4, "10"),
        (3.0, "3"),
        (0.25, "0.2"),
        (-12.3, "-12"),
        (0.003, "0.003"),
        (1e300, "1e+300"),
    ],
)
def test_a_quantity_a_day_has_a_digit_more_where_it_is_small(daily: float, shown: str) -> None:
    assert f"counted {shown} a day until" in text_of(check_of(replace(STOPPED, daily=daily)))


def test_a_date_of_another_year_says_so() -> None:
    assert day("2026-01-01", "2026-11-26") == "Jan 1"
    assert day("2025-12-31T23:59:59Z", "2026-01-01") == "Dec 31, 2025"


def test_no_name_acts_as_markup_or_moves_the_cursor() -> None:
    bad = "a\x1b[2K`|<b>@x\n# y"
    found = check_of(
        Uncounted(name(bad), bad, TOKENS.meter),
        replace(STOPPED, prices=(price(1, bad),)),
        gaps=(Gap("names", "failed", bad, (bad,)),),
    )
    text = text_of(found)
    assert "\x1b" not in text
    assert "\n# y" not in text
    read_comment(markdown_of(found))
    assert json.loads(check_json([found]))["check"][0]["findings"][0]["data"]["event"] == bad


def test_many_event_names_are_counted_and_a_long_list_fits_an_issue() -> None:
    names = [Uncounted(name(f"event-{number}", 1_000 - number)) for number in range(30)]
    text = text_of(check_of(STOPPED, *names, NeverCounted(TOKENS, ())))
    assert "event-19" in text
    assert "event-20" not in text
    assert "  and 10 more event names that no meter counts\n" in text
    assert "Check: 32 things are wrong." in text
    many = [replace(STOPPED, watched=watched(number, f"meter-{number}-" + "x" * 40)) for number in range(900)]
    markdown = markdown_of(check_of(*many, *names))
    assert len(markdown.encode()) < 14_000
    assert "more findings: `polar-iac check --format json` has them all" in markdown


def test_each_format_of_a_plan_is_one_of_a_check() -> None:
    assert set(CHECK_RENDERERS) == {"text", "json", "markdown"}
