"""Files of tests, read: every mistake at its place, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.errors import DiagnosticError
from polar_iac.manifest import read as manifest
from polar_iac.meter.meaning.building import completed, is_ingestible
from polar_iac.testing.events import event_of, refusals
from polar_iac.testing.model import Reading
from polar_iac.testing.read import load

MANIFEST = manifest.load(
    b"""\
version: 1
project: acme
meters:
  llm-tokens:
    name: LLM tokens
    filter:
      conjunction: and
      clauses:
        - {property: name, operator: eq, value: llm.completion}
        - {property: cached, operator: eq, value: false}
    aggregation: {func: sum, property: input_tokens}
""",
    "meters.yaml",
)
HEAD = "version: 1\ntests:\n"


def read(text: str, directory: Path = Path()) -> Reading:
    return load(text.encode(), str(directory / "meters.test.yaml"), MANIFEST)


def read_given(events: str) -> Reading:
    return read(f"{HEAD}  - {{name: t, meter: llm-tokens, given: {events}, expect: {{total: 0}}}}\n")


def problems(text: str, directory: Path = Path()) -> list[str]:
    with pytest.raises(DiagnosticError) as caught:
        read(text, directory)
    return [f"{d.span.line}:{d.span.column}: {d.message}" for d in caught.value.diagnostics]


def test_all_mistakes_are_reported_at_once_each_at_its_place() -> None:
    text = """\
version: 2
test: []
tests:
  - name: one
    meter: llm-token
    given: [{name: a}]
    expect: {}
  - name: one
    meter: llm-tokens
    given: [{name: a}]
  - nme: two
    meter: llm-tokens
    given:
      - {event_name: a, metdata: {}, times: 0, counted: yes}
      - {name: a, timestamp: 2030-01-01, source: [x]}
      - {metadata: {n: .inf, day: 2026-01-01}}
    expect: {unit: {a: 1}, total: "3", events: 1.5, units: {b: true}}
"""
    assert [line.partition(": ")[0] for line in problems(text)] == [
        *("1:10", "2:1", "5:12", "7:13", "8:5", "8:11", "11:5", "14:10", "14:25", "14:45", "14:57"),
        *("15:30", "15:50", "16:9", "16:24", "16:35", "17:14", "17:35", "17:48", "17:64"),
    ]
    found = problems(text)
    assert "5:12: meters.yaml has no meter `llm-token`: did you mean `llm-tokens`?" in found
    assert any(line.startswith("8:5: this test expects nothing") for line in found)
    assert "14:10: unknown key `event_name`: write it as `name`" in found
    assert "14:25: unknown key `metdata`: did you mean `metadata`?" in found


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            "{usage: {tokens: 5}}",
            "`usage`: the metadata of a user's event is flat, but for `_cost` and `_llm`",
        ),
        ("{tags: [a]}", "`tags`: the metadata of a user's event is flat: no lists"),
        ("{a: null}", "`a`: metadata holds no null"),
        ('{a: ""}', "`a`: a text in metadata is not empty"),
        (f"{{a: {'x' * 501}}}", "`a`: a text in metadata has at most 500 characters, got 501"),
        ("{_llm: {model: m}}", "`_llm`: it lacks vendor, input_tokens, output_tokens, total_tokens"),
        ("{_cost: {amount: 1, currency: eur}}", "`_cost`: it has a number `amount` and `currency: usd`"),
        ("{_cost: 5}", "`_cost`: it must be a map with amount, currency"),
    ],
)
def test_what_ingestion_refuses_of_a_user_is_an_error_and_of_the_system_none(
    metadata: str, message: str
) -> None:
    with pytest.raises(DiagnosticError, match="Polar refuses an event with this ") as caught:
        read_given(f"[{{name: a, metadata: {metadata}}}]")
    assert message in str(caught.value)
    assert read_given(f"[{{name: a, source: system, metadata: {metadata}}}]").tests


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@pytest.mark.unmeasured
@given(metadata=st.dictionaries(st.sampled_from(["a", "b\0", "_llm", "_cost"]), JSON, max_size=3))
def test_an_event_is_refused_exactly_where_ingestion_refuses_it(metadata: dict[str, Any]) -> None:
    event = event_of({"name": "a", "metadata": metadata}, 0)
    for one in (event, completed(event)):
        assert bool(list(refusals(one))) is not is_ingestible(one)


def test_an_event_is_stored_as_ingestion_stores_it() -> None:
    llm = "{vendor: a, model: b, input_tokens: 1, output_tokens: 2, total_tokens: 3}"
    (test,) = read_given(
        f'[{{name: a, metadata: {{_cost: {{amount: "0.25", currency: usd}}, _llm: {llm}}}}}, {{name: b}}]'
    ).tests
    metadata = test.given[0].data["metadata"]
    assert metadata["_cost"]["amount"] == 0.25
    assert metadata["_llm"]["prompt"] is None
    assert [event.data["timestamp"] for event in test.given] == [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:01Z",
    ]


@pytest.mark.parametrize("expect", ["{}", "{units: {}}"])
def test_a_test_expects_something(expect: str) -> None:
    text = f"{HEAD}  - {{name: t, meter: llm-tokens, given: [{{name: a}}], expect: {expect}}}\n"
    assert problems(text) == ["3:62: expect is empty: write units, total or events"]
    without = text.replace(f", expect: {expect}", "")
    assert problems(without)[0].startswith("3:5: this test expects nothing")


def test_one_event_is_a_list_too() -> None:
    assert problems(
        f"{HEAD}  - {{name: t, meter: llm-tokens, given: {{name: a}}, expect: {{total: 0}}}}\n"
    ) == ["3:41: given is a list of events: write `- {name: …}`, also for one"]


def test_a_time_may_be_any_and_needs_a_zone() -> None:
    (test,) = read_given('[{name: a, timestamp: "2999-01-01t00:00:00z"}]').tests
    assert test.given[0].event.moment.year == 2999
    with pytest.raises(DiagnosticError, match="timestamp is a time with a zone"):
        read_given('[{name: a, timestamp: "2026-01-01T00:00:00"}]')


def test_defaults_hold_for_what_an_event_does_not_say_itself() -> None:
    text = """\
