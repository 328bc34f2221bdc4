"""Seeds of the embedded Polar: what a file may say, what it becomes, and what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from polar_iac.errors import DiagnosticError, PolarIacError
from polar_iac.local import LocalPolar
from polar_iac.seeding.moments import read_duration, read_moment
from polar_iac.seeding.read import load, read_seed
from polar_iac.seeding.sow import Sown, sow, sow_once
from tests.support.local_polar import client

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)

SEED = b"""\
version: 1
meters:
  calls:
    name: Calls
    filter:
      conjunction: and
      clauses:
        - {property: name, operator: eq, value: call}
    aggregation: {func: sum, property: n}
  old:
    name: Old calls
    filter: {conjunction: and, clauses: []}
    aggregation: {func: count}
    archived: true
customers:
  - alice
  - user-{1..3}
  - {external_id: bob, name: Bob, email: bob@acme.example}
benefits:
  - {description: Free calls, meter: calls, units: 100}
products:
  - name: Pro
    prices:
      - {price_amount: 2000}
      - {meter: calls, unit_amount: 0.5, cap_amount: 9000}
    benefits: [Free calls]
  - name: Legacy
    archived: true
    recurring_interval: year
    prices:
      - {meter: old, unit_amount: "0.000001"}
events:
  - name: call
    customer: [alice, "user-{1..2}"]
    metadata: {n: [1, 2], cached: false}
    from: -2d
    to: -1d
    every: 6h
  - name: call
    from: 2026-03-31
    times: 4
  - name: page.view
    customer: bob
    at: 2026-03-30T08:00:00+01:00
    times: 2
credits:
  - {customer: bob, meter: calls, units: 7}
