"""Products, benefits, organizations and customer meters of the embedded Polar."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from polar_iac.local import LocalPolar, layout
from polar_iac.local.admin import AdministeredPolar
from polar_iac.local.organizations import NAME
from tests.support.local_polar import METER, UNKNOWN, client, create, locs

ARCHIVE = {"is_archived": True}
BY_PRODUCT = "Cannot archive meter that is still attached to active products"
BY_BENEFIT = "Cannot archive meter that is still referenced by active benefits"


@pytest.fixture
def polar(app: LocalPolar) -> httpx.Client:
    return client(app)


@pytest.fixture
def meter_id(polar: httpx.Client) -> str:
    return str(create(polar)["id"])


def price(meter_id: str, amount: str = "0.5", **more: Any) -> dict[str, Any]:
    return {"amount_type": "metered_unit", "meter_id": meter_id, "unit_amount": amount, **more}


FIXED = {"amount_type": "fixed", "price_amount": 1000}


def product(polar: httpx.Client, *prices: dict[str, Any], name: str = "Plan", **more: Any) -> dict[str, Any]:
    body = {"name": name, "recurring_interval": "month", "prices": [*prices], **more}
    answer = polar.post("/products/", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def credit(polar: httpx.Client, meter_id: str, description: str = "Free units") -> dict[str, Any]:
    properties = {"meter_id": meter_id, "units": 50, "rollover": True}
    body = {"type": "meter_credit", "description": description, "properties": properties}
    answer = polar.post("/benefits/", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def refusal(answer: httpx.Response) -> tuple[list[str | int], str]:
    (loc,) = locs(answer)
    return loc, answer.json()["detail"][0]["msg"]


def names(answer: httpx.Response, of: str = "name") -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item[of] for item in answer.json()["items"]]


class TestProducts:
    def test_an_amount_is_shown_as_sent_once_and_with_twelve_decimals_from_then_on(
        self, polar: httpx.Client, meter_id: str
    ) -> None:
        made = product(polar, FIXED, price(meter_id, "0.000001", cap_amount=500))
        (listed,) = polar.get("/products/").json()["items"]
        assert [p.get("unit_amount") for p in made["prices"]] == [None, "0.000001"]
        assert [p.get("unit_amount") for p in listed["prices"]] == [None, "0.000001000000"]
        assert listed["prices"][1]["meter"] == {
            "id": meter_id,
            "name": "Requests",
            "unit": "scalar",
            "custom_label": None,
            "custom_multiplier": None,
        }
        assert listed["prices"][1]["cap_amount"] == 500
        assert (listed["benefits"], listed["modified_at"]) == ([], None)

    def test_the_list_ignores_a_filter_by_meter_and_takes_the_others(
        self, polar: httpx.Client, meter_id: str
    ) -> None:
        pro = product(polar, price(meter_id), name="Pro", metadata={"tier": 2})
        product(polar, FIXED, name="Basic")
        product(polar, FIXED, name="Once", recurring_interval=None, visibility="private")
        polar.patch(f"/products/{pro['id']}", json=ARCHIVE)
        benefit = credit(polar, meter_id)
        polar.post(f"/products/{pro['id']}/benefits", json={"benefits": [benefit["id"]]})

        def listed(**query: str) -> list[str]:
            return names(polar.get("/products/", params=query))

        assert listed(meter_id=UNKNOWN) == ["Once", "Basic", "Pro"]  # the newest first
        assert listed(sorting="name") == ["Basic", "Once", "Pro"]
        assert listed(sorting="-name", limit="1", page="2") == ["Once"]
        assert listed(sorting="price_amount") == ["Basic", "Once", "Pro"]  # null goes last
        assert listed(is_archived="true") == listed(id=pro["id"]) == listed(query="R") == ["Pro"]
        assert listed(benefit_id=benefit["id"]) == listed(**{"metadata[tier]": "2"}) == ["Pro"]
        assert listed(is_recurring="false") == listed(visibility="private") == ["Once"]
        assert listed(organization_id=UNKNOWN) == listed(page="2") == []
        assert polar.get("/products/", params={"page": "2"}).json()["pagination"] == {
            "total_count": 3,
            "max_page": 1,
        }
        assert locs(polar.get("/products/", params={"limit": "0", "sorting": "x"})) == [
            ["query", "limit"],
            ["query", "sorting", 0],
        ]

    def test_replaced_prices_are_shown_no_longer(self, polar: httpx.Client, meter_id: str) -> None:
        made = product(polar, FIXED, price(meter_id))
        kept, url = {"id": made["prices"][0]["id"]}, f"/products/{made['id']}"
        changed = polar.patch(url, json={"prices": [kept, price(meter_id, "2")]}).json()
        assert changed["prices"][0] == made["prices"][0]
        assert changed["prices"][1]["unit_amount"] == "2"
        assert changed["prices"][1]["id"] != made["prices"][1]["id"]
        assert changed["modified_at"] is None  # no field of its own changed
        gone = {"id": made["prices"][1]["id"]}
        answer = polar.patch(url, json={"prices": [kept, gone]})
        assert refusal(answer) == (["body", "prices", 1], "Price does not exist.")
        assert polar.patch(url, json={"name": "Better"}).json()["modified_at"] is not None
        assert polar.patch(url, json={"is_archived": None}).status_code == 500
        assert locs(polar.patch(url, json={"prices": []})) == [["body", "prices"]]

    def test_wrong_prices_are_refused_together(self, polar: httpx.Client, meter_id: str) -> None:
        def refused(*prices: dict[str, Any], **more: Any) -> list[tuple[list[Any], str]]:
            body = {"name": "Plan", "recurring_interval": "month", "prices": [*prices], **more}
            answer = polar.post("/products/", json=body)
            assert answer.status_code == 422
            return [(entry["loc"], entry["msg"]) for entry in answer.json()["detail"]]

        assert refused(price(meter_id), price(UNKNOWN), price(meter_id), FIXED, FIXED) == [
            (["body", "prices", 1, "meter_id"], "Meter does not exist."),
            (["body", "prices"], "Only one fixed price is allowed."),
            (["body", "prices", 2, "meter_id"], "Meter is already used for another price."),
        ]
        assert (
            ["body", "prices", 0],
            "Metered pricing is not supported on one-time products.",
        ) in refused(price(meter_id), recurring_interval=None)
        assert refused(price(meter_id, "0"))[0][0] == [
            "body",
            "recurring",
            "prices",
            0,
            "metered_unit",
            "unit_amount",
        ]
        assert refused(FIXED, organization_id=UNKNOWN)[0][0] == ["body", "organization_id"]
        assert names(polar.get("/products/")) == []

    def test_an_unknown_product_or_benefit_is_told(self, polar: httpx.Client, meter_id: str) -> None:
        made = product(polar, price(meter_id))
        for path in (f"/products/{UNKNOWN}", f"/benefits/{UNKNOWN}", f"/customer-meters/{UNKNOWN}"):
            assert polar.get(path).status_code == 404
        assert polar.patch(f"/products/{UNKNOWN}", json={}).status_code == 404
        assert polar.delete(f"/benefits/{UNKNOWN}").status_code == 404
        assert locs(polar.patch("/products/x", json={"name": "x"})) == [["path", "id"], ["body", "name"]]
        assert locs(polar.post("/products/", headers={"content-type": "application/json"})) == [["body"]]
        answer = polar.post(f"/products/{made['id']}/benefits", json={"benefits": [UNKNOWN]})
        assert refusal(answer) == (["body", "benefits", 0], "Benefit does not exist.")
        answer = polar.get(f"/products/{made['id']}/benefits")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


class TestArchiving:
    """A meter is kept by live prices of active products first, then by benefits that are not deleted."""

    def test_a_product_keeps_its_meter_while_it_is_active(self, polar: httpx.Client, meter_id: str) -> None:
        url, made = f"/meters/{meter_id}", product(polar, price(meter_id))
        benefit = credit(polar, meter_id)
        assert refusal(polar.patch(url, json=ARCHIVE)) == (["body", "is_archived"], BY_PRODUCT)
        polar.patch(f"/products/{made['id']}", json=ARCHIVE)
        assert refusal(polar.patch(url, json=ARCHIVE)) == (["body", "is_archived"], BY_BENEFIT)
        assert polar.delete(f"/benefits/{benefit['id']}").status_code == 204
        assert polar.patch(url, json=ARCHIVE).status_code == 200
        # A new price and a credit may be of an archived meter, and a product comes back over one.
        assert polar.patch(f"/products/{made['id']}", json={"is_archived": False}).status_code == 200
        product(polar, price(meter_id))
        credit(polar, meter_id)

    def test_a_replaced_price_keeps_no_meter(self, polar: httpx.Client, meter_id: str) -> None:
        made = product(polar, price(meter_id))
        polar.patch(f"/products/{made['id']}", json={"prices": [FIXED]})
        assert polar.patch(f"/meters/{meter_id}", json=ARCHIVE).status_code == 200

    def test_what_tests_attach_is_listed(self, app: LocalPolar, polar: httpx.Client, meter_id: str) -> None:
        app.attach_product(meter_id)
        app.attach_benefit(meter_id)
        (listed,) = polar.get("/products/").json()["items"]
        assert listed["prices"][0]["meter_id"] == meter_id
        assert polar.get("/benefits/").json()["items"][0]["properties"]["meter_id"] == meter_id
        app.reset()
        assert names(polar.get("/products/")) == names(polar.get("/benefits/")) == []


class TestBenefits:
    def test_a_deleted_benefit_is_listed_nowhere(self, polar: httpx.Client, meter_id: str) -> None:
        made = product(polar, FIXED)
        first, second = credit(polar, meter_id, "First"), credit(polar, meter_id, "Second")
        both = {"benefits": [second["id"], first["id"]]}
        shown = polar.post(f"/products/{made['id']}/benefits", json=both).json()
        assert shown["benefits"] == [second, first]
        answer = polar.delete(f"/benefits/{second['id']}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert "content-length" not in answer.headers
        assert polar.get(f"/products/{made['id']}").json()["benefits"] == [first]
        assert polar.get("/benefits/").json()["items"] == [first]
        assert polar.get(f"/benefits/{second['id']}").status_code == 404

    def test_the_meter_of_a_credit_must_exist(self, polar: httpx.Client) -> None:
        properties = {"meter_id": UNKNOWN, "units": 1, "rollover": False}
        body = {"type": "meter_credit", "description": "Free units", "properties": properties}
        answer = polar.post("/benefits/", json=body)
        assert refusal(answer) == (["body", "properties", "meter_id"], "This meter does not exist.")
        answer = polar.post("/benefits/", json={**body, "organization_id": UNKNOWN})
        assert refusal(answer)[0] == ["body", "organization_id"]
        properties["units"] = 0
        assert locs(polar.post("/benefits/", json=body)) == [["body", "meter_credit", "properties", "units"]]


class TestCustomerMeters:
    def test_rows_are_of_known_customers_with_an_event_and_of_active_meters(
        self, app: LocalPolar, polar: httpx.Client, meter_id: str
    ) -> None:
        ada = app.usage.add_customer(external_id="ada", email="ada@example.com", name="Ada")
        bob = app.usage.add_customer(external_id=None, email="bob@example.com", name="Bob")
        app.usage.add_customer(external_id="eve", email="eve@example.com", name="Eve")
        failing = {"conjunction": "and", "clauses": [{"property": "x", "operator": "gt", "value": True}]}
        polar.patch(f"/meters/{create(polar, name='Failing')['id']}", json={"filter": failing})
        sent = {"name": "call", "timestamp": "2025-03-03T12:00:00Z"}
        whose = [{"external_customer_id": "ada"}, {"customer_id": ada}, {"external_customer_id": "nobody"}]
        polar.post("/events/ingest", json={"events": [{**sent, **customer} for customer in whose]})
        app.usage.credit(meter_id, bob, 5)

        def rows(**query: str) -> list[tuple[str, str, float, int, float]]:
            answer = polar.get("/customer-meters/", params={"sorting": "-balance", **query})
            return [
                (
                    row["customer"]["name"],
                    row["meter"]["name"],
                    row["consumed_units"],
                    row["credited_units"],
                    row["balance"],
                )
                for row in answer.json()["items"]
            ]

        assert rows(meter_id=meter_id) == [
            ("Bob", "Requests", 0.0, 5, 5.0),
            ("Ada", "Requests", 2.0, 0, -2.0),
        ]
        assert rows(customer_id=ada) == rows(external_customer_id="ada")
        assert rows(customer_id=ada) == [("Ada", "Failing", 0.0, 0, 0.0), ("Ada", "Requests", 2.0, 0, -2.0)]
        assert rows(organization_id=UNKNOWN) == rows(external_customer_id="eve") == []
        (row,) = polar.get("/customer-meters/", params={"meter_id": meter_id, "customer_id": ada}).json()[
            "items"
        ]
        assert polar.get(f"/customer-meters/{row['id']}").json() == row
        assert row["modified_at"] is not None
        polar.patch(f"/meters/{meter_id}", json=ARCHIVE)
        assert rows(meter_id=meter_id) == []
        polar.patch(f"/meters/{meter_id}", json={"is_archived": False})
        assert len(rows(meter_id=meter_id)) == 2


@pytest.mark.parametrize(
    ("path", "scopes", "reading"),
    [
        ("/products/", "products:read products:write", ["pr", "pw", "facts", "all", "x"]),
        ("/benefits/", "benefits:read benefits:write", ["br", "bw", "facts", "all", "x"]),
        ("/customer-meters/", "customer_meters:read", ["cmr", "all", "x"]),
        ("/organizations/", "organizations:read organizations:write", ["orgr", "all"]),
    ],
)
def test_each_list_has_its_scopes(app: LocalPolar, path: str, scopes: str, reading: list[str]) -> None:
    for name in ("pr", "pw", "br", "bw", "cmr", "orgr", "facts", "all", "x", "rw", "er", "noscope"):
        answer = client(app, f"polar_oat_{name}_1").get(path)
        assert answer.status_code == (200 if name in reading else 403), name
        if answer.status_code == 403:
            assert f'scope="{scopes}"' in answer.headers["www-authenticate"]
    assert client(app, None).get(path).status_code == 401


def test_an_organizations_token_sees_its_organization(app: LocalPolar) -> None:
    polar = client(app, "polar_oat_orgr_1")
    (listed,) = polar.get("/organizations/", params={"sorting": "name"}).json()["items"]
    assert (listed["id"], listed["name"]) == (app.organization_id, NAME)
    assert polar.get(f"/organizations/{app.organization_id}").json() == listed
    assert polar.get(f"/organizations/{UNKNOWN}").status_code == 404
    assert polar.get("/organizations/", params={"slug": "other"}).json()["items"] == []


def test_the_administration_makes_a_token_for_each_scope(app: LocalPolar) -> None:
    with closing(AdministeredPolar(app)) as administered:
        tokens = administered._reset()["tokens"]
        assert client(administered, tokens["pr"]).get("/products/").status_code == 200
        assert client(administered, tokens["pr"]).get("/benefits/").status_code == 403
        assert client(administered, tokens["sr"]).get("/products/").status_code == 403


def test_a_database_of_the_version_before_gains_the_catalog(tmp_path: Path) -> None:
    path = tmp_path / "local.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(layout._METERS + layout._EVENTS)
        for mark in ("has_product", "has_benefit"):
            db.execute(f"ALTER TABLE meter ADD COLUMN {mark} INTEGER NOT NULL DEFAULT 0")
        db.execute("INSERT INTO state VALUES (1, ?, '')", (UNKNOWN,))
        db.execute("PRAGMA user_version = 2")
        db.commit()
    with closing(LocalPolar(path)) as app:
        polar = client(app)
        made = polar.post("/meters/", json=METER).json()
        app.attach_benefit(made["id"])
        assert refusal(polar.patch(f"/meters/{made['id']}", json=ARCHIVE))[1] == BY_BENEFIT
