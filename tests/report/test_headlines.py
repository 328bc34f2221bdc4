"""Headlines of changes: golden sentences, grades, and what is said where facts are missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click
import pytest

from polar_iac.facts.model import Gap
from polar_iac.plan.model import MarkReason, Note, Plan
from polar_iac.report.comment.document import plan_markdown
from polar_iac.report.risks import grade, risks, stake
from polar_iac.report.text import plan_text
from tests.report.test_text import clause, every
from tests.support.build import desired, identifier, live, meter, plan, record, without_lint
from tests.support.comments import read_comment

AS_OF = "2026-11-24T12:00:00Z"
TOKENS = {"func": "sum", "property": "tokens"}
COMPLETION = clause("name", "eq", "llm.completion")
LLM: dict[str, Any] = {"name": "LLM tokens", "filter": every(COMPLETION), "aggregation": TOKENS}
NARROW = every(COMPLETION, clause("model", "ne", "gpt-4o"))
EVENT = {"name": "llm.completion", "source": "user", "metadata": {"model": "gpt-4o", "tokens": 150}}
PRO = {
    "id": identifier(50),
    "name": "Pro",
    "price_id": identifier(60),
    "currency": "usd",
    "unit_amount": "50.000000000000",
    "is_archived": False,
}
TEAM = PRO | {"id": identifier(51), "name": "Team", "price_id": identifier(61)}
FREE = {"id": identifier(70), "description": "Free exports"}


def note(kind: str, data: Mapping[str, Any], severity: Any = "info", text: str = "a fact") -> Note:
    return Note(kind, severity, text, "events", AS_OF, data)


def impact(before: float | None, after: float | None, **more: Any) -> Note:
    data = {
        "start": "2026-10-26",
        "end": "2026-11-24",
        "events": {"both": 800, "only_before": 400, "only_after": 0},
        "quantity": {"before": before, "after": after},
        "customers": 211,
        "customers_total": 230,
        "read": 1_200,
        "of": 1_200,
        "error": None,
        "daily": [],
        "estimated": False,
    }
    return note("impact", data | more)


NOTHING = impact(None, 0, events={"both": 0, "only_before": 0, "only_after": 0}, customers=None, read=0, of=0)


def attached(products: Any = (), benefits: Any = (), severity: Any = "info") -> Note:
    data = {
        "products": None if products is None else list(products),
        "benefits": None if benefits is None else list(benefits),
    }
    return note("attached", data, severity)


def one(planned: Plan, *notes: Note, **change: Any) -> Plan:
    """The plan, whose only change has notes besides its own; a note of a kind that it has replaces it."""
    (found,) = planned.changes
    kinds = {added.kind for added in notes}
    kept = [old for old in found.notes if old.kind not in kinds]
    return replace(planned, changes=(replace(found, notes=(*notes, *kept), **change),))


def narrower(*notes: Note) -> Plan:
    """A filter that counts less than before."""
    planned = plan(
        desired({"llm-tokens": meter(**LLM | {"filter": NARROW})}),
        {"llm-tokens": record(1, **LLM)},
        [live(1, "llm-tokens", **LLM)],
    )
    example = note("example", {"relation": "less", "no_longer": EVENT, "now": None})
    return one(planned, example, *notes)


def renamed(*notes: Note, **fields: Any) -> Plan:
    planned = plan(
        desired({"llm-tokens": meter(**LLM | {"name": "LLM usage"} | fields)}),
        {"llm-tokens": record(1, **LLM)},
        [live(1, "llm-tokens", **LLM)],
    )
    return one(planned, *notes)


def frozen(*notes: Note) -> Plan:
    fields: dict[str, Any] = {"filter": every(clause("name", "eq", "session"))}
    planned = plan(
        desired({"seats": meter(**fields | {"filter": every(clause("name", "eq", "login"))})}),
        {"seats": record(1, frozen=True, **fields)},
        [live(1, "seats", **fields)],
    )
    return one(planned, *notes)


def created(*notes: Note) -> Plan:
    planned = plan(desired({"audio-calls": meter(filter=every(clause("name", "eq", "audio_call")))}), {}, [])
    return one(planned, *notes)


def archived(*notes: Note, **change: Any) -> Plan:
    fields: dict[str, Any] = {"unit": "custom", "custom_label": "export"}
    planned = plan(
        desired({"exports": meter(archived=True, **fields)}),
        {"exports": record(1, **fields)},
        [live(1, "exports", **fields)],
    )
    return one(planned, *notes, **change)


def adopted(count: int, **others: Any) -> Plan:
    keys = [f"meter-{number:02}" for number in range(1, count + 1)]
    taken = [{"to": key, "id": {"sandbox": identifier(n)}} for n, key in enumerate(keys, 1)]
    declared = desired(dict.fromkeys(keys, meter()) | others, **{"import": taken})
    manifest = without_lint(declared, "equal-meters", "same-name")
    return plan(manifest, {}, [live(n, None) for n in range(1, count + 1)])


def comment(*plans: Plan) -> str:
    text = plan_markdown(plans, manifest_file="meters.yaml")
    read_comment(text)
    return text


def lines(*plans: Plan) -> list[str]:
    """The lines of a comment that begin with a grade."""
    return [line for line in comment(*plans).split("\n") if line[:1] in "🔴⛔🟠⚪" and line[:1]]


def line(*plans: Plan) -> str:
    """The only such line, without the break that may end it."""
    (found,) = lines(*plans)
    return found.removesuffix("<br>")


def said(planned: Plan) -> str:
    """The text of a plan for a terminal, without its line breaks."""
    return " ".join(click.unstyle(plan_text(planned, "meters.yaml")).split())


# Golden sentences: the exact words that a reviewer reads

UNSEEN = note(
    "unseen",
    {
        "event_name": "audio_call",
        "seen": 0,
        "nearest": {"name": "audio.call", "occurrences": 12_300, "last": "2026-11-24"},
    },
    "warning",
)
REFUSED = replace(
    note("freeze", {"state": "frozen", "events": None, "last": None}), as_of="2026-11-03T09:30:00Z"
)
IN_USE = attached([PRO, TEAM], [FREE], "warning")
GOLDEN = {
    "counts-less": (
        narrower(impact(1_204_331, 794_858)),
        "🔴 **llm-tokens** counts less: 1,204,331 → 794,858 matched tokens (−34 %) over Oct 26 – Nov 24 UTC; "
        "211 of 230 customers with usage. No longer counted, for example: "
        "`llm.completion {model: gpt-4o, tokens: 150}`. Invoices keep what already matched; balances "
        "recompute the current period.",
    ),
    "frozen": (
        frozen(REFUSED),
        "⛔ **seats** cannot change: Polar refused a filter change on Nov 3 (frozen). Restore the filter, or "
        "replace the meter (lines below).",
    ),
    "counts-nothing": (
        created(NOTHING, UNSEEN),
        "🟠 **audio-calls** would have counted 0 events in 30 days: no event is named `audio_call`; seen: "
        "`audio.call` (12,300, last today).",
    ),
    "in-use": (
        archived(IN_USE, action="blocked", cause="attached", reason="cannot be archived"),
        "⛔ **exports** cannot be archived: products **Pro** (`$0.50 / export`) and **Team**, and benefit "
        "**Free exports** use it; remove them first.",
    ),
    "read": (
        renamed(),
        '🟠 **llm-tokens**: customers will see "LLM usage" instead of "LLM tokens" on invoices issued from '
        "now on. Nothing counted changes.",
    ),
    "adopts": (
        adopted(60),
        "⚪ Adopts 60 meters: writes only the ownership marker to each; 0 created, 0 definitions changed.",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_reviewer_reads_exactly_this(name: str) -> None:
    planned, words = GOLDEN[name]
    assert line(planned) == words


@pytest.mark.parametrize("name", GOLDEN)
def test_the_terminal_says_the_same(name: str) -> None:
    planned, words = GOLDEN[name]
    plain = words.partition(" ")[2].replace("**", "").replace("−", "-")
    grades = {
        "counts-less": "may bill",
        "frozen": "blocked",
        "counts-nothing": "no effect",
        "in-use": "blocked",
        "read": "invoice",
    }
    if name in grades:
        key = planned.changes[0].key
        plain = f"{grades[name]}: {plain.removeprefix(key).lstrip(': ')}"
    assert plain in said(planned)


# Grades and stakes


def test_grades_differ_at_a_glance() -> None:
    found = {name: grade(planned.changes[0]) for name, (planned, _) in GOLDEN.items()}
    assert found == {
        "counts-less": "billing",
        "frozen": "blocked",
        "counts-nothing": "invoice",
        "in-use": "blocked",
        "read": "invoice",
        "adopts": "internal",
    }
    assert grade(archived().changes[0]) == "billing"
    assert grade(created().changes[0]) == "internal"


@pytest.mark.parametrize(
    ("notes", "known", "counted", "words"),
    [
        ([], "may bill", "1 may change what is billed", '`"LLM tokens"` · '),
        (
            [attached(None, [FREE])],
            "may bill",
            "1 may change what is billed",
            "may bill: products were not read · ",
        ),
        (
            [attached()],
            "may bill",
            "1 may change what is billed",
            "may bill: no live price uses it, and replaced ones cannot be seen · ",
        ),
        (
            [attached([], [FREE])],
            "balances",
            "1 changes balances",
            "balances: benefit **Free exports** · ",
        ),
        (
            [attached([PRO | {"currency": "eur"}])],
            "bills",
            "1 changes what is billed",
            "bills: product **Pro** (`0.50 EUR / unit`) · ",
        ),
        (
            [attached([PRO, TEAM | {"unit_amount": "0.5", "is_archived": True}], None)],
            "bills",
            "1 changes what is billed",
            "bills: products **Pro** (`$0.50 / unit`) and **Team** (`$0.005 / unit`, archived) · ",
        ),
    ],
)
def test_it_bills_only_where_a_live_price_is_known(
    notes: list[Note], known: str, counted: str, words: str
) -> None:
    planned = narrower(*notes)
    assert stake(planned.changes[0]) == known
    text = comment(planned)
    assert f"\n#### Look closely: 🔴 {counted}\n" in text
    assert f"<br>\n{words}" in text
    terminal = said(planned)
    assert f"sandbox · organization 1dbfc517 {counted}" in terminal
    assert f" {known}: counts less. No longer" in terminal
    used = re.sub("^(bills|balances): ", "used by: ", words).removeprefix("may bill: ").removesuffix(" · ")
    assert (used.replace("**", "") in terminal) == bool(notes)


def test_an_impact_of_no_event_is_less_than_a_bill() -> None:
    same = {"both": 1_200, "only_before": 0, "only_after": 0}
    planned = narrower(impact(5, 5, events=same, customers=0))
    assert risks(planned.changes[0]) == ["nothing"]
    assert line(planned).startswith(
        "🟠 **llm-tokens** would have counted the same in 30 days: 5 matched tokens over Oct 26 – Nov 24 UTC."
    )
    none = {"both": 0, "only_before": 0, "only_after": 0}
    assert line(narrower(impact(0, 0, events=none))).startswith(
        "🟠 **llm-tokens** would have counted 0 events in 30 days, as before. "
    )
    # Of a sample nobody knows what the others hold.
    assert grade(narrower(impact(5, 5, events=same, of=81_233)).changes[0]) == "billing"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"days": 30, "quantity": 41_200, "last": "2026-11-23"}, "41,200 matched events, last yesterday"),
        ({"days": 30, "quantity": None, "last": "2026-11-03"}, "matched events, last November 3"),
        ({"days": 1, "quantity": 0, "last": None}, "0"),
    ],
)
def test_an_archive_says_what_was_counted_of_late(data: dict[str, Any], words: str) -> None:
    planned = archived(note("usage", data, "warning"))
    days = "1 day" if data["days"] == 1 else "30 days"
    sentence = f"stops counting: it is archived. In the last {days} it counted {words}."
    assert line(planned) == f"🔴 **exports** {sentence}"
    assert f"may bill: {sentence}" in said(planned)
    assert risks(planned.changes[0]) == ["archive"]


def test_what_polar_counted_otherwise_is_not_without_effect() -> None:
    """Not all of the events are listed then, so that nobody knows what the others hold."""
    same = {"both": 800, "only_before": 0, "only_after": 0}
    found = narrower(impact(5, 5, events=same, customers=0, customers_total=3, unlike=1))
    assert grade(found.changes[0]) == "billing"
    assert "Polar's own quantities differ on 1 of these days." in line(found)


# Impacts


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            impact(1_204_331, 794_858, read=1_000, of=81_233, error=41_218.0, customers=None),
            "counts less: 1,204,331 → 794,858 matched tokens (−34 %, estimated, ± 41,000) over Oct 26 – "
            "Nov 24 UTC; 1,000 of 81,233 events read.",
        ),
        (
            impact(10, None, read=1_000, of=81_233),
            "counts less; over Oct 26 – Nov 24 UTC not estimated: 1,000 of 81,233 events read.",
        ),
        (
            impact(10, 10.25, customers=1, customers_total=1),
            "counts more: 10 → 10.25 matched tokens (+2 %) over Oct 26 – Nov 24 UTC; 1 of 1 customer with "
            "usage.",
        ),
        (
            impact(0, 7, customers=1, customers_total=1, unlike=2),
            "counts more: 0 → 7 matched tokens over Oct 26 – Nov 24 UTC; 1 of 1 customer with usage. Polar's "
            "own quantities differ on 2 of these days.",
        ),
    ],
)
def test_impacts_in_words(given: Note, words: str) -> None:
    assert line(narrower(given)).startswith(f"🔴 **llm-tokens** {words} No longer counted")


def test_a_new_sum_that_is_not_estimated_comes_to_something_at_least() -> None:
    least = impact(
        None, None, read=1_000, of=81_233, customers=None, customers_total=None, at_least=612_000.0
    )
    assert (
        "is new: would have counted at least 612,000 matched events over Oct 26 – Nov 24 UTC; more is not "
        "estimated: 1,000 of 81,233 events read." in comment(created(least))
    )


def test_a_change_that_polar_will_refuse_says_so_before_the_diff() -> None:
    likely = note("freeze", {"state": "likely", "events": 5, "last": "2026-11-24"}, "warning", "counted 5")
    text = comment(narrower(likely))
    refused = "Polar will almost certainly refuse this change; the meter then stays as it is."
    assert f"\n**{refused}** If Polar accepts it:<br>\n🔴 **llm-tokens** counts less. No longer" in text
    assert "\n- ⚠️ counted 5\n" in text  # without its source and time
    assert f" {refused} If Polar accepts it: may bill: counts less. No longer" in said(narrower(likely))
    planned, words = GOLDEN["counts-less"]
    assert line(one(planned, likely)) == words
    production = comment(narrower(), replace(one(planned, likely), environment="production"))
    assert (
        f"\nproduction: **{refused}** If Polar accepts it:<br>\n🔴 production: {words[2:]}<br>\n"
        in production
    )
    assert "<br>\n🔴 sandbox: **llm-tokens** counts less; its usage here was not read.<br>\n" in production
    # What is likely of a new meter does not refuse it.
    assert "almost certainly" not in comment(created(likely))


def test_no_count_promises_a_change_that_polar_will_refuse() -> None:
    likely = note("freeze", {"state": "likely", "events": 5, "last": "2026-11-24"}, "warning", "counted 5")
    planned = one(renamed(filter=NARROW), likely, attached([PRO]))
    would = "1 would change what is billed, but Polar will almost certainly refuse it"
    text = comment(planned)
    assert text.startswith("### Polar meters: 1 to update (likely refused) · sandbox\n")
    assert f"\n#### Look closely: 🔴 {would}\n" in text
    assert f"organization 1dbfc517 {would} llm-tokens" not in said(planned)
    assert f"organization 1dbfc517 {would} ~ llm-tokens" in said(planned)
    two = replace(planned, changes=(*planned.changes, replace(renamed().changes[0], key="other")))
    assert comment(two).startswith("### Polar meters: 2 to update (1 likely refused) · sandbox\n")


def test_quantities_of_two_aggregations_are_not_compared() -> None:
    planned = plan(
        desired({"llm-tokens": meter(**LLM | {"aggregation": {"func": "max", "property": "defaced"}})}),
        {"llm-tokens": record(1, **LLM)},
        [live(1, "llm-tokens", **LLM)],
    )
    assert line(one(planned, impact(1_200, 80))).startswith(
        "🔴 **llm-tokens** counts differently: 1,200 matched tokens → 80 matched `max(defaced)` over Oct 26"
    )


def test_without_usage_both_aggregations_are_named() -> None:
    aggregation = {"func": "max", "property": "tokens"}
    planned = plan(
        desired({"llm-tokens": meter(**LLM | {"aggregation": aggregation})}),
        {"llm-tokens": record(1, **LLM)},
        [live(1, "llm-tokens", **LLM)],
    )
    assert line(planned).startswith(
        "🔴 **llm-tokens** counts `max(tokens)` instead of `sum(tokens)`. Invoices keep"
    )
    blocked = one(planned, action="blocked", cause="frozen")
    assert line(blocked).startswith("⛔ **llm-tokens** cannot change: Polar refuses an aggregation change")


def test_the_counts_tell_a_new_meter_that_counts_nothing_from_a_change_without_effect() -> None:
    same = narrower(impact(0, 0, events={"both": 0, "only_before": 0, "only_after": 0}))
    assert "\n#### Look closely: 🟠 1 change would have had no effect\n" in comment(same)
    assert "\n#### Look closely: 🟠 1 new meter would count nothing\n" in comment(created(NOTHING))
    both = replace(same, changes=(*created(NOTHING).changes, *same.changes))
    counts = "1 new meter would count nothing, 1 change would have had no effect"
    assert f"\n#### Look closely: 🟠 {counts}\n" in comment(both)
    assert f" {counts}" in said(both)
    assert "<br>\nBills nothing until a price uses it.<br>\n" in comment(created(NOTHING))


def test_a_new_meter_says_what_it_would_have_counted() -> None:
    events = {"both": 0, "only_before": 0, "only_after": 40}
    given = impact(None, 40, events=events, customers=None, customers_total=12)
    assert line(created(given)) == (
        "⚪ **audio-calls** is new: would have counted 40 matched events over Oct 26 – Nov 24 UTC; "
        "12 customers with usage. Bills nothing until a price uses it. Counts, for example: `audio_call` "
        "(1 unit)."
    )
    assert "note: is new: would have counted 40 matched events over Oct 26" in said(created(given))


@pytest.mark.parametrize(
    ("at_least", "words"),
    [
        (None, "usage over Oct 26 – Nov 24 UTC not estimated: 1,000 of 81,233 events read."),
        (
            44_000.5,
            "would have counted at least 44,000.5 matched events over Oct 26 – Nov 24 UTC; more is not "
            "estimated: 1,000 of 81,233 events read.",
        ),
    ],
)
def test_what_is_not_estimated_of_a_new_meter(at_least: float | None, words: str) -> None:
    given = impact(None, None, read=1_000, of=81_233, at_least=at_least, customers=None)
    assert line(created(given)).startswith(f"⚪ **audio-calls** is new: {words}")


def test_usage_by_day_is_a_line_of_bars() -> None:
    daily = [
        {"date": f"2026-11-{day:02}", "before": before, "after": after}
        for day, (before, after) in enumerate([(0, 0), (25, 20), (50, 0), (75, 50), (100, 70)], 1)
    ]
    assert '<br>\nper day, before → after: `▁▃▅▆█ → ▁▂▁▅▆`<br>\n`"LLM tokens"` · ' in comment(
        narrower(impact(250, 140, daily=daily))
    )
    new = impact(None, 140, daily=[day | {"before": None} for day in daily])
    assert "<br>\nper day: `▁▃▁▆█`<br>\n" in comment(created(new))
    assert "per day" not in comment(narrower(impact(0, 0, daily=[daily[0]])))


def test_a_note_of_one_key_names_it_in_its_command() -> None:
    tells = "freeze unknown: `polar-iac probe -e {} llm-tokens` tells if Polar refuses this"
    assert f"- ⚠️ {tells.format('sandbox')}\n" in comment(narrower())
    assert f"warning: {tells.format('sandbox')}" in said(narrower())
    production = replace(narrower(), environment="production")
    assert f"- ⚠️ {tells.format('ENV')}\n" in comment(production, narrower())
    known = replace(one(narrower(), note("freeze", {}, "info", "known")), environment="production")
    assert f"- ⚠️ sandbox: {tells.format('sandbox')}\n" in comment(known, narrower())


# What is folded, and what is left out


def test_three_notes_are_open_and_the_others_folded() -> None:
    more = [note(f"kind-{n}", {}, "warning", f"doubt number {n}") for n in range(4)]
    text = comment(narrower(note("info", {}, "info", "aside"), *more))
    opened, _, rest = text.partition("<summary>3 more notes</summary>")
    assert re.findall(r"^- (\S+) ", opened, re.MULTILINE) == ["⚠️"] * 3
    folded = rest.partition("</details>")[0]
    assert re.findall(r"^- (\S+) ", folded, re.MULTILINE) == ["⚠️", "⚠️", "ℹ️"]


def test_missing_facts_are_one_line_and_a_missing_scope_is_none() -> None:
    gaps = (
        Gap("usage", "limited", "Polar limits the rate of requests", ("llm-tokens", "a.b")),
        Gap("products", "scope", "the token lacks `products:read`"),
        Gap("events", "timeout", "20 s were over"),
    )
    planned = replace(narrower(), facts_gaps=gaps)
    assert (
        "\n\nℹ️ Facts are incomplete: no usage of `llm-tokens` and `a.b`: Polar limits the rate of requests; "
        "no events: 20 s were over.\n\n"
    ) in comment(planned)
    assert "Facts are incomplete: no usage of llm-tokens and a.b: Polar limits" in said(planned)
    only_scope = replace(narrower(), facts_gaps=gaps[1:2])
    assert comment(only_scope) == comment(narrower())
    assert said(only_scope) == said(narrower())
    both = comment(planned, replace(narrower(), environment="production"))
    assert "\n\nℹ️ sandbox: Facts are incomplete: " in both


@pytest.mark.parametrize("shape", ["text", "wrong", "deep", "empty", "nothing"])
@pytest.mark.parametrize("kind", ["freeze", "usage", "impact", "unseen", "attached", "example"])
def test_a_note_of_another_shape_is_shown_by_its_text(kind: str, shape: str) -> None:
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"a": deep}
    data: dict[str, Any] = {
        "text": {"state": 5, "start": "x", "event_name": 5, "products": "x", "relation": 5},
        "wrong": {"state": None, "start": "2026-11-24", "end": "2026-13-45", "products": [5], "no_longer": 5},
        "deep": {"state": [], "events": [], "products": [{"id": 1}], "now": EVENT | {"metadata": deep}},
        "empty": {"no_longer": {}},
        "nothing": {},
    }
    given = note(kind, data[shape], "warning", "as a plan file says")
    for planned in (narrower(given), created(given), frozen(given), archived(given)):
        assert "⚠️ as a plan file says" in comment(planned)
        assert "warning: as a plan file says" in said(planned)


# Markers


def test_marks_of_one_reason_are_one_line_and_their_keys_folded() -> None:
    text = comment(adopted(60))
    assert '<summary>60 keys</summary>\n\n- `meter-01` `"API calls"`\n- `meter-02`' in text
    terminal = said(adopted(60))
    assert terminal.count(" meter-") == 60
    assert "definitions changed" not in comment(adopted(3, new=meter(name="New")))
    assert text.startswith("### Polar meters: 60 to adopt · sandbox\n")
    assert "\n- **adopt**: writes only the marker" in text
    assert "organization 1dbfc517 60 to adopt Adopts" not in terminal
    assert "organization 1dbfc517 60 to adopt " in terminal
    assert "\n\nsandbox: digest `" in text  # not that 0 are unchanged
    assert line(adopted(1)) == "⚪ **`meter-01`** is adopted: writes only the ownership marker."


@pytest.mark.parametrize(
    ("reason", "words"),
    [("moved", "Renames 2 meters: writes only"), ("restored", "Restores 2 meters: writes only")],
)
def test_other_marks_are_told_apart(reason: MarkReason, words: str) -> None:
    planned = adopted(4)
    changes = [
        replace(change, reason=reason if number < 2 else change.reason, notes=())
        for number, change in enumerate(planned.changes)
    ]
    found = lines(replace(planned, changes=tuple(changes)))
    assert len(found) == 2
    assert any(words in one_ for one_ in found)


# Several environments


def test_each_environment_has_its_own_line_production_first() -> None:
    production = replace(narrower(impact(1_000, 500)), environment="production")
    blocked = replace(
        narrower(),
        changes=tuple(replace(c, action="blocked", cause="frozen", notes=()) for c in narrower().changes),
    )
    first, second = lines(blocked, production)
    assert first.startswith("🔴 production: **llm-tokens** counts less: 1,000 → 500 ")
    assert second.startswith("⛔ sandbox: **llm-tokens** cannot change: ")
    both = comment(narrower(), production)
    assert "\n🔴 production: **llm-tokens** counts less: 1,000 → 500 matched tokens" in both
    assert "<br>\n🔴 sandbox: **llm-tokens** counts less; its usage here was not read.<br>\n" in both
    assert "not read" not in comment(narrower(), blocked)
    assert both.count("Invoices keep what already matched") == both.count("No longer counted, for") == 1


def test_each_environment_has_its_own_counts_where_they_differ() -> None:
    in_use = replace(
        archived(IN_USE, action="blocked", cause="attached", reason="in use"), environment="production"
    )
    assert (
        "\n#### Look closely, production: ⛔ 1 is blocked<br>Look closely, sandbox: 🔴 1 archives a meter\n"
    ) in comment(archived(), in_use)
    production = replace(archived(), environment="production")
    # One of each is not one together: they are two meters.
    other = replace(production.changes[0], key="other")
    assert (
        "\n#### Look closely, production: 🔴 1 archives a meter"
        "<br>Look closely, sandbox: 🔴 1 archives a meter\n"
    ) in comment(replace(production, changes=(other,)), archived())
    assert "\n#### Look closely, production: 🔴 1 archives a meter\n" in comment(
        production, replace(archived(), changes=())
    )
    assert "\n#### Look closely: 🔴 1 archives a meter\n" in comment(archived(), production)


def test_of_environments_production_is_the_first() -> None:
    plans = [replace(archived(), environment=name) for name in ("staging", "sandbox", "production")]
    text = comment(*plans, replace(renamed(), environment="eu"))
    assert text.startswith(
        "### Polar meters<br>production, staging and sandbox: 1 to archive<br>eu: 1 to update\n"
    )
    assert "Polar's **production** (organization" in text
    manifest = desired({"calls": meter()}, environments={"eu": {"server": "production"}})
    text = comment(plan(manifest), plan(manifest, environment="eu"))
    assert text.startswith("### Polar meters: 1 to create · eu and sandbox\n")


# What is blocked


def test_a_plan_in_which_all_is_blocked_changes_nothing() -> None:
    place = "(organization `1dbfc517`)"
    nothing = f"`apply` would change nothing in Polar's **sandbox** {place}: the only change is blocked."
    assert f"\n\n{nothing}\n\n" in comment(frozen())
    both = comment(frozen(), replace(frozen(), environment="production"))
    assert f"**production** {place} and **sandbox** {place}: both changes are blocked.\n\n" in both
    some = "Blocked changes are skipped; `apply` makes the others and exits 1."
    assert some in comment(frozen(), replace(archived(), environment="production"))
    assert some not in both + comment(archived())


def test_equal_adoptions_of_two_environments_are_one_line() -> None:
    production = replace(adopted(5), environment="production")
    assert line(adopted(5), production).startswith("⚪ Adopts 5 meters: ")
    assert line(adopted(5), replace(production, changes=())).startswith("⚪ sandbox: Adopts 5 meters: ")
