"""Comments on pull requests: golden ones of every size, read back by a Markdown parser; saved plans."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from polar_iac.apply.events import Applied, Event, Failed
from polar_iac.ci.annotations import error_annotation, plan_annotations
from polar_iac.ci.github import GitHub, GitHubLinks, output_lines, workflow_commands, working_directory
from polar_iac.ci.host import host_for
from polar_iac.ci.publish import plan_outputs
from polar_iac.cli.plan_output import render_context
from polar_iac.errors import PolarIacError
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.document import (
    plan_document,
    plan_json,
    plans_json,
)
from polar_iac.plan.model import Note, Plan
from polar_iac.plan.read_document import plan_from_document, plans_from_document
from polar_iac.report.comment.budget import Budget, fair_cap
from polar_iac.report.comment.document import comment_marker, headline, plan_markdown
from polar_iac.report.formats import RENDERERS
from polar_iac.report.headlines import KEPT
from polar_iac.report.risks import GRADE_SIGNS, risk, risks
from polar_iac.report.text import plan_text, refusal_text
from tests.report.test_text import GOLDEN, clause, either, every
from tests.support import strategies
from tests.support.build import ORGANIZATION, desired, identifier, live, meter, plan, record, without_lint
from tests.support.comments import HOME, read_commands, read_comment, read_outputs
from tests.support.examples import examples
from tests.support.golden import golden
from tests.support.shared import shared

SHA = "3f2a9c41d07be58c6a1f04d2e97bb8350c1d6e7a"
LINKS = GitHubLinks("https://github.com", "acme/billing", SHA, run_id="9182736450")
GITHUB_TAKES = 65_536
PRODUCTION = "7c0a33de-5a6e-4a3f-9d0b-1c5e8f7a2b44"

COMPLETION = clause("name", "eq", "llm.completion")
IMAGE = clause("name", "eq", "image.generated")


def commands_for(*plans: Plan, directory: str = "") -> str:
    """Return the workflow commands that GitHub Actions gets for plans."""
    return workflow_commands(plan_annotations(plans, GitHub.annotation_limit), directory)


def comment(*plans: Plan, **options: Any) -> str:
    options = {"manifest_file": "meters.yaml", "links": LINKS, **options}
    return plan_markdown(plans, **options)


# Plans of every size


def small_manifest() -> Any:
    """A few meters of a product, as teams write them."""
    return desired(
        {
            "premium-completions": meter(
                name="Premium completions",
                filter=every(
                    COMPLETION,
                    either(
                        clause("model", "like", "gpt-5"),
                        clause("model", "like", "opus"),
                        clause("usage.input_tokens", "gte", 200000),
                    ),
                ),
                metadata={"team": "ai"},
            ),
            "images": meter(
                name="Images generated",
                filter=every(IMAGE, clause("refused", "eq", False)),
                aggregation={"func": "sum", "property": "count"},
                unit="custom",
                custom_label="image",
                metadata={"team": "ai", "tier": 2},
            ),
            "transcription-minutes": meter(
                name="Transcription",
                filter=every(clause("name", "eq", "audio.transcribed")),
                aggregation={"func": "sum", "property": "seconds"},
                unit="custom",
                custom_label="minute",
                custom_multiplier=60,
            ),
            "legacy-exports": meter(name="Exports (legacy)", archived=True),
            "seats": meter(name="Seats", filter=every(clause("name", "eq", "session.started"))),
        }
    )


PREMIUM: dict[str, Any] = {
    "name": "Premium completions",
    "filter": every(
        COMPLETION,
        either(
            clause("model", "like", "gpt-5"),
            clause("model", "like", "opus"),
            clause("usage.input_tokens", "gte", 100000),
        ),
    ),
    "metadata": {"team": "ai"},
}
IMAGES: dict[str, Any] = {
    "name": "Images",
    "filter": every(IMAGE, clause("refused", "eq", False)),
    "aggregation": {"func": "sum", "property": "count"},
    "unit": "custom",
    "custom_label": "image",
    "metadata": {"team": "ai", "tier": 2},
}
SEATS: dict[str, Any] = {"name": "Seats", "filter": every(clause("name", "eq", "session.started"))}


@cache
def few() -> Plan:
    """A pull request as they mostly are."""
    recorded = {
        "premium-completions": record(1, **PREMIUM),
        "images": record(2, **IMAGES),
        "legacy-exports": record(3, name="Exports (legacy)"),
        "seats": record(4, **SEATS),
    }
    meters = [
        live(1, "premium-completions", **PREMIUM),
        live(2, "images", **IMAGES | {"metadata": {"team": "growth", "tier": 2}}),
        live(3, "legacy-exports", name="Exports (legacy)"),
        live(4, "seats", **SEATS),
    ]
    return plan(small_manifest(), recorded, meters)


@cache
def in_production() -> Plan:
    """The same manifest where images are new, premium completions frozen, and exports not archived yet."""
    recorded = {
        "premium-completions": record(1, frozen=True, **PREMIUM),
        "legacy-exports": record(3, name="Exports (legacy)"),
        "seats": record(4, **SEATS),
    }
    meters = [
        live(1, "premium-completions", **PREMIUM),
        live(3, "legacy-exports", name="Exports (legacy)"),
        live(4, "seats", **SEATS | {"name": "Seats (active)"}),
    ]
    return plan(small_manifest(), recorded, meters, environment="production", organization_id=PRODUCTION)


@cache
def one() -> Plan:
    """One threshold."""
    manifest = desired({"premium-completions": meter(**PREMIUM | {"name": "Premium completions, all"})})
    return plan(
        manifest, {"premium-completions": record(1, **PREMIUM)}, [live(1, "premium-completions", **PREMIUM)]
    )


def nothing(**options: Any) -> Plan:
    manifest = desired({"calls": meter(), "seats": meter(**SEATS)})
    recorded = {"calls": record(1), "seats": record(2, **SEATS)}
    return plan(manifest, recorded, [live(1), live(2, "seats", **SEATS)], **options)


SERVICES = ("api", "llm", "images", "search", "storage", "egress", "email", "builds", "audio", "maps")


@cache
def many(count: int) -> Plan:
    """Of `count` meters two thirds new, the others changed in all the ways that there are."""
    meters, recorded, there = {}, {}, []
    for number in range(1, count + 1):
        service = SERVICES[number % len(SERVICES)]
        key = f"{service}-{number:04d}"
        before: dict[str, Any] = {
            "name": f"{service.capitalize()} {number}",
            "filter": every(clause("name", "eq", f"{service}.used"), clause("tier", "gte", number)),
            "metadata": {"team": service},
        }
        after = before
        match number % 15:
            case 1:
                after = before | {"filter": every(*before["filter"]["clauses"][:1], clause("tier", "gte", 0))}
            case 2:
                after = before | {"archived": True}
            case 3:
                after = before | {"name": f"{service.capitalize()}, region {number}"}
            case 4:
                after = before | {"metadata": {"team": "platform"}}
            case 5:
                after = before | {"aggregation": {"func": "sum", "property": "bytes"}}
        meters[key] = meter(**after)
        if after is not before:
            frozen = number % 15 == 5 and number % 2 == 0
            recorded[key] = record(number, frozen=frozen, **before)
            there.append(live(number, key, **before))
    return plan(without_lint(desired(meters), "equal-meters"), recorded, there)


@cache
def thousands() -> Plan:
    return shared("thousands", lambda: many(5_000))


@cache
def fifteen_hundred() -> Plan:
    """More than a comment, or a summary, takes."""
    return shared("fifteen-hundred", lambda: many(1_500))


def test_a_plan_without_changes_is_one_line() -> None:
    text = comment(nothing())
    golden(GOLDEN / "comment-0.md", text)
    read_comment(text)
    line, empty, marker, *rest = text.split("\n")
    assert line.startswith("Polar meters: no changes · sandbox.")
    assert (empty, marker, rest) == ("", "<!-- polar-iac:acme:sandbox -->", [""])


def test_two_plans_without_changes_are_one_line() -> None:
    text = comment(nothing(), nothing(environment="production"))
    read_comment(text)
    assert text.startswith("Polar meters: no changes · production and sandbox. 2 meters match ")


def test_a_comment_with_one_change_is_golden() -> None:
    text = comment(one())
    golden(GOLDEN / "comment-1.md", text)
    assert read_comment(text).headings[0] == "Polar meters: 1 to update · sandbox"


def test_a_comment_with_a_few_changes_is_golden() -> None:
    text = comment(few())
    golden(GOLDEN / "comment-few.md", text)
    parsed = read_comment(text)
    assert parsed.headings == [
        "Polar meters: 1 to create, 2 to update, 1 to archive · sandbox",
        "Look closely: 🔴 1 may change what is billed, 1 archives a meter · "
        "🟠 1 changes what customers read · ⚪ 1 overwrites a change made at Polar, 1 has another warning",
        "Other changes: 1 to create",
    ]
    assert "-     usage.input_tokens >= 100000" in parsed.code
    assert "+     usage.input_tokens >= 200000" in parsed.code
    assert f"{HOME}/blob/{SHA}/meters.yaml#L5" in parsed.links
    assert any("changed outside" in words for words in parsed.words)
    assert few().digest[:32] in parsed.code


def test_a_comment_with_thirty_changes_is_golden() -> None:
    text = comment(many(30))
    golden(GOLDEN / "comment-30.md", text)
    assert len(text) < GITHUB_TAKES
    assert sorted(keys_shown(text)) == [change.key for change in many(30).changes]


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_comment_with_five_thousand_changes_is_golden_and_cut() -> None:
    text = comment(thousands())
    golden(GOLDEN / "comment-5000.md", text)
    parsed = read_comment(text)
    assert 50_000 < len(text) < 60_000
    keys = keys_shown(text)
    cut = len(thousands().changes) - len(keys)
    risky = sum(risk(change) is not None for change in thousands().changes)
    notice = f"Cut: {cut:,} of 5,000 changes are not shown here, {risky - len(keys):,} of them risky."
    assert "".join(parsed.words).count(notice) == 2
    assert notice in text.split("\n")[2]  # right under the headline
    assert f"{HOME}/actions/runs/9182736450" in parsed.links
    # Each way of being risky has its share, open and folded, and of the rest at least the keys.
    said = re.compile(
        r"(?m)^(🔴|⛔|🟠) \*\*`[a-z0-9-]+`\*\*:? (counts|stops counting|cannot change|customers)"
    )
    verbs = Counter(said.findall(text))
    kinds = {("🔴", "counts"), ("🔴", "stops counting"), ("⛔", "cannot change"), ("🟠", "customers")}
    assert all(verbs[kind] > 25 for kind in kinds)
    by_key = Counter(re.findall(r"(?m)^- (🔴|⛔|🟠) \*\*`[a-z0-9-]+`\*\* ([a-z]+)$", text))
    assert all(by_key[kind] > 70 for kind in (("🔴", "update"), ("🔴", "archive"), ("🟠", "update")))
    opened = text.partition(" more to look at closely</summary>")[0]
    assert set(said.findall(opened)) == kinds


def test_a_comment_about_two_environments_is_golden() -> None:
    text = comment(few(), in_production())
    golden(GOLDEN / "comment-environments.md", text)
    parsed = read_comment(text)
    assert parsed.skeleton.count("table_open") == 2
    assert parsed.headings[0] == (
        "Polar meters<br>production: 2 to create, 1 to update, 1 to archive, 1 blocked<br>"
        "sandbox: 1 to create, 2 to update, 1 to archive"
    )
    assert "\n⛔ production: **premium-completions** cannot change: " in text
    assert "<br>\n🔴 sandbox: **premium-completions** counts less." in text
    images = text[text.index("⚪ production: **images** is new.") :]
    assert '| unit label | `"image"` | unchanged |' in images  # a new meter bills nothing: no field is marked
    assert '| name · invoice | `"Images generated"` | `"Images"` → ' in images
    assert sorted(keys_shown(text)) == sorted(
        {change.key for parsed in (few(), in_production()) for change in parsed.changes}
    )
    assert text.endswith("<!-- polar-iac:acme:production+sandbox -->\n")
    assert comment(in_production(), few()).endswith("<!-- polar-iac:acme:production+sandbox -->\n")


def test_a_comment_with_everything_is_golden() -> None:
    text = comment(plan_with_everything())
    golden(GOLDEN / "comment-everything.md", text)
    read_comment(text)


def plan_with_everything() -> Plan:
    """The plan of the golden text, from its own document."""
    return plan_from_document(json.loads((GOLDEN / "everything.json").read_bytes()))


def keys_shown(text: str) -> list[str]:
    """The keys in the headlines of changes, in their order."""
    signs = "|".join(GRADE_SIGNS.values())
    return [*dict.fromkeys(re.findall(rf"(?m)^(?:{signs}) (?:[a-z]+: )?\*\*`?([a-z0-9-]+)`?\*\*", text))]


# Size


def test_a_budget_pays_for_the_separators_too() -> None:
    budget = Budget.joined(10)
    assert budget.take("1234")
    assert (budget.room, budget.take("12345")) == (4, False)
    assert budget.take("1234")
    assert not budget.take("")
    assert len("\n\n".join(["1234", "1234"])) == 10


def test_a_budget_is_shared_by_max_min_fairness() -> None:
    assert Budget(12).share([2, 10, 10]) == fair_cap([2, 10, 10], 12) == 5
    assert Budget(30).share([2, 10, 10]) == 10
    assert Budget(-1).share([2, 10]) == 0


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_comment_is_cut_at_whole_changes() -> None:
    for limit in (4_000, 33_333, 300_000):
        text = comment(fifteen_hundred(), limit=limit)
        assert limit * 0.7 < len(text) <= limit
        parsed = read_comment(text)
        cut = len(fifteen_hundred().changes) - len(keys_shown(text))
        assert f"Cut: {cut:,} of 1,500 changes" in "".join(parsed.words), limit


@pytest.mark.unmeasured
def test_a_comment_that_fits_is_not_cut() -> None:
    planned = many(30)
    whole = comment(planned)
    for limit in (len(whole), len(whole) - 1):
        text = comment(planned, limit=limit)
        read_comment(text)
        assert len(text) <= limit


@pytest.mark.unmeasured
def test_a_change_too_big_for_a_comment_is_named() -> None:
    clauses = [clause(f"property_{n}", "eq", "🚀" * 200) for n in range(200)]
    planned = plan(desired({"calls": meter(filter=every(*clauses)), "other": meter(name="Other")}), {}, [])
    text = comment(planned)
    assert len(text.encode()) < GITHUB_TAKES
    assert keys_shown(text) == ["calls", "other"]
    read = read_comment(text)
    assert any(re.search(r"… \d+ more lines, in the summary of the workflow run", line) for line in read.code)


@cache
def wide(padding: int) -> Plan:
    """One filter of 200 clauses, each of them changed; values of `padding` characters."""
    before, after = (
        every(*(clause(f"p{n:03d}", "eq", side * padding) for n in range(200))) for side in ("x", "y")
    )
    changed = {"filter": after, "name": "New name", "aggregation": {"func": "sum", "property": "bytes"}}
    manifest = desired({"calls": meter(**changed), "other": meter()})
    return plan(manifest, {"calls": record(1, filter=before)}, [live(1, filter=before)])


@pytest.mark.unmeasured
def test_a_long_diff_takes_the_space_that_remains() -> None:
    """Two hundred clauses fit into a comment, whole."""
    read = read_comment(text := comment(wide(40)))
    assert 15_000 < len(text) < 30_000
    assert sum(line.startswith("+") for line in read.code) == 200
    assert "more line" not in text


@pytest.mark.unmeasured
@pytest.mark.parametrize("padding", [200, 900])
def test_a_cut_change_loses_lines_and_no_notes(padding: int) -> None:
    planned = wide(padding)
    text = comment(planned)
    assert 45_000 < len(text) <= 60_000
    read = read_comment(text)
    (notice,) = (line for line in read.code if "more line" in line)
    lines_cut = int(notice.replace(",", "").split()[1])
    assert sum(line.startswith(("+", "-")) for line in read.code) == 400 - lines_cut
    assert f"{HOME}/blob/{SHA}/meters.yaml#L5" in read.links
    words = "".join(read.words)
    assert "counts other events, and `sum(bytes)` instead of `count`. No longer counted, for example" in text
    assert KEPT in words
    assert "freeze unknown" in words
    # A long filter hides no other field.
    assert "- aggregation: `count` → `sum(bytes)` · **billing**\n" in text
    assert keys_shown(text) == ["calls", "other"]
    assert sum(line.startswith("+") for line in read_comment(comment(planned, limit=900_000)).code) == 200


@pytest.mark.unmeasured
@pytest.mark.parametrize("limit", [4_000, 4_700, 6_100, 9_300, 21_000, 60_000])
def test_no_comment_is_longer_than_it_may_be(limit: int) -> None:
    """In bytes, whatever it has to hold, and still what a reader can parse."""
    names = replace(many(100), environment="production")
    for plans in (
        [wide(300), in_production()],
        [wide(300), names],
        [plan_with_everything(), names],
        [many(90)],
    ):
        text = comment(*plans, limit=limit)
        assert len(text.encode()) <= limit
        read_comment(text)


def test_long_diffs_are_folded() -> None:
    clauses = [clause(f"property_{n:02d}", "eq", n) for n in range(40)]
    manifest = desired({"calls": meter(filter=every(*clauses))})
    text = comment(plan(manifest, {"calls": record(1)}, [live(1)]))
    read_comment(text)
    assert "<summary>42 lines</summary>" in text


# Details


def test_a_filter_that_holds_fences_stays_in_its_own() -> None:
    fences = every(clause("a", "eq", "```"), clause("````", "eq", "x"), clause("~~~", "eq", "~~~~"))
    planned = plan(desired({"calls": meter()}), {}, [live(1, filter=fences)])
    read = read_comment(comment(planned))
    assert read.skeleton.count("fence") == 1
    assert '-   a = "```"' in read.code


def test_an_offline_plan_is_marked_as_offline() -> None:
    planned = plan(desired({"a": meter()}), {}, None)
    assert "Planned offline" in "".join(read_comment(comment(planned)).words)
    both = "".join(read_comment(comment(planned, in_production())).words)
    assert "Planned offline for sandbox" in both


def test_a_removal_says_that_nothing_is_applied_and_what_to_paste() -> None:
    meters = [live(1, "calls", filter=every(IMAGE)), live(2, "old", **IMAGES), live(3, "seats", **SEATS)]
    recorded = {
        "calls": record(1, filter=every(IMAGE)),
        "old": record(2, **IMAGES),
        "seats": record(3, **SEATS),
    }
    declared = {"stays": meter(), "members": meter(**SEATS)}
    planned = plan(desired(declared), recorded, [*meters, live(4, "stays")])
    text = comment(planned)
    golden(GOLDEN / "comment-refused.md", text)
    read = read_comment(text)
    words = "".join(read.words)
    assert "will refuse this plan as a whole, before any effect:" in words
    assert "the others are carried out" not in words
    # Pasted as it is, it permits what it says.
    moved, blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert moved == "moved:\n  - {from: seats, to: members}\n"
    pasted = YAML(typ="safe", pure=True).load(blocks)["meters"]
    assert set(pasted) == {"calls", "old", "seats"}
    again = desired(
        declared | {key: pasted[key] for key in ("calls", "old")}, moved=[{"from": "seats", "to": "members"}]
    )
    again_plan = plan(again, recorded, [*meters, live(4, "stays")])
    assert headline([again_plan]) == "2 to archive, 1 to mark · sandbox"
    assert again_plan.refusal is None


def test_text_and_comment_explain_a_refusal_in_the_same_words() -> None:
    removal = plan(
        desired({"stays": meter(), "members": meter(**SEATS)}),
        {"seats": record(1, **SEATS), "stays": record(2)},
        [live(1, "seats", **SEATS), live(2, "stays")],
    )
    foreign = plan(desired({"a": meter()}), {"a": record(1)}, [])
    for refused in (removal, foreign):
        explained = comment(refused).partition("before any effect:**")[2].partition("####")[0]
        explained = re.sub("<[^>]*details>|<summary>.*</summary>|```yaml", "", explained)
        words = explained.replace("`", "").split()
        assert words == refusal_text(refused).replace("`", "").split()


def test_a_refusal_names_the_environment_it_is_about() -> None:
    removal = plan(
        desired({"stays": meter()}), {"calls": record(1), "stays": record(2)}, [live(1), live(2, "stays")]
    )
    foreign = plan(desired({"a": meter()}), {"a": record(1)}, [], environment="production")
    words = "".join(read_comment(comment(removal, foreign)).words)
    assert "will refuse the plan for sandbox as a whole, before any effect: 1 meter is gone" in words
    assert "will refuse the plan for production as a whole, before any effect: Polar knows none" in words
    assert "This is likely the wrong organization" in words


@pytest.mark.unmeasured
@pytest.mark.parametrize("limit", [4_000, 60_000])
def test_a_refusal_of_many_keys_fits_the_limit(limit: int) -> None:
    keys = [f"meter-{n:03d}" for n in range(300)]
    there = [
        live(n, key, filter=every(*(clause(f"p{n}-{m}", "eq", "x" * 50) for m in range(30))))
        for n, key in enumerate(keys, 1)
    ]
    recorded = {key: record(n) for n, key in enumerate(keys, 1)}
    text = comment(plan(desired({"a": meter()}), recorded, there), limit=limit)
    assert len(text) <= limit
    assert "will refuse" in "".join(read_comment(text).words)


def test_cut_notes_keep_their_first_words() -> None:
    text = comment(many(30))
    words = "".join(read_comment(text).words)
    assert "freeze unknown (note " in words
    assert "see note" not in words


def test_a_blocked_change_is_shown_as_wanted() -> None:
    text = comment(replace(in_production(), environment="sandbox"))
    title = text.index("⛔ **premium-completions** cannot change: ")
    assert title < text.index("Wanted:\n\nfilter · **billing**")


def test_an_archive_shows_what_is_no_longer_counted() -> None:
    assert '- no longer counted: `count` over `name = "call"`\n' in comment(few())


def test_a_change_made_at_polar_is_risky() -> None:
    planned = few()
    (images,) = (change for change in planned.changes if change.key == "images")
    assert risks(images) == ["invoice", "outside"]
    back = plan(
        desired({"calls": meter()}), {"calls": record(1)}, [live(1, archived_at="2026-05-01T00:00:00Z")]
    )
    assert [risk(change) for change in back.changes] == ["billing"]
    assert "Look closely: 🔴 1 may change what is billed" in comment(back)


def test_a_long_path_is_linked_whole() -> None:
    path = "/".join(["services"] * 20) + "/meters.yaml"
    read = read_comment(comment(one(), manifest_file=path))
    assert f"{HOME}/blob/{SHA}/{path}" in read.links
    assert all(len(line) < 110 for line in read.code)


def test_bookkeeping_alone_is_not_a_change() -> None:
    manifest = desired({"calls": meter()}, moved=[{"from": "old", "to": "calls"}])
    text = comment(plan(manifest, {"old": record(1)}, [live(1, "calls")]))
    assert text.startswith("Polar meters: no changes · sandbox.")
    assert "moved: the same meter under a new key" in "".join(read_comment(text).words)


def test_notes_alone_are_not_a_change() -> None:
    manifest = desired({"calls": meter()}, removed=[{"from": "gone"}])
    text = comment(plan(manifest, {"calls": record(1)}, [live(1)]))
    assert text.startswith("Polar meters: no changes · sandbox.")
    assert "which is not in this lockfile: nothing is left to do" in "".join(read_comment(text).words)


def test_what_was_so_before_the_pull_request_is_not_in_its_comment() -> None:
    planned = plan(desired({}), {}, [live(1, "zeta-a")])
    assert comment(planned).count("\n") == 3
    assert "neither this manifest nor this lockfile knows it" in plan_text(planned, "meters.yaml")


def test_evidence_says_where_it_is_from() -> None:
    fact = Note("usage", "info", "1200 events in 30 days", "polar", "2026-05-01T00:00:00Z")
    planned = one()
    planned = replace(planned, changes=(replace(planned.changes[0], notes=(fact,)),))
    read = read_comment(comment(planned))
    assert {"polar", "2026-05-01T00:00Z"} <= set(read.code)


def test_equal_names_are_distinguished() -> None:
    one_, other = few(), replace(few(), project="other")
    assert headline([one_, nothing()]).startswith("sandbox acme 1: 1 to create, 2 to update, 1 to archive;")
    assert "sandbox acme and sandbox other" in headline([one_, other])


def test_the_same_plan_twice_is_described_once() -> None:
    production = replace(few(), environment="production")
    text = comment(few(), production)
    read = read_comment(text)
    assert "table_open" not in read.skeleton
    assert read.headings[0].endswith("production and sandbox")
    assert keys_shown(text) == keys_shown(comment(few()))


@pytest.mark.parametrize(
    ("file", "directory", "place"),
    [
        ("meters.yaml", "", "meters.yaml"),
        ("./billing/meters.yaml", "", "billing/meters.yaml"),
        ("meters.yaml", "services/api", "services/api/meters.yaml"),
        ("../meters.yaml", "services/api", "services/meters.yaml"),
        ("a b#(c)?.yaml", "", "a%20b%23%28c%29%3F.yaml"),
        ("../meters.yaml", "", None),
        ("/etc/meters.yaml", "", None),
    ],
)
def test_links_into_the_repository(file: str, directory: str, place: str | None) -> None:
    links = GitHubLinks("https://github.com", "acme/billing", SHA, directory)
    assert links.file(file, 3) == (place and f"{HOME}/blob/{SHA}/{place}#L3")


@pytest.mark.parametrize(
    ("server", "repository", "sha"),
    [
        ("javascript:alert(1)", "acme/billing", SHA),
        ("https://github.com", "acme/billing) <img>", SHA),
        ("https://github.com", "acme/billing", "main"),
    ],
)
def test_no_link_where_the_place_is_not_known(server: str, repository: str, sha: str) -> None:
    assert GitHubLinks(server, repository, sha).file("meters.yaml") is None
    read_comment(comment(few(), links=GitHubLinks(server, repository, sha)))


def test_the_marker_is_hidden_whatever_it_is() -> None:
    read_comment(comment(replace(few(), project="--><img src=x>\n")))
    assert comment_marker([few()]) == "<!-- polar-iac:acme:sandbox -->"


# On GitHub


def test_commands_point_at_risky_changes() -> None:
    commands = list(read_commands(commands_for(few(), directory="billing")))
    assert [(c.name, c.properties["line"], c.message.partition(":")[0]) for c in commands] == [
        ("warning", "5", 'premium-completions "Premium completions"'),
        ("warning", "92", 'legacy-exports "Exports (legacy)"'),
        ("warning", "44", 'images "Images generated"'),
    ]
    assert {c.properties["file"] for c in commands} == {"billing/meters.yaml"}


def test_severities_agree_between_text_comment_and_annotations() -> None:
    planned = plan_with_everything()
    by_key = {c.message.split()[0]: c.name for c in read_commands(commands_for(planned))}
    text = click.unstyle(plan_text(planned, "meters.yaml"))
    markdown = comment(planned)
    for change in planned.changes:
        block = re.split("(?m)^(?=  [^ ])", text[text.index(f' {change.key} "') :])[0]
        shown = re.split("\n\n(?=[🔴⛔🟠⚪#])", markdown[markdown.index(f" **{change.key}**") :])[0]
        blocked, warned = "blocked: " in block, "warning: " in block
        titled = f"⛔ **{change.key}**" in markdown
        assert (blocked, warned) == (titled, "⚠️" in shown)
        risky = risk(change) not in (None, "invoice")
        level = "error" if blocked else "warning" if warned or risky else None
        assert by_key.get(change.key) == level


def test_an_annotation_keeps_its_lines() -> None:
    (annotation,) = read_commands(
        workflow_commands([error_annotation("refused:\nmeters:\n  a: {archived: true}\x1b[2J")])
    )
    assert annotation.message == "refused:\nmeters:\n  a: {archived: true}\\u001b[2J"


def test_annotations_of_two_environments_are_written_once() -> None:
    commands = list(read_commands(commands_for(few(), replace(few(), environment="production"))))
    assert {c.properties["title"].partition(" · ")[2] for c in commands} == {"sandbox and production"}


@pytest.mark.slow
@pytest.mark.unmeasured
def test_no_more_annotations_than_github_shows() -> None:
    commands = list(read_commands(commands_for(thousands())))
    assert len([c for c in commands if c.name == "warning"]) == 10
    assert commands[-1].message.endswith("more like these are in the plan")


def test_outputs_have_changes_summary_and_digest() -> None:
    assert read_outputs(output_lines(plan_outputs([few()], several=False))) == {
        "changes": "4",
        "summary": "1 to create, 2 to update, 1 to archive · sandbox",
        "digest": few().digest,
    }
    both = read_outputs(output_lines(plan_outputs([few(), in_production()], several=True)))
    assert both["digest"] == f"sandbox={few().digest} production={in_production().digest}"
    one_of_two = read_outputs(output_lines(plan_outputs([few()], several=True)))
    assert one_of_two["digest"] == f"sandbox={few().digest}"
    assert read_outputs(output_lines(plan_outputs([nothing()], several=False)))["changes"] == "0"


# The job's summary


@pytest.mark.slow
@pytest.mark.unmeasured
def test_the_summary_of_a_step_stays_below_what_github_takes(tmp_path: Path) -> None:
    """Bytes, of all that one step appends; GitHub shows none of a file that is too long."""
    summary = tmp_path / "summary.md"
    host = GitHub({"GITHUB_STEP_SUMMARY": str(summary)})
    summary.write_text("é" * 350_000, encoding="utf-8")
    host.publish_plans([fifteen_hundred()], "meters.yaml", several=False)
    first = summary.read_text(encoding="utf-8").lstrip("é")
    read_comment(first.rstrip("\n") + "\n")
    assert "in the log of this step" in first
    events = [Applied(change.key, "update", identifier(1)) for change in fifteen_hundred().changes]
    for _ in range(3):
        host.publish_results(fifteen_hundred(), events)
        host.publish_plans([fifteen_hundred()], "meters.yaml", several=False)
    assert 900_000 < summary.stat().st_size < 1_048_576


def test_results_come_first_and_failures_first_of_them(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    events: list[Event] = [
        Applied("images", "update", identifier(2)),
        Failed("seats", "create", "Polar said no"),
    ]
    GitHub({"GITHUB_STEP_SUMMARY": str(summary)}).publish_results(few(), events)
    text = summary.read_text(encoding="utf-8")
    read = read_comment(text.rstrip("\n") + "\n\n" + comment_marker([few()]) + "\n")
    assert read.headings[0] == "Polar meters: applied to sandbox: 1 updated, 1 failed"
    assert text.index("Polar said no") < text.index("images updated") < text.index("<details>")
    assert "Nothing has been changed yet" not in text


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize(("filled", "place"), [(0, "summary"), (950_000, "log")])
def test_a_cut_comment_says_where_all_changes_are(tmp_path: Path, filled: int, place: str) -> None:
    large = many(600)
    summary = tmp_path / "summary.md"
    summary.write_text(" " * filled)
    variables = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_ACTIONS": "true"}
    text = RENDERERS["markdown"]([large], render_context(host_for(variables), "meters.yaml", several=False))
    assert f"All of them are in the {place} of the workflow run." in text
    outside_ci = RENDERERS["markdown"]([large], render_context(host_for({}), "meters.yaml", several=False))
    assert "All of them are in what `plan` prints as text." in outside_ci


def test_paths_begin_at_the_top_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at GITHUB_WORKSPACE, below which actions/checkout may put it."""
    here = tmp_path / "checkout" / "services" / "api"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    assert working_directory({"GITHUB_WORKSPACE": str(tmp_path)}) == "checkout/services/api"
    (tmp_path / "checkout" / ".git").mkdir()
    assert working_directory({"GITHUB_WORKSPACE": str(tmp_path)}) == "services/api"