"""


@pytest.fixture
def app() -> Iterator[LocalPolar]:
    with closing(LocalPolar()) as app:
        yield app


@pytest.fixture
def polar(app: LocalPolar) -> httpx.Client:
    return client(app)


def items(polar: httpx.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    answer = polar.get(path, params={"limit": 100, **query})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def faults(app: LocalPolar, text: str) -> list[str]:
    """What is wrong with a seed, of which the first line is given, when it is sown."""
    with pytest.raises(DiagnosticError) as raised:
        sow(app, load(f"version: 1\n{text}".encode()), NOW)
    return [f"{d.span.line}:{d.span.column} {d.message}" for d in raised.value.diagnostics]


class TestWhatAFileBecomes:
    @pytest.fixture
    def sown(self, app: LocalPolar) -> Sown:
        return sow(app, load(SEED), NOW)

    def test_everything_has_an_id(self, sown: Sown) -> None:
        assert list(sown.meters) == ["calls", "old"]
        assert list(sown.customers) == ["alice", "user-1", "user-2", "user-3", "bob"]
        assert (list(sown.benefits), list(sown.products)) == (["Free calls"], ["Pro", "Legacy"])
        assert sown.events == 4 * 3 + 4 + 2

    def test_a_meter_is_as_a_manifest_writes_it(self, sown: Sown, polar: httpx.Client) -> None:
        calls, old = items(polar, "/meters/", sorting="created_at")
        assert (calls["id"], calls["name"], calls["archived_at"]) == (sown.meters["calls"], "Calls", None)
        assert calls["aggregation"] == {"func": "sum", "property": "n"}
        assert calls["metadata"] == {}  # nobody owns it
        assert old["archived_at"] is not None

    def test_products_have_prices_and_benefits(self, sown: Sown, polar: httpx.Client) -> None:
        legacy, pro = items(polar, "/products/")
        assert [p["amount_type"] for p in pro["prices"]] == ["fixed", "metered_unit"]
        assert pro["prices"][1]["unit_amount"] == "0.500000000000"
        assert pro["prices"][1]["meter_id"] == sown.meters["calls"]
        assert [b["properties"]["units"] for b in pro["benefits"]] == [100]
        assert (legacy["is_archived"], legacy["recurring_interval"]) == (True, "year")

    @pytest.mark.usefixtures("sown")
    def test_events_happen_when_they_should_and_their_values_take_turns(self, polar: httpx.Client) -> None:
        listed = items(polar, "/events/", name="call", source="user", sorting="timestamp")
        series = [e for e in listed if e["external_customer_id"] != "anybody"]
        assert [e["timestamp"] for e in series[::3]] == [
            "2026-03-29T12:00:00Z",
            "2026-03-29T18:00:00Z",
            "2026-03-30T00:00:00Z",
            "2026-03-30T06:00:00Z",
        ]
        assert [e["external_customer_id"] for e in series[:3]] == ["alice", "user-1", "user-2"]
        assert [e["metadata"]["n"] for e in series[:4]] == [1, 2, 1, 2]
        assert series[0]["metadata"]["cached"] is False
        spread = [e["timestamp"] for e in listed if e["external_customer_id"] == "anybody"]
        assert spread == [f"2026-03-31T{hour:02}:00:00Z" for hour in (0, 3, 6, 9)]
        assert [e["timestamp"] for e in items(polar, "/events/", name="page.view")] == [
            "2026-03-30T07:00:00Z"
        ] * 2

    def test_billing_has_run_and_credits_are_granted(self, sown: Sown, polar: httpx.Client) -> None:
        answer = polar.patch(f"/meters/{sown.meters['calls']}", json={"filter": None})
        assert answer.status_code == 422
        rows = items(polar, "/customer-meters/", external_customer_id="bob")
        assert [(row["credited_units"], row["balance"]) for row in rows] == [(7, 7.0)]
        rows = items(polar, "/customer-meters/", external_customer_id="alice")
        assert [row["consumed_units"] for row in rows] == [6.0]

    def test_an_entry_names_a_meter_that_is_there_by_key_name_or_id(
        self, app: LocalPolar, polar: httpx.Client
    ) -> None:
        body = {"filter": {"conjunction": "and", "clauses": []}, "aggregation": {"func": "count"}}
        first = polar.post(
            "/meters/", json={**body, "name": "Calls", "metadata": {"polar_iac": "acme/calls"}}
        )
        meters = (first.json()["id"], polar.post("/meters/", json={**body, "name": "Calls"}).json()["id"])
        text = "version: 1\nbenefits:\n"
        for meter in ("calls", "Calls", meters[1]):
            text += f"  - {{description: Free calls, meter: {meter}, units: 1, rollover: true}}\n"
        sow(app, load(text.encode()), NOW)
        listed = items(polar, "/benefits/", sorting="created_at")
        assert [b["properties"]["meter_id"] for b in listed] == [meters[0], meters[0], meters[1]]

    def test_ten_thousand_events_are_ingested(self, app: LocalPolar, polar: httpx.Client) -> None:
        series = b"version: 1\nevents:\n  - {name: call, customer: 'user-{1..100}', from: -30d, times: 100}\n"
        began = time.process_time()
        assert sow(app, load(series), NOW).events == 10_000
        print(f"seeded in {time.process_time() - began:.1f} s of CPU")
        (seen,) = items(polar, "/events/names")
        assert seen["occurrences"] == 10_000
        assert seen["first_seen"] == "2026-03-01T12:00:00Z"


class TestSowingOnce:
    def test_the_same_file_is_sown_once_and_another_one_not_on_top_of_it(self, app: LocalPolar) -> None:
        first, other = load(SEED), load(SEED + b"# another\n", "other.yaml")
        assert sow_once(app, first, NOW) is not None
        assert sow_once(app, first, NOW + timedelta(days=1)) is None
        with pytest.raises(
            PolarIacError, match=r"other\.yaml: the embedded Polar is not empty, it holds 19 events,"
        ):
            sow_once(app, other, NOW)
        app.reset()
        assert sow_once(app, other, NOW) is not None

    def test_nothing_is_kept_of_a_seed_with_a_fault(self, app: LocalPolar, polar: httpx.Client) -> None:
        wrong = SEED.replace(b"meter: calls, units: 7", b"meter: cals, units: 7")
        with pytest.raises(DiagnosticError, match=r"seed.yaml:47:21: error: .*did you mean `calls`"):
            sow_once(app, load(wrong), NOW)
        for path in ("/meters/", "/products/", "/benefits/", "/events/"):
            assert items(polar, path) == []
        assert sow_once(app, load(SEED), NOW) is not None


class TestFaults:
    def test_all_faults_of_the_text_are_told_at_once(self, app: LocalPolar) -> None:
        text = """\
events:
  - {event_name: call, at: -3d}
  - {name: call, at: yesterday, every: 1h}
  - {name: call, from: -30 days, to: now, every: hourly, times: 0}
  - {name: call}
  - {name: call, at: now, metadata: {tokens: [], tags: {a: 1}}, customer: ""}
  - {name: call, at: now, customer: "user-{3..1}"}
products:
  - {name: Pro, prices: [{unit_amount: 1}], benefits: Free, archived: 1}
  - {name: Pro, prices: 5}
benefits: [{description: Free}]
meters:
  calls:
    {name: Calls, filter: {conjunction: and, clauses: []}, aggregation: {func: count}, environments: [eu]}
