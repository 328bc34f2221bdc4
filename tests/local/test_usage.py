"""Events, quantities and billing of the embedded Polar: rules above all that no recorded exchange shows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from polar_iac.local import LocalPolar, layout, serving
from polar_iac.local.admin import MAX_ORGANIZATIONS, AdministeredPolar
from tests.meter.test_engines import CASES
from tests.support.local_polar import ANY_FILTER, UNKNOWN, clause, client, create, is_broken, locs

DAY = "2025-03-03T12:00:00Z"
RANGE = "start_timestamp=2025-03-03T00:00:00Z&end_timestamp=2025-03-03T00:00:00Z&interval=day"
SUM = {"func": "sum", "property": "n"}


@pytest.fixture
def polar(app: LocalPolar) -> Iterator[httpx.Client]:
    with client(app) as polar:
        yield polar


@pytest.fixture
def unbilled() -> Iterator[tuple[LocalPolar, httpx.Client]]:
    """A Polar that bills when it is told to."""
    with closing(LocalPolar(bills_at_once=False)) as app, client(app) as polar:
        yield app, polar


def event(**fields: Any) -> dict[str, Any]:
    return {"name": "call", "external_customer_id": "cust_1", "timestamp": DAY, **fields}


def ingest(polar: httpx.Client, *events: dict[str, Any]) -> dict[str, int]:
    answer = polar.post("/events/ingest", json={"events": events})
    assert answer.status_code == 200, answer.text
    counts: dict[str, int] = answer.json()
    return counts


def refused(polar: httpx.Client, **fields: Any) -> list[list[str | int]]:
    """Where an event is refused, for the branch that was meant: the places within the event."""
    found = locs(polar.post("/events/ingest", json={"events": [event(**fields)]}))
    return [loc[4:] for loc in found if loc[3] == "EventCreateExternalCustomer"]


def quantities(polar: httpx.Client, meter: dict[str, Any], query: str = RANGE) -> dict[str, Any]:
    answer = polar.get(f"/meters/{meter['id']}/quantities?{query}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def labels(document: dict[str, Any]) -> list[str]:
    return [bucket["timestamp"] for bucket in document["quantities"]]


def is_frozen(polar: httpx.Client, meter: dict[str, Any]) -> bool:
    return polar.patch(f"/meters/{meter['id']}", json={"filter": None}).status_code == 422


def listed(polar: httpx.Client, query: str = "") -> list[dict[str, Any]]:
    answer = polar.get(f"/events/?sorting=timestamp&{query}")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


class TestIngestion:
    def test_one_wrong_event_refuses_the_whole_batch(self, polar: httpx.Client) -> None:
        answer = polar.post("/events/ingest", json={"events": [event(), event(name=5), event()]})
        assert {tuple(loc[:3]) for loc in locs(answer)} == {("body", "events", 1)}
        assert listed(polar) == []

    def test_metadata_is_flat(self, polar: httpx.Client) -> None:
        tags = ["constrained-str", "int", "float", "bool"]
        for value in (None, "", [1], {"b": 1}, "x" * 501):
            assert refused(polar, metadata={"a": value}) == [["metadata", "a", tag] for tag in tags]
        assert refused(polar, metadata=None) == [["metadata"]]
        assert refused(polar, metadata={"a": "\0"}) == [["metadata"]]
        assert ingest(polar, event(metadata={f"{'k' * 50}{i}": i for i in range(60)}))["inserted"] == 1

    def test_llm_is_an_object_with_its_own_fields(self, polar: httpx.Client) -> None:
        missing = refused(polar, metadata={"_llm": {"vendor": "acme"}})
        wanted = ["model", "input_tokens", "output_tokens", "total_tokens"]
        assert missing == [["metadata", "_llm", field] for field in wanted]
        used = {"vendor": "acme", "model": "m1", "input_tokens": 10, "output_tokens": 20, "total_tokens": 30}
        ingest(polar, event(metadata={"_llm": used}))
        assert listed(polar)[0]["metadata"] == {"_llm": {**used, "prompt": None, "response": None}}
        meter = create(polar, aggregation={"func": "sum", "property": "_llm.total_tokens"})
        assert quantities(polar, meter)["total"] == 30.0

    @pytest.mark.parametrize("text", ['{"a":NaN}', '{"a":1e400}', '{"a":-Infinity}', '{"a":"\\ud800"}'])
    def test_what_the_database_cannot_store_breaks(self, polar: httpx.Client, text: str) -> None:
        body = f'{{"events":[{{"name":"x","external_customer_id":"c","metadata":{text}}}]}}'
        headers = {"content-type": "application/json"}
        assert is_broken(polar.post("/events/ingest", content=body, headers=headers))

    def test_a_customer_id_must_exist_and_wins(self, app: LocalPolar, polar: httpx.Client) -> None:
        unknown = {"name": "x", "customer_id": UNKNOWN}
        answer = polar.post("/events/ingest", json={"events": [event(), unknown]})
        assert locs(answer) == [["body", "events", 1, "customer_id"]]
        assert answer.json()["error"] == "PolarRequestValidationError"
        ada = app.usage.add_customer(external_id="ada", email="ada@example.com", name="Ada")
        ingest(polar, event(customer_id=ada))
        (only,) = listed(polar)
        assert (only["customer_id"], only["external_customer_id"]) == (ada, None)
        assert only["customer"]["first_user_event_at"] == DAY

    def test_an_organization_is_only_named_with_a_personal_token(self, app: LocalPolar) -> None:
        mine = {"events": [event(organization_id=app.organization_id)]}
        with client(app) as organization, client(app, "polar_pat_x") as person:
            for body in (mine, {"events": [event(organization_id=UNKNOWN)]}):
                answer = organization.post("/events/ingest", json=body)
                assert locs(answer) == [["body", "events", 0, "organization_id"]]
            assert person.post("/events/ingest", json=mine).status_code == 200
            assert locs(person.post("/events/ingest", json={"events": [event()]})) == [
                ["body", "events", 0, "organization_id"]
            ]

    def test_a_parent_may_come_later(self, polar: httpx.Client) -> None:
        ingest(polar, event(name="child", parent_id="root-1"), event(name="grandchild", parent_id="child-1"))
        assert listed(polar) == []
        assert quantities(polar, create(polar))["total"] == 2.0
        ingest(polar, event(name="root", external_id="root-1"))
        root, child = sorted(listed(polar), key=lambda e: str(e["name"]), reverse=True)
        assert (root["name"], root["child_count"], root["parent_id"]) == ("root", 1, None)
        assert (child["name"], child["parent_id"]) == ("child", root["id"])
        assert polar.get(f"/events/{root['id']}").json()["child_count"] == 0
        assert [e["name"] for e in listed(polar, "depth=0")] == ["root"]
        assert [e["name"] for e in listed(polar, f"depth=0&parent_id={root['id']}")] == ["child"]


class TestScopes:
    @pytest.mark.parametrize(
        ("token", "read", "write", "quantity"),
        [
            ("polar_oat_x", 200, 200, 200),
            ("polar_oat_er_x", 200, 403, 403),
            ("polar_oat_ew_x", 200, 200, 403),
            ("polar_oat_rw_x", 403, 403, 200),
            ("polar_oat_noscope_x", 403, 403, 403),
            (None, 401, 401, 401),
        ],
    )
    def test_events_have_scopes_of_their_own(
        self, app: LocalPolar, polar: httpx.Client, token: str | None, read: int, write: int, quantity: int
    ) -> None:
        meter = create(polar)
        with client(app, token) as other:
            assert other.get("/events/").status_code == read
            assert other.get("/events/names").status_code == read
            assert other.post("/events/ingest", json={"events": []}).status_code == write
            assert other.get(f"/meters/{meter['id']}/quantities?{RANGE}").status_code == quantity


class TestQuantities:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("start_timestamp=2025-01-31T00:00:00Z&end_timestamp=2025-04-28T00:00:00Z&interval=month",
             ["2025-01-31", "2025-02-28", "2025-03-28", "2025-04-28"]),
            ("start_timestamp=2024-02-29T00:00:00Z&end_timestamp=2026-03-01T00:00:00Z&interval=year",
             ["2024-02-29", "2025-02-28", "2026-02-28"]),
            ("start_timestamp=2025-03-03T23:59:00Z&end_timestamp=2025-03-03T23:00:00Z&interval=day", []),
        ],
    )  # fmt: skip
    def test_labels_step_from_the_one_before(
        self, polar: httpx.Client, query: str, expected: list[str]
    ) -> None:
        assert [label[:10] for label in labels(quantities(polar, create(polar), query))] == expected

    def test_days_are_the_zone_s_also_when_clocks_change(self, polar: httpx.Client) -> None:
        meter = create(polar)
        ingest(polar, event(timestamp="2025-03-30T21:59:59Z"), event(timestamp="2025-03-30T22:00:00Z"))
        start, end = quote("2025-03-29T00:00:00+01:00"), quote("2025-03-31T00:00:00+02:00")
        query = f"start_timestamp={start}&end_timestamp={end}&interval=day&timezone=Europe/Berlin"
        found = quantities(polar, meter, query)
        assert labels(found) == ["2025-03-28T23:00:00Z", "2025-03-29T23:00:00Z", "2025-03-30T22:00:00Z"]
        assert [bucket["quantity"] for bucket in found["quantities"]] == [0.0, 1.0, 1.0]

    def test_the_repeated_hour_of_autumn_is_two_buckets(self, polar: httpx.Client) -> None:
        meter = create(polar)
        ingest(polar, event(timestamp="2025-10-26T00:30:00Z"), event(timestamp="2025-10-26T01:30:00Z"))
        query = "start_timestamp=2025-10-26T00:00:00Z&end_timestamp=2025-10-26T01:00:00Z&interval=hour"
        found = quantities(polar, meter, f"{query}&timezone=Europe/Berlin")
        assert [bucket["quantity"] for bucket in found["quantities"]] == [1.0, 1.0]

    @pytest.mark.parametrize(
        ("interval", "days"), [("hour", 7), ("day", 366), ("week", 371), ("month", 1460), ("year", 3650)]
    )
    def test_ranges_are_limited_by_their_dates(self, polar: httpx.Client, interval: str, days: int) -> None:
        meter = create(polar)
        first = httpx.QueryParams(start_timestamp="2023-01-01T23:59:59Z", interval=interval)
        dates = [f"{date_after(days)}T23:59:59Z", f"{date_after(days + 1)}T00:00:00Z", "2022-12-31T00:00:00Z"]
        answers = [
            polar.get(f"/meters/{meter['id']}/quantities?{first.set('end_timestamp', d)}") for d in dates
        ]
        assert [answer.status_code for answer in answers] == [200, 422, 422]
        assert locs(answers[1]) == locs(answers[2]) == [["query"]]

    def test_the_earliest_start_is_2023(self, polar: httpx.Client) -> None:
        meter = create(polar)
        query = "start_timestamp=2022-12-31T23:59:59Z&end_timestamp=2023-01-02T00:00:00Z&interval=day"
        assert locs(polar.get(f"/meters/{meter['id']}/quantities?{query}")) == [["query", "start_timestamp"]]

    def test_customers_are_grouped_by_the_id_that_an_event_has(
        self, app: LocalPolar, polar: httpx.Client
    ) -> None:
        ada = app.usage.add_customer(external_id="ada", email="ada@example.com", name="Ada")
        meter = create(polar, aggregation=SUM)
        ingest(
            polar,
            {"name": "call", "customer_id": ada, "timestamp": DAY, "metadata": {"n": 1}},
            event(external_customer_id="ada", metadata={"n": 2}),
            event(external_customer_id="ada", metadata={"n": 3}),
            event(external_customer_id="bob", metadata={"n": 5}),
        )
        by_function = {
            function: quantities(polar, meter, f"{RANGE}&customer_aggregation_function={function}")["total"]
            for function in ("count", "sum", "max", "min", "avg", "unique")
        }
        assert by_function == {"count": 3, "sum": 11, "max": 5, "min": 1, "avg": 11 / 3, "unique": 2}
        assert quantities(polar, meter, f"{RANGE}&external_customer_id=ada")["total"] == 6.0

    def test_metadata_compares_as_text(self, polar: httpx.Client) -> None:
        meter = create(polar)
        ingest(polar, *(event(metadata={"n": n, "who": "a"}) for n in (2, 2.0, "2", True)), event())

        def total(query: str) -> float:
            count: float = quantities(polar, meter, f"{RANGE}&{query}")["total"]
            return count

        assert [total(f"metadata[n]={text}") for text in ("2", "2.0", "true", "True")] == [2, 1, 1, 0]
        assert total("metadata[n]=2&metadata[n]=true&metadata[who]=a") == 3
        assert len(listed(polar, "metadata[n]=2")) == 2

    def test_a_patch_to_an_ordered_boolean_breaks_quantities_alone(self, polar: httpx.Client) -> None:
        meter = create(polar, filter=clause("x", name="name"))
        url = f"/meters/{meter['id']}"
        assert polar.patch(url, json={"filter": clause(True, "gt")}).status_code == 200
        assert is_broken(polar.get(f"{url}/quantities?{RANGE}"))
        ingest(polar, event(metadata={"x": 5}))
        assert is_frozen(polar, meter)


class TestFreezing:
    def test_an_ingest_bills_at_once(self, polar: httpx.Client) -> None:
        meter, other = create(polar, filter=clause("call", name="name")), create(polar, filter=clause(1))
        assert not is_frozen(polar, meter)
        ingest(polar, event())
        assert is_frozen(polar, meter)
        assert not is_frozen(polar, other)

    def test_what_matched_an_old_filter_freezes_the_new_one(
        self, unbilled: tuple[LocalPolar, httpx.Client]
    ) -> None:
        app, polar = unbilled
        meter = create(polar, filter=clause("call", name="name"))
        ingest(polar, event())
        changed = polar.patch(f"/meters/{meter['id']}", json={"filter": clause("other", name="name")})
        assert changed.status_code == 200
        assert quantities(polar, meter)["total"] == 0.0
        app.bill()
        assert is_frozen(polar, meter)

    @pytest.mark.parametrize(
        ("aggregation", "metadata", "filter_", "born", "billed"),
        [
            ({"func": "sum", "property": "name"}, {}, ANY_FILTER, False, True),
            ({"func": "unique", "property": "none"}, {}, ANY_FILTER, True, True),
            ({"func": "sum", "property": "x"}, {"x": "5"}, ANY_FILTER, False, False),
            ({"func": "count"}, {"x": "5"}, clause(5), True, True),
            ({"func": "count"}, {"x": True}, clause(1), False, True),
        ],
    )
    def test_a_meter_is_born_frozen_by_sql_and_filled_in_by_python(
        self,
        unbilled: tuple[LocalPolar, httpx.Client],
        aggregation: dict[str, Any],
        metadata: dict[str, Any],
        filter_: dict[str, Any],
        born: bool,
        billed: bool,
    ) -> None:
        app, polar = unbilled
        ingest(polar, event(metadata=metadata))
        meter = create(polar, filter=filter_, aggregation=aggregation)
        assert is_frozen(polar, meter) == born
        app.bill()
        assert is_frozen(polar, meter) == billed

    def test_billing_moves_modified_at_once(self, unbilled: tuple[LocalPolar, httpx.Client]) -> None:
        app, polar = unbilled
        meter = create(polar)
        ingest(polar, event())
        app.bill()
        billed = polar.get(f"/meters/{meter['id']}").json()
        app.bill()
        assert polar.get(f"/meters/{meter['id']}").json() == billed
        assert billed["modified_at"] > meter["modified_at"]

    def test_an_older_database_gains_events(self, tmp_path: Path) -> None:
        path = tmp_path / "polar.db"
        with closing(sqlite3.connect(path)) as db:
            db.executescript(layout._METERS)
            db.execute("INSERT INTO state VALUES (1, ?, '')", (UNKNOWN,))
            db.execute("PRAGMA user_version = 1")
            db.commit()
        with closing(LocalPolar(path)) as app, client(app) as polar:
            assert app.organization_id == UNKNOWN
            meter = create(polar)
            ingest(polar, event())
            assert is_frozen(polar, meter)


def is_rehearsable(case: dict[str, Any]) -> bool:
    """True for events of users, of a time that has been and that quantities reach."""
    if not case["ingestible"] or case.get("collation"):
        return False
    now = datetime.now(UTC).isoformat()
    return all(e["source"] == "user" and "2023" < e["timestamp"] < now for e in case["events"])


RECORDED = [case for case in CASES if is_rehearsable(case)][::4]


@pytest.mark.unmeasured  # the engines' own tests go through these cases
def test_what_is_stored_means_what_was_recorded(unbilled: tuple[LocalPolar, httpx.Client]) -> None:
    """Meters and events keep their meaning through the API and the database: every fourth case."""
    app, polar = unbilled
    assert len(RECORDED) > 20
    for case in RECORDED:
        app.reset()
        meter = {"name": "Meter", "filter": case["filter"], "aggregation": case["aggregation"]}
        created = polar.post("/meters/", json=meter)
        if is_broken(created):
            assert "endpoint" in case["error"]
            continue
        ingest(polar, *({**e, "external_customer_id": "alice"} for e in case["events"]))
        url = f"/meters/{created.json()['id']}"
        life = "interval=year&start_timestamp=2023-01-01T00:00:00Z&end_timestamp=2027-01-01T00:00:00Z"
        answer = polar.get(f"{url}/quantities?{life}")
        if case["sql_quantity"] is None:
            assert is_broken(answer)
        else:
            assert answer.json()["total"] == pytest.approx(case["sql_quantity"], rel=1e-9, abs=1e-9), case
        app.bill()
        assert is_frozen(polar, created.json()) == any(case["billing"]), case


class TestLists:
    def test_names_are_counted_and_keep_their_count_past_the_end(self, polar: httpx.Client) -> None:
        ingest(polar, event(), event(timestamp="2025-03-04T00:00:00Z"), event(name="image"))
        first = polar.get("/events/names?sorting=-occurrences").json()
        assert [(entry["name"], entry["occurrences"]) for entry in first["items"]] == [
            ("call", 2),
            ("image", 1),
        ]
        assert (first["items"][0]["first_seen"], first["items"][0]["last_seen"]) == (
            DAY,
            "2025-03-04T00:00:00Z",
        )
        assert [entry["name"] for entry in polar.get("/events/names").json()["items"]] == ["call", "image"]
        assert polar.get("/events/names?page=9").json()["pagination"]["total_count"] == 2
        assert polar.get("/events/?page=9").json()["pagination"]["total_count"] == 0
        assert [e["name"] for e in polar.get("/events/names?query=MAG").json()["items"]] == ["image"]

    def test_an_event_that_is_not_there(self, polar: httpx.Client) -> None:
        assert polar.get(f"/events/{UNKNOWN}").json() == {"error": "ResourceNotFound", "detail": "Not found"}
        assert locs(polar.get("/events/x")) == [["path", "id"]]

    def test_a_filter_and_a_meter_select_what_quantities_count(self, polar: httpx.Client) -> None:
        meter = create(polar, filter=clause(5))
        ingest(polar, event(metadata={"x": "5"}), event(metadata={"x": 5}), event(metadata={"x": 6}), event())
        filter_, broken = (quote(json.dumps(clause(value, "gt"))) for value in (5, True))
        assert len(listed(polar, f"meter_id={meter['id']}")) == quantities(polar, meter)["total"] == 2
        assert [e["metadata"] for e in listed(polar, f"filter={filter_}")] == [{"x": 6}]
        assert locs(polar.get(f"/events/?meter_id={UNKNOWN}")) == [["query", "meter_id"]]
        assert locs(polar.get("/events/?filter={}")) == [["conjunction"], ["clauses"]]
        assert is_broken(polar.get(f"/events/?filter={broken}"))


class TestAdministration:
    @pytest.fixture
    def url(self, app: LocalPolar) -> Iterator[str]:
        with closing(AdministeredPolar(app)) as administered, serving(administered) as url:
            yield url

    def test_each_reset_makes_two_fresh_organizations(self, app: LocalPolar, url: str) -> None:
        with httpx.Client(base_url=url) as http:
            first, second = (http.post("/__admin/reset", json={}).json() for _ in range(2))

            def count(token: str) -> int:
                answer = http.get("/v1/events/", headers={"authorization": f"Bearer {token}"})
                assert answer.status_code == 200, answer.text
                total: int = answer.json()["pagination"]["total_count"]
                return total

            token = {"authorization": f"Bearer {first['tokens']['ew']}"}
            http.post("/v1/events/ingest", json={"events": [event()]}, headers=token)
            tokens = (first["tokens"]["all"], first["tokens"]["other"], second["tokens"]["er"], "polar_oat_x")
            assert [count(token) for token in tokens] == [1, 0, 0, 0]
        ids = {*first["vars"].values(), *second["vars"].values(), app.organization_id}
        assert len(ids) == 5

    def test_a_credit_and_a_bill_are_for_the_organization_that_is_named(
        self, app: LocalPolar, url: str
    ) -> None:
        with client(app) as polar, httpx.Client(base_url=url) as http:
            meter = create(polar, filter=clause("call", name="name"))
            body = {"email": "ada@example.com", "name": "Ada", "external_id": "ada"}
            ada = http.post("/__admin/customer", json=body).json()["id"]
            wrong = {"meter": meter["id"], "customer": ada, "units": 5}
            fresh = http.post("/__admin/reset", json={}).json()["vars"]["ORG"]
            assert http.post("/__admin/credit", json=wrong | {"organization_id": fresh}).status_code == 404
            assert http.post("/__admin/credit", json=wrong).json() == {}
            assert not is_frozen(polar, meter)
            assert http.post("/__admin/bill", json={"organization_id": fresh}).json() == {}
            assert not is_frozen(polar, meter)
            assert http.post("/__admin/bill").status_code == 415
            assert http.post("/__admin/bill", json={}).json() == {}
            assert is_frozen(polar, meter)
            assert http.post("/__admin/settle", json={"only": "events"}).json() == {}

    def test_a_request_is_refused_with_a_reason(self, url: str) -> None:
        json_ = {"content-type": "application/json"}
        with httpx.Client(base_url=url) as http:
            assert http.get("/__admin/reset").status_code == 405
            assert http.post("/__admin/none", json={}).status_code == 404
            assert http.post("/__admin/bill", content=b"{", headers=json_).status_code == 400
            assert http.post("/__admin/credit", json={"units": "x"}).status_code == 422
            assert http.post("/__admin/bill", json={"organization_id": UNKNOWN}).status_code == 404
            bob = {"email": "bob@example.com", "external_id": "bob"}
            assert [http.post("/__admin/customer", json=bob).status_code for _ in range(2)] == [200, 422]

    def test_it_is_for_this_machine_alone(self, app: LocalPolar) -> None:
        transport = httpx.WSGITransport(AdministeredPolar(app), remote_addr="192.0.2.1")
        with httpx.Client(transport=transport, base_url="http://polar.test") as http:
            assert http.post("/__admin/reset", json={}).status_code == 403

    def test_the_oldest_organizations_go_first(self, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        monkeypatch.setattr("polar_iac.local.admin.MAX_ORGANIZATIONS", 4)
        assert MAX_ORGANIZATIONS > 4
        with httpx.Client(base_url=url) as http:
            kept = [http.post("/__admin/reset", json={}).json()["vars"]["ORG"] for _ in range(3)]
            answers = [http.post("/__admin/bill", json={"organization_id": one}) for one in kept]
        assert [answer.status_code for answer in answers] == [404, 200, 200]


def date_after(days: int) -> str:
    """The date so many days after 2023-01-01."""
    return (date(2023, 1, 1) + timedelta(days=days)).isoformat()