# Saved plans


def renderings(planned: Plan) -> list[str]:
    """A plan in every format."""
    return [
        plan_json(planned),
        comment(planned),
        comment(planned, in_production()),
        commands_for(planned),
        output_lines(plan_outputs([planned], several=False)),
        plan_text(replace(planned, bookkeeping=()), "meters.yaml"),
    ]


def in_canonical_order(planned: Plan) -> Plan:
    """The plan without the order in which clauses were written, which its document does not hold."""

    def ordered(spec: MeterSpec | None) -> MeterSpec | None:
        return spec and MeterSpec.from_json(spec.canonical)

    changes = (replace(c, before=ordered(c.before), after=ordered(c.after)) for c in planned.changes)
    return replace(planned, changes=tuple(changes))


def saved(planned: Plan) -> Any:
    return json.loads(plan_json(planned))


@examples(30)
@given(world=strategies.worlds(), offline=st.booleans(), allow=st.booleans())
def test_a_saved_plan_shows_as_it_was(world: strategies.World, offline: bool, allow: bool) -> None:
    there, recorded = [], {}
    for number, existing in enumerate(world.existing, 1):
        meter_id = identifier(number)
        archived = "2026-05-01T00:00:00.000000Z" if existing.archived else None
        existing_meter = live(number, None, archived_at=archived, **existing.spec)
        there.append(existing_meter.marked(existing.marker) if existing.marker else existing_meter)
        if existing.recorded is not None and existing.key:
            spec = MeterSpec.from_json(existing.recorded)
            recorded[existing.key] = Record(meter_id, spec, existing.learned)
    manifest = desired(world.meters, **world.top([identifier(n) for n in range(1, len(there) + 2)]))
    found_plan = plan(manifest, recorded, None if offline else there, allow_archive=allow)
    again = plan_from_document(saved(found_plan))
    assert renderings(again) == renderings(in_canonical_order(found_plan))
    read_comment(comment(again))


