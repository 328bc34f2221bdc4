"""The comments that docs/comment.md shows as pictures. Each PNG is a golden text as GitHub shows it.

Who changes a golden text takes its picture again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from polar_iac.ci.github import GitHubLinks
from polar_iac.plan.model import Note, Plan
from polar_iac.report.comment.charts import charts_markdown
from polar_iac.report.comment.document import plan_markdown
from tests.report.test_headlines import (
    EVENT,
    FREE,
    LLM,
    NARROW,
    NOTHING,
    PRO,
    REFUSED,
    TEAM,
    UNSEEN,
    adopted,
    attached,
    created,
    impact,
    note,
)
from tests.report.test_text import clause, every
from tests.support.build import desired, live, meter, plan, record
from tests.support.comments import read_comment
from tests.support.golden import golden

GOLDEN = Path(__file__).parent / "golden"
PICTURES = Path(__file__).parent.parent.parent / "docs" / "comments"
LINKS = GitHubLinks(
    "https://github.com", "acme/billing", "3f2a9c41d07be58c6a1f04d2e97bb8350c1d6e7a", run_id="9182736450"
)
PRODUCTION = "7c0a33de-5a6e-4a3f-9d0b-1c5e8f7a2b44"
PAID = PRO | {"unit_amount": "0.5"}
LIKELY = replace(
    note(
        "freeze",
        {"state": "likely", "events": None, "last": "2026-11-24"},
        "warning",
        "counted 14,284,002 since March 3, last today: probably frozen. `polar-iac probe -e production "
        "llm-tokens` tells (it needs `meters:write`)",
    ),
    source="usage",
)
EXAMPLE = note("example", {"relation": "less", "no_longer": EVENT, "now": None})
UNSURE = Note(
    "freeze", "warning", "freeze unknown: `polar-iac probe -e ENV KEY` tells if Polar refuses this", "polar"
)
SESSION: dict[str, Any] = {"name": "Seats", "filter": every(clause("name", "eq", "session.started"))}
ACTIVE = every(clause("name", "eq", "session.started"), clause("kind", "eq", "member"))
EXPORTS: dict[str, Any] = {
    "name": "Exports",
    "filter": every(clause("name", "eq", "export.finished")),
    "unit": "custom",
    "custom_label": "export",
}
IMAGES: dict[str, Any] = {"name": "Images", "filter": every(clause("name", "eq", "image.generated"))}


def month() -> list[dict[str, Any]]:
    """Thirty days of usage, weekends lower, of which a third is no longer counted."""
    days = [f"2026-10-{day:02}" for day in range(26, 32)] + [f"2026-11-{day:02}" for day in range(1, 25)]
    shares = [(10, 11, 12, 11, 9, 4, 3)[number % 7] for number in range(len(days))]
    unit = 1_204_331 / sum(shares)
    return [
        {"date": day, "before": round(unit * share), "after": round(unit * share * 0.66)}
        for day, share in zip(days, shares, strict=True)
    ]


LESS = impact(1_204_331, 794_858, daily=month())


def joined(planned: Plan, notes: dict[str, Sequence[Note]], **changes: Any) -> Plan:
    """The plan with notes by key, in front of and instead of those of their kinds."""
    found = []
    for change in planned.changes:
        added = notes.get(change.key, ())
        kinds = {one.kind for one in added}
        kept = [old for old in change.notes if old.kind not in kinds]
        found.append(replace(change, notes=(*added, *kept), **changes.get(change.key, {})))
    return replace(planned, changes=tuple(found))


def less() -> list[Plan]:
    """A filter that counts less."""
    planned = plan(
        desired({"llm-tokens": meter(**LLM | {"filter": NARROW})}),
        {"llm-tokens": record(1, **LLM)},
        [live(1, "llm-tokens", **LLM)],
        environment="production",
        organization_id=PRODUCTION,
    )
    uses = attached([PAID, TEAM | {"unit_amount": "0.5"}], [])
    return [joined(planned, {"llm-tokens": [LIKELY, LESS, uses, EXAMPLE]})]


def blocked() -> list[Plan]:
    """A frozen meter, and an archive of a meter that is in use."""
    planned = plan(
        desired({"seats": meter(**SESSION | {"filter": ACTIVE}), "exports": meter(archived=True, **EXPORTS)}),
        {"seats": record(1, frozen=True, **SESSION), "exports": record(2, **EXPORTS)},
        [live(1, "seats", **SESSION), live(2, "exports", **EXPORTS)],
        environment="production",
        organization_id=PRODUCTION,
    )
    in_use = {"action": "blocked", "cause": "attached", "reason": "cannot be archived"}
    notes: dict[str, Sequence[Note]] = {"seats": [REFUSED], "exports": [attached([PRO, TEAM], [FREE])]}
    return [joined(planned, notes, exports=in_use)]


def nothing() -> list[Plan]:
    """A new meter that would have counted nothing."""
    return [created(NOTHING, UNSEEN)]


def adoption() -> list[Plan]:
    """Sixty meters that are taken over."""
    return [replace(adopted(60), unowned=0)]


def environments() -> list[Plan]:
    """Two environments that are not alike."""
    declared = desired(
        {
            "exports": meter(archived=True, **EXPORTS),
            "images": meter(**IMAGES | {"name": "Images generated", "metadata": {"team": "ai"}}),
            "llm-tokens": meter(**LLM | {"filter": NARROW}),
            "seats": meter(**SESSION | {"metadata": {"team": "growth"}}),
            "transcription": meter(name="Transcription", filter=every(clause("name", "eq", "audio.call"))),
        }
    )
    recorded = {"exports": record(2, **EXPORTS), "images": record(3, **IMAGES)}
    recorded |= {"llm-tokens": record(1, **LLM), "seats": record(4, **SESSION)}
    there = [live(1, "llm-tokens", **LLM), live(2, "exports", **EXPORTS)]
    there += [live(3, "images", **IMAGES), live(4, "seats", **SESSION)]
    sandbox = plan(declared, recorded, there)
    production = plan(declared, recorded, there, environment="production", organization_id=PRODUCTION)
    uses = attached([PAID, TEAM | {"unit_amount": "0.5"}], [])
    in_use = {"action": "blocked", "cause": "attached", "reason": "cannot be archived"}
    counted = impact(
        None,
        12_300,
        events={"both": 0, "only_before": 0, "only_after": 12_300},
        customers=None,
        customers_total=87,
    )
    return [
        joined(sandbox, {"llm-tokens": [UNSURE, EXAMPLE]}),
        joined(
            production,
            {
                "llm-tokens": [LIKELY, LESS, uses, EXAMPLE],
                "exports": [attached([PRO, TEAM], [FREE])],
                "transcription": [counted],
            },
            exports=in_use,
        ),
    ]


PLANS: dict[str, Callable[[], list[Plan]]] = {
    "less": less,
    "blocked": blocked,
    "nothing": nothing,
    "adoption": adoption,
    "environments": environments,
}


@cache
def made(name: str) -> str:
    return plan_markdown(PLANS[name](), manifest_file="meters.yaml", links=LINKS)


@pytest.mark.parametrize("name", PLANS)
def test_a_picture_shows_a_comment_as_it_is(name: str) -> None:
    text = made(name)
    golden(GOLDEN / f"picture-{name}.md", text)
    read_comment(text)
    assert (PICTURES / f"{name}.png").stat().st_size < 150_000


def test_the_picture_of_the_summary_shows_a_chart_as_it_is() -> None:
    golden(GOLDEN / "picture-chart.md", charts_markdown(environments()))
    assert (PICTURES / "chart.png").stat().st_size < 150_000
