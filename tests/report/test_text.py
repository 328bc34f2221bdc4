"""Texts for people: golden plans and diagnostics, and names that try to break out of them."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.apply.events import Applied, Event, Failed, Skipped, Unknown
from polar_iac.ci.annotations import failure_annotations
from polar_iac.ci.github import workflow_commands
from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.lint.subject import clause_text
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.filter import OPERATOR_SIGNS, OPERATORS, Clause, Filter
from polar_iac.meter.live import Made
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.document import plan_document, plan_json
from polar_iac.plan.model import Note, Plan, differences
from polar_iac.plan.read_document import plan_from_document
from polar_iac.report.comment.document import plan_markdown
from polar_iac.report.diagnostics import diagnostics_text
from polar_iac.report.filters import expression, filter_diff, filter_of, outline
from polar_iac.report.layout import SIGNS
from polar_iac.report.results import event_text, result_text
from polar_iac.report.risks import risk_counts
from polar_iac.report.stale import stale_text
from polar_iac.report.text import plan_text
from polar_iac.report.wording import TERMS, listed, meters_match, quantity
from polar_iac.sanitize import printable
from tests.support import strategies
from tests.support.build import desired, identifier, live, meter, plan, record, without_lint
from tests.support.golden import golden

GOLDEN = Path(__file__).parent / "golden"


def clause(name: str, operator: str, value: Any) -> dict[str, Any]:
    return {"property": name, "operator": operator, "value": value}


def every(*clauses: Any) -> dict[str, Any]:
    return {"conjunction": "and", "clauses": list(clauses)}


def either(*clauses: Any) -> dict[str, Any]:
    return {"conjunction": "or", "clauses": list(clauses)}


LLM = clause("name", "eq", "llm_call")
MODELS = either(
    clause("model", "like", "gpt-4"), clause("model", "like", "opus"), clause("tokens", "gte", 100)
)


def test_a_plan_with_everything_is_golden() -> None:
    manifest = desired(
        {
            "embeddings": meter(name="Embeddings", filter=every(clause("name", "eq", "embedding"))),
            "llm-tokens": meter(
                name="LLM token usage",
                unit="custom",
                custom_label="token",
                custom_multiplier=1000,
                filter=every(LLM, either(*MODELS["clauses"][:2], clause("tokens", "gte", 1000))),
                aggregation={"func": "sum", "property": "tokens"},
                metadata={"owner": "ana", "tier": 2},
            ),
            "exports": meter(name="Exports", archived=True),
            "back": meter(name="Back"),
            "frozen": meter(name="Frozen", filter=every(LLM)),
            "doubled": meter(name="Doubled"),
            "settled": meter(name="Settled"),
            "unmarked": meter(name="Unmarked"),
            "same": meter(name="Same"),
            "llm-input": meter(name="Input"),
            "lost": meter(name="Lost"),
            "again": meter(name="Again", filter=every(clause("kind", "eq", True))),
            "taken-over": meter(name="Taken over"),
            "copied": meter(name="Copied"),
        },
        **{"import": [{"to": "taken-over", "id": {"sandbox": identifier(16)}}]},
        removed=[{"from": "leaving"}],
        moved=[{"from": "tokens-in", "to": "llm-input"}],
    )
    recorded = {
        "llm-tokens": record(
            1,
            name="LLM tokens",
            filter=every(LLM, MODELS),
            metadata={"owner": "ana", "tier": 1, "gone": True},
        ),
        "exports": record(2, name="Exports"),
        "back": record(3, name="Back", archived=True),
        "frozen": record(4, frozen=True, name="Frozen"),
        "same": record(5, name="Same"),
        "tokens-in": record(6, name="Input"),
        "removed": record(7, name="Removed"),
        "settled": record(12, name="Settled"),
        "unmarked": record(14, name="Unmarked"),
        "leaving": record(17, name="Leaving"),
    }
    meters = [
        live(
            1,
            "llm-tokens",
            name="LLM tokens",
            filter=every(LLM, MODELS),
            metadata={"owner": "kim", "tier": 1, "gone": True, "theirs": "x"},
        ),
        live(2, "exports", name="Exports"),
        live(3, "back", name="Back", archived_at="2026-05-01T00:00:00.000000Z"),
        live(4, "frozen", name="Frozen"),
        live(5, "same", name="Same"),
        live(6, "tokens-in", name="Input"),
        live(7, "removed", name="Removed"),
        live(8, "doubled", name="Doubled"),
        live(9, "doubled", name="Doubled"),
        live(12, "settled", name="Settled"),
        live(13, "settled", name="Settled"),
        live(14, None, name="Unmarked"),
        live(15, "zeta-a", name="Of another branch"),
        live(10, "lost", name="Lost"),
        live(11, "again", project="other", name="Theirs", filter=every(clause("kind", "eq", True))),
        live(16, None, name="Taken over"),
        live(17, "leaving", name="Leaving"),
        live(18, None, name="Copied"),
    ]
    planned = plan(manifest, recorded, meters, made=Made(created=frozenset({identifier(13)})))
    golden(GOLDEN / "everything.txt", click.unstyle(plan_text(planned, "meters.yaml")))
    golden(GOLDEN / "everything.json", plan_json(planned))


def test_results_of_every_kind_are_golden() -> None:
    place = Diagnostic(SourceSpan("meters.yaml", 3, 5, 9), "Polar refused `calls`: no", "    name: x")
    events: list[Event] = [
        Applied("created", "create", identifier(1)),
        Applied("found", "adopt", identifier(2)),
        Applied("twice", "settle", identifier(3)),
        Failed("calls", "update", "Polar refused PATCH", (place,)),
        Failed("lost", "create", "the connection broke"),
        Skipped("gone", "blocked", "`gone` is gone from the manifest"),
        Unknown("whether another run created the same meters is not known: no connection"),
    ]
    output = "".join(map(event_text, events)) + result_text(events) + "\n"
    golden(GOLDEN / "events.txt", click.unstyle(output))
    commands = workflow_commands(failure_annotations(events)).splitlines()
    assert [line.partition("::")[2].partition(" ")[0] for line in commands] == ["error"] * 3
    assert "line=3" in commands[0]


def test_a_plan_without_changes_says_so() -> None:
    planned = plan(desired({"calls": meter()}), {"calls": record(1)}, [live(1)])
    golden(GOLDEN / "nothing.txt", click.unstyle(plan_text(planned, "meters.yaml")))
    golden(
        GOLDEN / "offline.txt",
        click.unstyle(plan_text(plan(desired({"a": meter()}), {}, None), "meters.yaml")),
    )


def overwritten(number: int, key: str, **spec: Any) -> tuple[Any, Any]:
    """The record of a meter, and the meter as someone has renamed it at Polar."""
    return record(number, name="Ours"), live(number, key, name="Theirs", **spec)


def test_a_headline_counts_under_each_risk_every_change_that_has_it() -> None:
    keys = ["a", "b", "c", "d"]
    pairs = {key: overwritten(n, key) for n, key in enumerate(keys, 1)}
    declared = {key: meter(name="Ours") for key in keys[1:]}
    declared |= {"a": meter(name="Ours", filter=every(LLM)), "e": meter(), "f": meter(name="Now")}
    planned = plan(
        without_lint(desired(declared), "equal-meters", "same-name"),
        {key: pair[0] for key, pair in pairs.items()} | {"f": record(6)},
        [*(pair[1] for pair in pairs.values()), live(6, "f")],
    )
    lines = click.unstyle(plan_text(planned, "meters.yaml")).splitlines()
    assert " ".join(lines[1:3]) == (
        "1 may change what is billed, 5 change what customers read, 4 overwrite changes made at Polar, 1 to "
        "create"
    )
    assert (
        "Look closely: 🔴 1 may change what is billed · 🟠 5 change what customers read · "
        "⚪ 4 overwrite changes made at Polar\n"
    ) in plan_markdown([planned], manifest_file="meters.yaml")


def test_risky_changes_come_first() -> None:
    planned = plan(
        desired({"a-new": meter(), "b": meter(archived=True), "c": meter(filter=every(LLM))}),
        {"b": record(2), "c": record(3)},
        [live(2, "b"), live(3, "c")],
    )
    lines = click.unstyle(plan_text(planned, "meters.yaml")).splitlines()
    assert [line.split()[1] for line in lines if line[2:3] in SIGNS.values()] == ["c", "b", "a-new"]


def test_billing_is_the_brightest_and_warnings_are_colored() -> None:
    planned = plan(desired({"a": meter(name="New", filter=every(LLM))}), {"a": record(1)}, [live(1, "a")])
    text = plan_text(planned, "meters.yaml")
    assert click.style("billing", fg="bright_yellow", bold=True) in text
    assert click.style("invoice", dim=True) in text
    assert sum(line.startswith("\x1b[33m      warning: ") for line in text.splitlines()) == 1
    assert "\x1b[93m\x1b[1m      may bill: counts other events. " in text


def test_an_archive_shows_what_stops_being_counted_however_long_it_is() -> None:
    planned = plan(
        desired({"a": meter(archived=True, filter=every(LLM, MODELS))}),
        {"a": record(1, filter=every(LLM, MODELS))},
        [live(1, "a", filter=every(LLM, MODELS))],
    )
    text = click.unstyle(plan_text(planned, "meters.yaml", 60))
    assert "      no longer counted: count over\n        - all of\n" in text
    assert '        -     model contains "opus"\n' in text


def test_only_the_words_that_occur_are_explained() -> None:
    renamed = plan(desired({"a": meter(name="New")}), {"a": record(1)}, [live(1, "a")])
    new = plan(desired({"a": meter()}), {}, [])
    text, comment = plan_text(renamed, "m.yaml"), plan_markdown([renamed], manifest_file="m.yaml")
    assert [term for term in TERMS if f"  {term}: " in text] == ["invoice"]
    assert [term for term in TERMS if f"- **{term}**: " in comment] == ["invoice"]
    assert not any(f"  {term}: " in plan_text(new, "m.yaml") for term in TERMS)


def test_a_note_of_many_changes_is_said_once() -> None:
    keys = [f"m{n:03}" for n in range(1, 201)]
    planned = plan(
        without_lint(desired({key: meter(filter=every(LLM)) for key in keys}), "equal-meters"),
        {key: record(n) for n, key in enumerate(keys, 1)},
        [live(n, key) for n, key in enumerate(keys, 1)],
    )
    lines = click.unstyle(plan_text(planned, "meters.yaml")).splitlines()
    assert [line for line in lines if "freeze unknown" in line] == [
        "  [1] warning: freeze unknown: `polar-iac probe -e ENV KEY` tells if Polar refuses this"
    ]
    assert sum(line.endswith(" [1, 2]") for line in lines if line.startswith("  ~ ")) == 200
    assert sum("Invoices keep" in line for line in lines) == 1
    assert len(lines) < 5 * 200 + 20


def test_keys_that_are_blocked_for_one_reason_share_it() -> None:
    keys = [f"m{n}" for n in range(1, 9)]
    planned = plan(
        desired({key: meter() for key in keys}), {key: record(n) for n, key in enumerate(keys, 1)}, []
    )
    text = click.unstyle(plan_text(planned, "meters.yaml"))
    assert "  ! 8 meters: Polar does not know their ids\n      This is likely" in text
    assert text.count("wrong organization") == 1
    assert [key for key in keys if f'\n      {key} "' in text] == keys


def test_keys_that_are_declared_elsewhere_share_the_advice_for_this_environment() -> None:
    meters = {key: meter(environments=["production"]) for key in ("a", "b")}
    planned = plan(desired(meters), {"a": record(1), "b": record(2)}, [live(1, "a"), live(2, "b")])
    text = " ".join(click.unstyle(plan_text(planned, "meters.yaml")).split())
    assert (
        "! 2 meters: declared for other environments only, and still active here Archive them once with"
        in text
    )
    assert text.count("--allow-archive -e sandbox, or add sandbox to their `environments`.") == 1


def test_removed_keys_share_a_reason_and_keep_their_notes() -> None:
    seats: dict[str, Any] = {"filter": every(LLM)}
    planned = plan(
        desired({"new": meter(**seats), "same": meter()}),
        {"old": record(1), "seats": record(2, **seats), "same": record(3)},
        [live(1, "old"), live(2, "seats", **seats), live(3, "same")],
    )
    golden(GOLDEN / "refused.txt", click.unstyle(plan_text(planned, "meters.yaml")))
    comment = plan_markdown([planned], manifest_file="meters.yaml")
    assert comment.count("2 meters are gone from the manifest") == 1
    assert "Keep its block" not in comment
    assert comment.count("<summary>Lines to paste</summary>\n\n```yaml\n") == 2


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (
            "one-value",
            every(LLM, MODELS),
            every(LLM, either(*MODELS["clauses"][:2], clause("tokens", "gte", 5))),
        ),
        ("clause-added", every(LLM), every(LLM, clause("a", "eq", 1))),
        ("conjunction", every(LLM, clause("a", "eq", 1)), either(LLM, clause("a", "eq", 1))),
        ("to-every-event", every(LLM, MODELS), every()),
        ("type-of-a-value", every(clause("a", "eq", "100")), every(clause("a", "eq", 100))),
        (
            "filter-replaced",
            every(LLM, MODELS),
            every(LLM, either(clause("x", "eq", 1), clause("y", "eq", 2))),
        ),
        ("wrapped", every(LLM), either(every(LLM, clause("a", "eq", 1)), clause("b", "eq", 2))),
    ],
)
def test_filter_diffs_are_golden(name: str, before: Any, after: Any) -> None:
    one, two = (Filter.from_json(side).canonical() for side in (before, after))
    lines = [f"{line.sign} {'  ' * line.depth}{line.text}\n" for line in filter_diff(one, two)]
    golden(GOLDEN / f"filter-{name}.txt", "".join(lines))


def test_clauses_keep_the_order_in_which_they_were_written() -> None:
    written = every(either(clause("z", "eq", 1), clause("b", "eq", 2)), clause("y", "gt", 3), LLM)
    reviewed: dict[str, Any] = {"filter": every(LLM, clause("a", "eq", 1), clause("y", "gt", 2))}
    changed: dict[str, Any] = {"filter": every(clause("y", "gt", 3), LLM, clause("c", "eq", 1))}
    planned = plan(
        desired({"new": meter(filter=written), "old": meter(**changed)}),
        {"old": record(1, **reviewed)},
        [live(1, "old", **reviewed)],
    )
    for text in (plan_text(planned, "m.yaml"), plan_markdown([planned], manifest_file="m.yaml")):
        assert '(z = 1 or b = 2) and y > 3 and name = "llm_call"' in text
    _, found, difference = plan_markdown([planned], manifest_file="m.yaml").partition("```diff\n")
    assert found
    assert difference.startswith(
        '  all of\n-   y > 2\n+   y > 3\n    name = "llm_call"\n-   a = 1\n+   c = 1\n'
    )


def test_a_stale_plan_shows_clauses_in_the_order_in_which_they_were_written() -> None:
    """The reviewed plan was saved, in canonical form, or is the one before the prompt."""

    def planned(name: str, least: int, *more: Any) -> Plan:
        filter_ = every(clause("z", "eq", 1), clause("y", "gt", least), LLM, *more)
        return plan(desired({"calls": meter(name=name, filter=filter_)}))

    reviewed, fresh = planned("Old", 3), planned("New", 4)
    for then in (reviewed, plan_from_document(plan_document(reviewed))):
        text = stale_text(differences(then, fresh))
        assert (
            'filter after apply: reviewed z = 1 and name = "llm_call" and y > 3, '
            'now z = 1 and y > 4 and name = "llm_call"\n'
        ) in text
        # Another order alone is no difference.
        again = stale_text(differences(then, planned("New", 3)))
        assert "name after apply" in again
        assert "filter" not in again
    long = [clause(f"p{number}", "eq", "x" * 30) for number in (2, 1)]
    then = plan_from_document(plan_document(planned("Old", 3, *long)))
    lines = stale_text(differences(then, planned("Old", 4, *long))).splitlines()[2:]
    clauses = ["z = 1", "- y > 3", "+ y > 4", 'name = "llm_call"', f'p2 = "{"x" * 30}"', f'p1 = "{"x" * 30}"']
    assert [" ".join(line.split()) for line in lines] == ["all of", *clauses]


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (3, 3), (4, 0), (5, 0)])
def test_unchanged_clauses_are_folded_from_four_lines(count: int, shown: int) -> None:
    same = [clause(f"p{n}", "eq", n) for n in range(count)]
    lines = [*filter_diff(every(*same, clause("x", "gt", 1)), every(*same, clause("x", "gt", 2)))]
    unchanged = [line.text for line in lines if line.sign == " "][1:]
    assert unchanged == ([f"p{n} = {n}" for n in range(shown)] if shown else [f"… {count} clauses unchanged"])


def test_what_is_gone_stands_where_it_was() -> None:
    a, b, c, d = (clause(name, "eq", 1) for name in "abcd")
    lines = [f"{line.sign}{line.text}" for line in filter_diff(every(a, b, c), every(d, c, a))]
    assert lines == [" all of", "+d = 1", " c = 1", " a = 1", "-b = 1"]


@pytest.mark.parametrize(
    ("operator", "value", "date"),
    [
        ("gte", 1735689600, " (2025-01-01 00:00:00 UTC)"),
        ("lt", -1, " (1969-12-31 23:59:59 UTC)"),
        ("like", 17, ""),
    ],
)
def test_a_timestamp_is_shown_as_a_date_too(operator: str, value: int, date: str) -> None:
    text = expression(every(clause("timestamp", operator, value)))
    assert text == f"timestamp {OPERATOR_SIGNS[operator]} {value}{date}"
    assert "UTC" not in expression(every(clause("tokens", operator, value)))


def test_operators_have_one_notation() -> None:
    spec = MeterSpec.from_json(meter(filter=every(clause("tokens", "gte", "5"))))
    (part,) = spec.filter.clauses
    assert isinstance(part, Clause)
    assert clause_text(part) == f"`{expression(spec.canonical['filter'])}`"
    assert set(OPERATOR_SIGNS) == set(OPERATORS)


@given(before=strategies.filters, after=strategies.filters)
def test_a_diff_of_written_filters_shows_a_change_exactly_when_there_is_one(before: Any, after: Any) -> None:
    one, two = (MeterSpec.from_json(meter(filter=side)) for side in (before, after))
    signs = {line.sign for line in filter_diff(filter_of(one), filter_of(two))}
    assert (signs == {" "}) == (one == two)


@given(before=strategies.filters, after=strategies.filters)
def test_a_diff_shows_a_change_exactly_when_there_is_one(before: Any, after: Any) -> None:
    one, two = (Filter.from_json(side).canonical() for side in (before, after))
    signs = {line.sign for line in filter_diff(one, two)}
    assert (signs == {" "}) == (canonical_json(one) == canonical_json(two))


@given(data=strategies.filters)
def test_every_clause_is_shown(data: Any) -> None:
    canonical = Filter.from_json(data).canonical()

    def leaves(part: Any) -> int:
        return sum(leaves(c) if "clauses" in c else 1 for c in part["clauses"])

    heads = ("all of", "any of", "every event")
    assert sum(line.text not in heads for line in outline(canonical)) == leaves(canonical)
    assert "\n" not in expression(canonical)


def test_lists_and_numbers_have_one_form() -> None:
    assert [listed(list("abcdef"[:n])) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert listed(list("abcdef"), 2) == "a, b and 4 more"
    assert [quantity(n, "meter") for n in (0, 1, 2, 5_000)] == [
        "0 meters",
        "1 meter",
        "2 meters",
        "5,000 meters",
    ]
    assert [meters_match(n) for n in ([1], [0], [2, 3])] == [
        "1 meter matches",
        "0 meters match",
        "2 and 3 meters match",
    ]


@given(text=st.text())
def test_nothing_moves_the_cursor(text: str) -> None:
    for char in printable(text):
        assert char == "\u200d" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x9b2J",
    "line\nPlan: 0 to create",
    "\r::error::forged",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "tab\tbell\a\b\b",
    "\u2028\u2029\x85",
    "\ud800",
    "\x1b]8;;http://evil\x07link\x1b]8;;\x07",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_live_names_stay_on_their_line(name: str) -> None:
    planned = plan(
        desired({"calls": meter()}),
        {"calls": record(1)},
        [
            live(1, name=name, metadata={name: name}, filter=every(clause(name, "eq", name))),
            live(2, None, name=name),
        ],
    )
    for text in (plan_text(planned, "meters.yaml"), plan_json(planned)):
        plain = click.unstyle(text)
        assert not any(unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp", "Cs"} for c in plain if c != "\n")
        assert sum(line.startswith(("Plan:", "  ~ ", "::")) for line in plain.split("\n")) == (
            2 if text.startswith("meters") else 0
        )


def test_diagnostics_are_golden() -> None:
    problems = [
        Diagnostic(SourceSpan("m.yaml", 3, 12, 15), "a short one", "    value: 1.5"),
        Diagnostic(SourceSpan("m.yaml", 4, 400, 403), "on a long line", "x" * 399 + "BAD" + "y" * 600),
        Diagnostic(SourceSpan("m.yaml", 5, 5, 8), "after wide and strange characters", "数字\x1b[ BAD\t"),
        Diagnostic(SourceSpan("m.yaml", 6, 1, 2), "without a line"),
    ]
    golden(GOLDEN / "diagnostics.txt", click.unstyle(diagnostics_text(problems)))


def test_warnings_without_another_risk_are_not_called_other_warnings() -> None:
    (new,) = plan(desired({"calls": meter()}), {}, []).changes
    warned = replace(new, notes=(Note("meaning", "warning", "a doubt", "manifest"),))
    blocked = replace(new, action="blocked", notes=())
    assert risk_counts([warned]) == ["1 has a warning"]
    assert risk_counts([warned, warned]) == ["2 have warnings"]
    assert risk_counts([blocked, warned]) == ["1 is blocked", "1 has another warning"]
