"""Usage by day as charts in the summary of a run."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from polar_iac.ci.github import GitHub
from polar_iac.plan.model import Plan
from polar_iac.report.comment.charts import MOST_CHARTS, charts_markdown
from polar_iac.report.comment.document import plan_markdown
from tests.report.test_headlines import LLM, created, impact, narrower, one
from tests.report.test_injection import CORPUS
from tests.support.build import desired, live, meter, plan, record
from tests.support.golden import golden

GOLDEN = Path(__file__).parent / "golden"
DAILY: list[dict[str, Any]] = [
    {"date": "2026-11-22", "before": 1_200_000.0, "after": 0.000001},
    {"date": "2026-11-23", "before": 12.5, "after": 12.25},
    {"date": "2026-11-24", "before": 0, "after": -3},
]
NEW = [day | {"before": None} for day in DAILY]


def less() -> Plan:
    return narrower(impact(1_200_012.5, 9.25, daily=DAILY))


def new() -> Plan:
    return created(impact(None, 9.25, daily=NEW, customers=None))


def test_charts_are_golden() -> None:
    """Bars and a line for a changed meter, bars for a new one; no number has an exponent."""
    production = replace(less(), environment="production")
    golden(GOLDEN / "charts.md", charts_markdown([new(), production]))


def test_the_worst_change_comes_first_and_ten_have_a_chart() -> None:
    text = charts_markdown([new(), *[less()] * 12])
    assert text.count("```mermaid\n") == MOST_CHARTS
    assert "audio-calls" not in text
    assert text.endswith("\n\n… and 3 more meters without a chart\n")
    assert len(text) < 20_000


def test_no_two_days_have_one_label() -> None:
    """Thirty days from Feb 10, 2026: equal labels would be one place of the axis."""
    first = date(2026, 2, 10)
    daily = [{"date": str(first + timedelta(n)), "before": 5, "after": n} for n in range(30)]
    text = charts_markdown([narrower(impact(5, 3, daily=daily))])
    assert "[10, 11, 12, 13, " in text
    assert ', 28, 1, 2, 3, 4, 5, 6, 7, 8, 9, "10\'", "11\'"]' in text


def test_the_axis_names_a_quantity_only_if_its_noun_is_plain() -> None:
    aggregation = {"func": "sum", "property": 'a" 0 --> 9'}
    planned = plan(
        desired({"llm-tokens": meter(**LLM | {"aggregation": aggregation})}),
        {"llm-tokens": record(1, **LLM)},
        [live(1, "llm-tokens", **LLM)],
    )
    assert '    y-axis "matched per day" ' in charts_markdown([one(planned, impact(5, 3, daily=DAILY))])


def test_without_usage_by_day_there_is_no_chart() -> None:
    blocked = replace(less(), changes=tuple(replace(c, action="blocked") for c in less().changes))
    idle = narrower(impact(0, 0, daily=[DAILY[0] | {"before": 0, "after": 0}]))
    for planned in (narrower(), narrower(impact(5, 3)), blocked, idle):
        assert charts_markdown([planned]) == ""


@pytest.mark.unmeasured
@pytest.mark.parametrize("text", CORPUS)
def test_nothing_that_others_wrote_is_in_a_chart(text: str) -> None:
    (change,) = less().changes
    hostile = replace(less(), environment=text, changes=(replace(change, key=text, name=text),))
    tokens = MarkdownIt("commonmark", {"html": True}).parse(charts_markdown([hostile, new()]))
    fences = [token for token in tokens if token.type == "fence"]
    assert [token.info for token in fences] == ["mermaid", "mermaid"]
    for token in fences:
        assert re.fullmatch(
            r'%%\{init: [^\n]+\}%%\nxychart-beta\n    x-axis "days, UTC" \[[0-9, ]+\]\n'
            r'    y-axis "matched (tokens|events) per day" [0-9.-]+ --> [0-9.]+\n'
            r"    bar \[[0-9., -]+\]\n(    line \[[0-9., -]+\]\n)?",
            token.content,
        )
    assert {token.type for token in tokens} <= {
        *("heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "fence")
    }


def test_the_summary_of_a_run_has_the_charts_and_the_comment_has_none(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    host = GitHub({"GITHUB_STEP_SUMMARY": str(summary)})
    host.publish_plans([less()], "meters.yaml", several=False)
    text = summary.read_text(encoding="utf-8")
    assert text.endswith(charts_markdown([less()]) + "\n")
    assert "mermaid" not in plan_markdown([less()], manifest_file="meters.yaml")
    for missing, parts in ((300, ["llm-tokens"]), (600, [])):
        summary.write_text(" " * (1_000_000 - len(text.encode()) + missing))
        host.publish_plans([less()], "meters.yaml", several=False)
        text_then = summary.read_text(encoding="utf-8")
        assert [part for part in ("llm-tokens", "mermaid") if part in text_then] == parts