@pytest.mark.unmeasured
def test_plans_of_every_size_are_read_back() -> None:
    for planned in (nothing(), one(), few(), in_production(), many(300)):
        assert renderings(plan_from_document(saved(planned))) == renderings(planned)


def test_several_plans_are_one_object() -> None:
    both = json.loads(plans_json([few(), in_production()]))
    documents = [plan_document(few()), plan_document(in_production())]
    assert both == {"format_version": 2, "plans": documents}
    assert [plan.environment for plan in plans_from_document(both)] == ["sandbox", "production"]


def test_a_plan_of_the_first_format_can_be_shown() -> None:
    """It is what it was, with the digest that it had; the golden file is one that 0.1 wrote."""
    document = json.loads((GOLDEN / "plan-1.json").read_bytes())
    old = plan_from_document(document)
    assert old.outdated == old.digest == document["digest"]
    assert [(c.key, c.action) for c in old.changes] == [(c["key"], c["action"]) for c in document["changes"]]
    read_comment(comment(old))
    for path, value in (("changes.0.id", identifier(77)), ("digest", "0" * 64)):
        tampered = json.loads((GOLDEN / "plan-1.json").read_bytes())
        *way, last = path.split(".")
        inner = tampered
        for part in way:
            inner = inner[int(part) if part.isdigit() else part]
        inner[last] = value
        with pytest.raises(PolarIacError, match="was changed"):
            plan_from_document(tampered)