version: 1
defaults: {name: a, customer: c, counted: true, metadata: {x: 1, y: {z: 1}}, source: system}
tests:
  - name: t
    meter: llm-tokens
    given: [{metadata: {x: 2, y: {w: 2}}}, {name: b, counted: false, customer: d}]
"""
    first, second = read(text).tests[0].given
    assert first.data["metadata"] == {"x": 2, "y": {"z": 1, "w": 2}}
    assert (first.data["name"], first.customer, first.counted, first.times) == ("a", "c", True, 1)
    assert (second.data["name"], second.customer, second.counted) == ("b", "d", False)
    assert problems(text.replace(", source: system", "")) == [
        "2:66: Polar refuses an event with this `y`: the metadata of a user's event is flat, but for `_cost`"
        " and `_llm`. Write each value under a key of its own",
        "6:31: Polar refuses an event with this `y`: the metadata of a user's event is flat, but for `_cost`"
        " and `_llm`. Write each value under a key of its own",
    ]


def test_recorded_events_are_as_ingested_or_as_polar_shows_them(tmp_path: Path) -> None:
    (tmp_path / "day.jsonl").write_text(
        '{"name": "a", "external_customer_id": "c1", "external_id": "1", "metadata": {"n": 1}}\n'
        "\n"
        '{"name": "a", "external_customer_id": "c1", "external_id": "1", "metadata": {"n": 2}}\n'
        '{"id": "8", "label": "b", "name": "b", "source": "system",'
        ' "customer": {"external_id": "c2", "id": "9"}, "timestamp": "2026-11-25T21:47:43Z",'
        ' "metadata": {"o": {"p": null}}, "child_count": 0}\n'
        '{"name": "c", "customer": null, "customer_id": "u1"}\n'
    )
    text = f"{HEAD}  - {{name: t, meter: llm-tokens, given: {{file: day.jsonl}}, expect: {{total: 0}}}}\n"
    given_ = read(text, tmp_path).tests[0].given
    assert [(g.label, g.customer) for g in given_] == [
        ("day.jsonl:1", "c1"),
        ("day.jsonl:4", "c2"),
        ("day.jsonl:5", "u1"),
    ]
    assert given_[1].data["metadata"] == {"o": {"p": None}}


def test_mistakes_in_recorded_events_are_at_their_lines(tmp_path: Path) -> None:
    (tmp_path / "day.jsonl").write_text(
        '{"name": "a", "metadata": {"n": NaN}}\n{"name": "a"\n[]\n{"items": []}\n{"name": 1, "metdata": {}}\n'
        '{"name": "a", "metadata": {"n": [1]}}\n{"metadata": {}}\n'
        '{"name": "a", "timestamp": "now", "times": 0}\n'
    )
    text = f"{HEAD}  - {{name: t, meter: llm-tokens, given: {{file: day.jsonl}}, expect: {{totl: 0}}}}\n"
    lines = problems(text, tmp_path)
    assert [line.partition(":")[0] for line in lines] == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "5",
        "6",
        "7",
        "8",
        "8",
        "3",
    ]
    assert problems(text.replace("day", "night"), tmp_path)[0].startswith("3:48: cannot read ")


def test_a_property_that_is_nearly_spelt_is_a_warning() -> None:
    (warning,) = read_given("[{name: llm.completion, metadata: {cachd: false, input_tokens: 3}}]").warnings
    assert (warning.span.line, warning.span.column) == (3, 76)
    assert warning.message == (
        "no event of this test has `cached`, which llm-tokens reads (meters.yaml:10):"
        " is `cachd` meant for it?"
    )
    assert not read_given("[{name: a, metadata: {cachd: true, cached: true, input_tokens: 3}}]").warnings
    assert not read_given("[{name: a, metadata: {customer: x, input_tokens: 3}}]").warnings


def test_events_are_held_against_their_declaration() -> None:
    declared = manifest.load(
        b"""\
version: 1
project: acme
events:
  llm.completion: {tokens: integer, model: string, cached: {type: boolean, optional: true}}
meters:
  llm-tokens:
    name: LLM tokens
    filter: {conjunction: and, clauses: [{property: name, operator: eq, value: llm.completion}]}
    aggregation: {func: count}
""",
        "meters.yaml",
    )
    text = f"""{HEAD}  - name: t
    meter: llm-tokens
    given:
      - {{name: llm.completion, metadata: {{tokens: 1, model: m}}}}
      - {{name: llm.completion, metadata: {{tokns: 1, model: 5}}, times: 2}}
      - {{name: other, metadata: {{x: 1}}}}
      - {{name: llm.completion, metadata: {{tokns: 1, model: 5}}}}
      - {{name: llm.completion, source: system, metadata: {{x: 1}}}}
    expect: {{events: 4}}
"""
    reading = load(text.encode(), "meters.test.yaml", declared)
    assert [f"{d.span.line}:{d.span.column}: {d.message}" for d in reading.warnings] == [
        "7:43: meters.yaml declares `llm.completion` without `tokns`: did you mean `tokens`?",
        "7:53: meters.yaml declares `model` of `llm.completion` as string, and this value has another type",
    ]
