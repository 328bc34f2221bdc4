"""The way out of a frozen meter, as text and in the comment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import pytest

from polar_iac.manifest import read as manifest
from polar_iac.plan.model import Plan
from polar_iac.report.comment.document import plan_markdown
from polar_iac.report.replacement import CHECKLIST, replacements
from polar_iac.report.text import plan_text
from tests.support.build import desired, live, meter, plan, record

OTHER = {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "other"}]}


def frozen(*keys: str, beside: Mapping[str, Any] | None = None, **fields: Any) -> Plan:
    """A plan that changes the filters of frozen meters."""
    wanted = meter(**{"filter": OTHER} | fields)
    declared = desired(dict.fromkeys(keys, wanted) | dict(beside or {}))
    recorded = {key: record(number, frozen=True) for number, key in enumerate(keys, 1)}
    return plan(declared, recorded, [live(number, key) for number, key in enumerate(keys, 1)])


def pasted(plan_: Plan) -> dict[str, Any]:
    """The manifest with the blocks of the way out in the place of the frozen meters' own."""
    blocks = replacements(plan_.changes, {change.key for change in plan_.changes})
    text = "version: 1\nproject: acme\nmeters:\n" + "".join(blocks.values())
    return dict(manifest.load(text.encode(), "meters.yaml").specs)


def test_the_block_declares_what_was_wanted_under_a_free_key() -> None:
    planned = frozen("seats", "seats-2", beside={"seats-3": meter(name="New")}, metadata={"team": "ai"})
    assert pasted(planned) == dict.fromkeys(("seats-4", "seats-5"), planned.changes[0].after)


def test_a_long_key_is_cut_for_its_number() -> None:
    assert list(pasted(frozen("k" * 63))) == ["k" * 61 + "-2"]


def test_a_change_of_the_name_alone_needs_no_way_out() -> None:
    planned = plan(desired({"calls": meter(name="Renamed")}), {"calls": record(1, frozen=True)}, [live(1)])
    assert replacements(planned.changes, ()) == {}
    assert CHECKLIST[0] not in plan_text(planned, "meters.yaml")


def test_the_text_has_the_block_under_its_key_and_the_checklist_once() -> None:
    text = click.unstyle(plan_text(frozen("calls", "seats"), "meters.yaml"))
    assert text.count("1. Under `calls`, undo this change of the filter.\n      2. Add this meter:\n") == 1
    first, second = text.index('! calls "API calls"'), text.index('! seats "API calls"')
    assert first < text.index("\n  calls-2:\n    name: API calls\n") < second < text.index("\n  seats-2:\n")
    for line in CHECKLIST:
        assert " ".join(text.split()).count(line) == 1


def test_the_comment_folds_it_at_its_key() -> None:
    text = plan_markdown([frozen("calls")], manifest_file="meters.yaml")
    title = text.index("⛔ **calls** cannot change: ")
    start = text.index("<summary>Lines to paste for <code>calls</code>, and what moves</summary>")
    end = text.index("</details>", start)
    assert title < start
    assert (
        "\n1. Under `calls`, undo this change of the filter.\n2. Add this meter:\n\n```yaml"
        in text[start:end]
    )
    assert "```yaml\nmeters:\n  calls-2:\n    name: API calls\n" in text[start:end]
    for line in CHECKLIST:
        assert f"\n- {line}\n" in text[start:end]
    assert "free to go" not in text


def test_a_block_that_does_not_fit_the_comment_is_in_the_log() -> None:
    clauses = [{"property": f"property-{n:04}", "operator": "eq", "value": "x" * 30} for n in range(200)]
    planned = frozen("calls", filter={"conjunction": "or", "clauses": clauses})
    text = plan_markdown([planned], manifest_file="meters.yaml", limit=6_000)
    assert "add another meter; the log has the lines to paste." in text
    assert "calls-2" not in text
    assert "calls-2" in plan_text(planned, "meters.yaml")


@pytest.mark.parametrize("count", [3, 4])
def test_of_many_the_first_three_have_a_block(count: int) -> None:
    planned = frozen(*(f"k{number}" for number in range(count)))
    assert list(replacements(planned.changes, ())) == ["k0", "k1", "k2"]


def test_two_plans_of_one_comment_name_the_one_that_is_blocked() -> None:
    declared = desired({"calls": meter(filter=OTHER)})
    production = plan(declared, {"calls": record(1, frozen=True)}, [live(1)], environment="production")
    sandbox = plan(declared, {"calls": record(1)}, [live(1)])
    text = plan_markdown([sandbox, production], manifest_file="meters.yaml")
    assert "\nproduction: To bill by the new rule" in text
    both = plan_markdown([frozen("calls"), production], manifest_file="meters.yaml")
    assert "\nTo bill by the new rule" in both
    assert both.count("calls-2:") == 1