def changed(path: str, value: Any) -> Any:
    """The document of `few`, but for one value; `…` takes it out."""
    document = saved(few())
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner = document
    for part in way:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("changes.2.after.filter.clauses.0.value", "other"),
        ("changes.2.fields.0.after.clauses.0.value", "other"),
        ("changes.2.fields.0.impact", "internal"),
        ("changes.2.fields", []),
        ("changes.3.name", "Harmless"),
        ("changes.3.digest", "0" * 64),
        ("changes.3", ...),
        ("changes.0.fields.1", ...),
        ("changes.1.action", "unarchive"),
        ("changes.2.id", identifier(9)),
        ("changes.0.key", "images-2"),
        ("environment", "production"),
        ("organization_id", PRODUCTION),
        ("summary.create", 0),
        ("digest", "0" * 64),
    ],
)
def test_a_plan_file_that_was_changed_is_refused(path: str, value: Any) -> None:
    with pytest.raises(PolarIacError, match="was changed since polar-iac wrote it"):
        plan_from_document(changed(path, value))


def test_a_change_that_appears_twice_is_refused() -> None:
    document = saved(few())
    document["changes"].append(document["changes"][-1])
    with pytest.raises(PolarIacError, match="was changed"):
        plan_from_document(document)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "plan",
        {},
        changed("project", ...),
        changed("project", 5),
        changed("environment", "../staging"),
        changed("organization_id", "\x1b[2J"),
        changed("changes", {}),
        changed("changes.0", None),
        changed("changes.0.after", 5),
        changed("changes.0.after.filter", None),
        changed("changes.0.after.metadata", []),
        changed("changes.0.evidence", [5]),
        changed("changes.0.fields", [5]),
        changed("changes.0.source.line", -1),
        changed("changes.0.source.line", True),
        changed("changes.0.action", ["create"]),
        changed("bookkeeping", [{"key": "a", "action": "steal", "id": identifier(1)}]),
        changed("summary", None),
        changed("summary.unchanged", -1),
        changed("summary.unchanged", 1.5),
    ],
)
def test_a_file_that_is_not_a_plan_is_refused_in_plain_words(document: Any) -> None:
    with pytest.raises(PolarIacError, match="not a plan file of polar-iac: ") as error:
        plan_from_document(document)
    assert "\x1b" not in str(error.value)


def test_a_later_format_is_named() -> None:
    with pytest.raises(PolarIacError, match="format version 3, and this polar-iac reads 2"):
        plan_from_document(changed("format_version", 3))


def test_the_organization_of_a_plan_may_be_unknown() -> None:
    planned = plan(desired({"a": meter()}), {}, None, organization_id=None)
    assert plan_from_document(saved(planned)).organization_id is None
    assert ORGANIZATION[:8] not in comment(planned)