"""
        assert faults(app, text) == [
            "3:5 `name` is missing",
            "3:6 unknown key `event_name`: write it as `name`",
            "4:22 at is a moment such as -3d, -1d12h, now, 2026-11-01 or 2026-11-01T12:00:00Z, got"
            ' "yesterday"',
            "4:33 `at` is one moment: remove `every`, or write `from`",
            "5:24 from is a moment such as -3d, -1d12h, now, 2026-11-01 or 2026-11-01T12:00:00Z, got"
            ' "-30 days"',
            '5:50 every is a duration such as 1h or 1d12h, got "hourly"',
            "5:65 times must be a whole number from 1 to 200,000, got the number 0",
            "6:5 an event happens `at` a moment (`at: -3d`) or `from` one `to` another",
            "7:46 `tokens` is an empty list: write at least one value",
            "7:50 Polar refuses an event with this `tags`: the metadata of a user's event is flat,"
            " but for `_cost` and `_llm`. Write each value under a key of its own",
            "7:75 customer is empty: write an external id",
            "8:37 a range goes from one number up to another, with at most 200,000 numbers, got `{3..1}`",
            "10:26 a price has `meter` and `unit_amount`, or `price_amount`: cents, all of them",
            "10:45 benefits is a list of their descriptions: `[Free calls]`",
            "10:61 archived must be true or false",
            "11:17 prices is a list such as `[{meter: calls, unit_amount: 0.5}]`",
            "12:12 `meter` is missing",
            "12:12 `units` is missing",
            "15:88 `environments` belongs in the manifest: remove it",
        ]

    def test_what_polar_refuses_is_told_where_it_is_written(self, app: LocalPolar) -> None:
        text = """\
meters:
  calls: {name: Calls, filter: {conjunction: and, clauses: []}, aggregation: {func: count}}
customers: [alice, alice]
products:
  - name: Pro
    prices:
      - {meter: calls, unit_amount: 0}
  - name: Team
    prices:
      - {meter: calls, unit_amount: 1}
      - {meter: calls, unit_amount: 2}
  - {name: Max, prices: [{meter: seats, unit_amount: 1}], benefits: [Free calls, Free seats]}
benefits:
  - {description: Free calls, meter: calls, units: 0}
events:
  - {name: call, at: 2030-01-01}
  - {name: call, from: -1d, to: -2d}
  - {name: call, at: 1969-01-01}
  - {name: call, at: -999999w}
  - {name: call, from: -30d, every: 1s}
credits:
  - {customer: carol, meter: calls, units: x}
"""
        assert faults(app, text) == [
            "4:20 a customer has the external id 'alice' already: remove this one",
            "8:24 Polar refuses this product (`prices.0.unit_amount`): Input should be greater than 0",
            "12:10 Polar refuses this product (`prices.1.meter`): Meter is already used for another price.",
            "13:27 neither this file nor the embedded Polar has a meter `seats`: `polar-iac apply -e"
            " local` makes those of the manifest",
            "13:59 this file has no benefit `Free seats`: add it under `benefits`",
            "15:45 Polar refuses this benefit (`units`): Input should be greater than 0",
            "17:18 the time is in the future, and Polar refuses such an event: write a time such as `-1h`",
            "18:18 `from` is later than `to`: swap them",
            "19:18 the time is before 1970: write a later one",
            "20:18 the time is before 1970: write a later one",
            "21:5 a seed has at most 200,000 events, and with these it has 2,592,000: write fewer here",
            "23:6 this file has no customer `carol`: add it under `customers`",
            "23:37 units must be a whole number",
        ]

    def test_a_file_that_is_no_seed_is_told(self, tmp_path: Path) -> None:
        for text, told in (
            (b"", "a seed is a map that begins with `version: 1`, got nothing"),
            (b"- 1", "a seed is a map that begins with `version: 1`, got a list"),
            (b"version: '1'", 'version must be the number 1, got "1": remove the quotes'),
            (
                b"version: 1\ncustomers: [{external_id: 5}]",
                "external_id must be text, got the number 5: put it in quotes",
            ),
            (b"events: []", "`version` is missing: begin the file with `version: 1`"),
        ):
            with pytest.raises(DiagnosticError) as raised:
                load(text)
            assert raised.value.diagnostics[0].message == told
        with pytest.raises(PolarIacError, match="not found"):
            read_seed(tmp_path / "seed.yaml")
        with pytest.raises(PolarIacError, match="cannot read"):
            read_seed(tmp_path)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("1h", timedelta(hours=1)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("2w", timedelta(weeks=2)),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("0h", None),
        ("1", None),
        ("h", None),
        ("-1h", None),
        ("999999w" * 200, None),
    ],
)
def test_durations(text: str, duration: timedelta | None) -> None:
    assert read_duration(text) == duration


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", timedelta()),
        ("-3d", timedelta(days=3)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00Z", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-02-30", None),
        ("2026-11-01T12:00:00", None),
        ("3d", None),
        ("-", None),
    ],
)
def test_moments(text: str, moment: datetime | timedelta | None) -> None:
    assert read_moment(text) == moment
