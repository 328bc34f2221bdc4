"""The rules of the embedded Polar, those above all that no recorded exchange here shows."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from wsgiref.validate import validator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.errors import PolarIacError
from polar_iac.local import LocalPolar, RateLimit, server, serving, store
from tests.support.command import HANG_SECONDS
from tests.support.examples import examples
from tests.support.local_polar import ANY_FILTER, METER, UNKNOWN, clause, client, create, get, is_broken, locs


@pytest.fixture
def polar(app: LocalPolar) -> Iterator[httpx.Client]:
    with client(app) as polar:
        yield polar


def names(polar: httpx.Client, **params: Any) -> list[str]:
    answer = polar.get("/meters/", params=params)
    assert answer.status_code == 200, answer.text
    return [meter["name"] for meter in answer.json()["items"]]


def nested(filters: int, innermost: dict[str, Any] = ANY_FILTER) -> dict[str, Any]:
    """`filters` filters, one inside the other."""
    filter_ = innermost
    for _ in range(filters - 1):
        filter_ = {"conjunction": "and", "clauses": [filter_]}
    return filter_


class TestWhoMayDoWhat:
    @pytest.mark.parametrize(
        ("token", "read", "write"),
        [
            ("polar_oat_x", 200, 201),
            ("polar_oat_ro_x", 200, 403),
            ("polar_oat_wo_x", 200, 201),  # to write implies to read
            ("polar_oat_noscope_x", 403, 403),
            ("polar_oat_expired_x", 401, 401),
            ("polar_oat_" + "0" * 43, 401, 401),
            ("polar_cst_x", 401, 401),
            (None, 401, 401),
        ],
    )
    def test_the_prefix_of_a_token_gives_its_scopes(
        self, app: LocalPolar, token: str | None, read: int, write: int
    ) -> None:
        with client(app, token) as polar:
            assert polar.get("/meters/").status_code == read
            assert polar.post("/meters/", json=METER).status_code == write

    def test_a_bad_token_is_answered_otherwise_than_a_missing_one(self, app: LocalPolar) -> None:
        with client(app, "polar_oat_expired_x") as polar:
            answer = polar.get("/meters/")
        assert answer.json()["error"] == "invalid_token"
        assert answer.headers["www-authenticate"].startswith('Bearer realm="polar", error="invalid_token"')
        with client(app, None) as polar:
            answer = polar.get("/meters/", headers={"authorization": "Basic polar_oat_x"})
        assert answer.json() == {"error": "Unauthorized", "detail": "Unauthorized"}
        assert answer.headers["www-authenticate"] == 'Bearer realm="polar"'

    def test_the_missing_scopes_are_named(self, app: LocalPolar) -> None:
        with client(app, "polar_oat_noscope_x") as polar:
            reading = polar.get("/meters/").headers["www-authenticate"]
            writing = polar.post("/meters/", json=METER).headers["www-authenticate"]
        assert 'scope="meters:read meters:write"' in reading
        assert 'scope="meters:write"' in writing

    def test_a_personal_token_needs_the_organization(self, app: LocalPolar) -> None:
        with client(app, "polar_pat_x") as person:
            missing = person.post("/meters/", json=METER)
            assert missing.json()["detail"][0]["msg"] == "organization_id is required."
            other = person.post("/meters/", json={**METER, "organization_id": UNKNOWN})
            assert other.json()["detail"][0]["msg"] == "Organization not found."
            mine = person.post("/meters/", json={**METER, "organization_id": app.organization_id})
            assert mine.status_code == 201
            assert names(person) == ["Requests"]


class TestTheOrderOfChecks:
    """Each request breaks a rule and all the rules after it."""

    def test_a_post_is_checked_in_order(self, app: LocalPolar) -> None:
        bad = {"authorization": "Bearer nonsense", "content-type": "application/json"}
        version = {"polar-version": "1999-01"}

        def status(path: str, headers: dict[str, str], body: bytes | Iterator[bytes]) -> int:
            with client(app, None) as polar:
                return polar.post(path, headers=headers, content=body).status_code

        assert status("/none", bad | version, iter([b"{"])) == 411
        assert status("/none", bad | version, b" " * (10 * 1024 * 1024 + 1)) == 413
        assert status("/none", bad | version, b"{") == 404
        assert status("/none", bad, b"{") == 401
        none = {"content-type": "application/json"}
        assert status("/none", none, b"{") == 404
        assert status("/meters", none, b"{") == 307
        assert status("/meters/" + UNKNOWN, none, b"{") == 405
        assert status("/meters/", none, b"{") == 422
        assert status("/meters/", none, b"[]") == 401
        assert status("/meters/", none | {"authorization": "Bearer polar_oat_ro_x"}, b"[]") == 403
        assert status("/meters/", none | {"authorization": "Bearer polar_oat_x"}, b"[]") == 422

    def test_a_patch_is_checked_in_order(self, app: LocalPolar, polar: httpx.Client) -> None:
        meter = create(polar)
        app.freeze(meter["id"])
        app.attach_benefit(meter["id"])
        app.attach_product(meter["id"])
        url = f"/meters/{meter['id']}"
        wrong = {"filter": None, "is_archived": True, "name": "ab"}
        assert locs(polar.patch("/meters/abc", json=wrong)) == [["path", "id"], ["body", "name"]]
        assert locs(polar.patch(url, json=wrong)) == [["body", "name"]]
        wrong["name"] = None
        assert polar.patch(f"/meters/{UNKNOWN}", json=wrong).status_code == 404
        assert locs(polar.patch(url, json=wrong)) == [["body", "filter"]]
        del wrong["filter"]
        refused = polar.patch(url, json=wrong)
        assert "attached to active products" in refused.json()["detail"][0]["msg"]
        assert is_broken(polar.patch(url, json={"name": None}))
        assert get(polar, meter) == meter

    def test_a_list_reports_all_errors_of_its_query(self, polar: httpx.Client) -> None:
        query = "is_archived=x&organization_id=x&sorting=x&limit=x&page=x"
        fields = [loc[1] for loc in locs(polar.get(f"/meters/?{query}"))]
        assert list(dict.fromkeys(fields)) == ["page", "limit", "sorting", "organization_id", "is_archived"]


class TestRoutes:
    @pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "OPTIONS"])
    def test_other_methods_are_not_allowed(self, polar: httpx.Client, method: str) -> None:
        for path in ("/meters/", f"/meters/{UNKNOWN}"):
            answer = polar.request(method, path, headers={"content-length": "0"})
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
            assert answer.content == (b"" if method == "HEAD" else b'{"detail":"Method Not Allowed"}')

    def test_a_redirect_names_the_host_that_was_asked(self, polar: httpx.Client) -> None:
        answer = polar.get("/meters?query=a%20b", headers={"host": "elsewhere:81"})
        assert answer.status_code == 307
        assert answer.headers["location"] == "http://elsewhere:81/v1/meters/?query=a%20b"
        assert "content-type" not in answer.headers

    @pytest.mark.parametrize("version", ["2026-04", "2026-10", "2027-01"])
    def test_a_version_is_echoed(self, polar: httpx.Client, version: str) -> None:
        for path in ("/meters/", "/meters", "/none", "/meters/x"):
            answer = polar.get(path, headers={"polar-version": version})
            assert answer.headers["polar-version"] == version

    def test_an_unknown_version_is_reported_where_the_server_runs(self, app: LocalPolar) -> None:
        errors = io.StringIO()
        transport = httpx.WSGITransport(app, wsgi_errors=errors)
        headers = {"authorization": "Bearer polar_oat_x", "polar-version": "2020-01\t"}
        with httpx.Client(transport=transport, base_url="http://polar.test/v1", headers=headers) as polar:
            answer = polar.get("/meters/")
            assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
        known = "known are 2026-04, 2026-10, 2027-01"
        assert errors.getvalue() == f"Polar-Version 2020-01\\t is unknown; {known}\n"


class TestBodies:
    @pytest.mark.parametrize("media", ["application/json; charset=latin-1", "application/vnd.api+json"])
    def test_json_media_types_are_read_as_json(self, polar: httpx.Client, media: str) -> None:
        body = json.dumps(METER)
        assert polar.post("/meters/", content=body, headers={"content-type": media}).status_code == 201

    @pytest.mark.parametrize("media", [None, "text/plain", "application/jsonp"])
    def test_other_media_types_are_not_read_as_an_object(
        self, polar: httpx.Client, media: str | None
    ) -> None:
        headers = {"content-type": media} if media else {}
        answer = polar.post("/meters/", content=b'{"name": "x"}', headers=headers)
        (entry,) = answer.json()["detail"]
        assert (entry["type"], entry["loc"]) == ("model_attributes_type", ["body"])
        assert entry["input"] == '{"name": "x"}'

    @pytest.mark.parametrize("data", ["null", ""])
    def test_an_empty_text_is_a_missing_body(self, polar: httpx.Client, data: str) -> None:
        answer = polar.post("/meters/", content=data, headers={"content-type": "application/json"})
        assert locs(answer) == [["body"]]
        assert answer.json()["detail"][0]["type"] == "missing"

    @pytest.mark.parametrize(
        ("data", "position", "message"),
        [
            ("[1 ,]", 3, "Illegal trailing comma before end of array"),
            ('{"a": 1,\n}', 7, "Illegal trailing comma before end of object"),
            ("{,}", 1, "Expecting property name enclosed in double quotes"),
            ("[,]", 1, "Expecting value"),
        ],
    )
    def test_syntax_errors_are_those_of_a_newer_python(
        self, polar: httpx.Client, data: str, position: int, message: str
    ) -> None:
        answer = polar.post("/meters/", content=data, headers={"content-type": "application/json"})
        (entry,) = answer.json()["detail"]
        assert (entry["loc"], entry["ctx"]) == (["body", position], {"error": message})

    @pytest.mark.parametrize("data", [b'"\xff"', b"9" * 5000, b"[" * 100_000])
    def test_what_cannot_be_parsed_at_all(self, polar: httpx.Client, data: bytes) -> None:
        answer = polar.post("/meters/", content=data, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.json() == {"detail": "There was an error parsing the body"}


class TestFields:
    def test_unknown_fields_are_dropped_everywhere(self, polar: httpx.Client) -> None:
        meter = create(
            polar, zzz=1, archived_at="2020-01-01T00:00:00Z", filter={**clause(1), "zzz": 1}, id=UNKNOWN
        )
        assert meter["filter"] == clause(1)
        assert meter["archived_at"] is None
        assert meter["id"] != UNKNOWN

    def test_errors_are_in_the_order_of_the_fields(self, polar: httpx.Client) -> None:
        body = {"aggregation": 1, "filter": 1, "custom_multiplier": 0, "unit": 1, "name": 1, "metadata": 1}
        fields = [loc[1] for loc in locs(polar.post("/meters/", json=body))]
        assert fields == ["metadata", "name", "unit", "custom_multiplier", "filter", "aggregation"]

    def test_union_tags_are_in_a_loc(self, polar: httpx.Client) -> None:
        body = {**METER, "aggregation": {"func": "sum"}}
        assert locs(polar.post("/meters/", json=body)) == [["body", "aggregation", "sum", "property"]]
        answer = polar.post("/meters/", json={**METER, "aggregation": {"func": "median"}})
        (entry,) = answer.json()["detail"]
        assert entry["type"] == "union_tag_invalid"
        assert "<AggregationFunction.cnt: 'count'>" in entry["msg"]

    def test_a_multiplier_goes_with_any_unit(self, polar: httpx.Client) -> None:
        assert create(polar, custom_multiplier=10)["custom_multiplier"] == 10
        assert create(polar, custom_multiplier=2**63 - 1)["unit"] == "scalar"
        assert is_broken(polar.post("/meters/", json={**METER, "custom_multiplier": 2**63}))

    def test_the_length_of_a_name_counts_code_points(self, polar: httpx.Client) -> None:
        assert create(polar, name="🚀🚀🚀")["name"] == "🚀🚀🚀"
        assert create(polar, name="   ")["name"] == "   "
        assert locs(polar.post("/meters/", json={**METER, "name": "é🚀"})) == [["body", "name"]]

    def test_a_dictionary_too_long_tells_its_length(self, polar: httpx.Client) -> None:
        answer = polar.post("/meters/", json={**METER, "metadata": {f"k{i}": i for i in range(53)}})
        (entry,) = answer.json()["detail"]
        assert entry["msg"] == "Dictionary should have at most 50 items after validation, not 53"
        assert entry["ctx"]["actual_length"] == 53

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("{z}", "invalid character: found `z` at 2"),
            ("urn:uuid:0x", "invalid character: found `x` at 11"),
            (f"urn:uuid:{UNKNOWN[:-1]}x", "invalid character: found `x` at 36"),
            ("{}", "invalid group count: expected 5, found 1"),
            ("a-b", "invalid group count: expected 5, found 2"),
            (f"urn:uuid:{UNKNOWN}2", "invalid group length in group 4: expected 12, found 22"),
            (UNKNOWN[1:], "invalid group length in group 0: expected 8, found 7"),
        ],
    )
    def test_an_invalid_id_is_explained(self, polar: httpx.Client, text: str, fault: str) -> None:
        (entry,) = polar.get(f"/meters/{quote(text)}").json()["detail"]
        assert entry["ctx"] == {"error": fault}
        assert entry["msg"] == f"Input should be a valid UUID, {fault}"


class TestNormalisation:
    def test_a_prefix_goes_with_each_reading(self, polar: httpx.Client) -> None:
        for aggregation in ({"func": "sum"}, {"func": "unique"}):
            meter = create(
                polar,
                filter=nested_clause("metadata.metadata.metadata.a"),
                aggregation={**aggregation, "property": "metadata.metadata.b"},
            )
            assert meter["filter"] == nested_clause("metadata.metadata.a")
            assert meter["aggregation"]["property"] == "metadata.b"
            for _ in range(2):  # what is stored does not change by reading
                stored = get(polar, meter)
                assert stored["filter"] == nested_clause("metadata.a")
                assert stored["aggregation"]["property"] == "b"

    def test_a_patch_answers_what_was_sent_and_what_was_read(self, polar: httpx.Client) -> None:
        meter = create(polar, filter=clause(1, name="metadata.metadata.a"), metadata={"big": 1e16})
        answer = polar.patch(f"/meters/{meter['id']}", json={"name": "Renamed"}).json()
        assert answer["filter"] == clause(1, name="a")
        assert repr(answer["metadata"]) == "{'big': 10000000000000000}"
        body = {"filter": clause(1, name="metadata.metadata.b"), "metadata": {"big": 1e22}}
        answer = polar.patch(f"/meters/{meter['id']}", json=body).json()
        assert answer["filter"] == clause(1, name="metadata.b")
        assert repr(answer["metadata"]) == "{'big': 1e+22}"
        assert get(polar, meter)["filter"] == clause(1, name="b")

    @pytest.mark.parametrize(
        ("sent", "read"),
        [(1.0, 1.0), (1e15, 1e15), (1e16, 10**16), (1.5e300, 15 * 10**299), (-0.0, 0.0), (1e-7, 1e-7)],
    )
    def test_numbers_are_stored_as_decimals(self, polar: httpx.Client, sent: float, read: float) -> None:
        meter = create(polar, metadata={"n": sent})
        assert repr(meter["metadata"]["n"]) == repr(sent)
        assert repr(get(polar, meter)["metadata"]["n"]) == repr(read)


def nested_clause(name: str) -> dict[str, Any]:
    return {"conjunction": "or", "clauses": [clause("v", name=name)]}


class TestTimes:
    def test_each_write_is_later(self, polar: httpx.Client) -> None:
        times = []
        for _ in range(3):
            meter = create(polar)
            times += [meter["created_at"], meter["modified_at"]]
            archived = polar.patch(f"/meters/{meter['id']}", json={"is_archived": True}).json()
            times += [archived["archived_at"], archived["modified_at"]]
        assert times == sorted(set(times))
        assert {len(time) for time in times} == {len("2026-01-01T00:00:00.000000Z")}
        assert all(datetime.fromisoformat(time).tzinfo for time in times)

    @pytest.mark.parametrize(
        ("body", "touched"),
        [
            ({"name": "Requests"}, True),  # equal
            ({"custom_label": None}, True),  # equal too
            ({"custom_label": None, "custom_multiplier": None}, True),
            ({"custom_label": None, "filter": None}, True),
            ({"custom_label": None, "is_archived": False}, True),
            ({"custom_label": None, "unit": "scalar"}, True),
            ({"is_archived": False}, True),
            ({}, False),
            ({"zzz": 1, "organization_id": UNKNOWN, "archived_at": None}, False),
            ({"filter": None, "aggregation": None, "is_archived": None}, False),
        ],
    )
    def test_only_a_real_change_moves_modified_at(
        self, polar: httpx.Client, body: dict[str, Any], touched: bool
    ) -> None:
        meter = create(polar)
        after = polar.patch(f"/meters/{meter['id']}", json=body).json()
        assert (after["modified_at"] > meter["modified_at"]) is touched
        assert after["modified_at"] == get(polar, meter)["modified_at"]

    def test_a_null_that_removes_a_value_is_a_change(self, polar: httpx.Client) -> None:
        meter = create(polar, unit="custom", custom_label="call")
        after = polar.patch(f"/meters/{meter['id']}", json={"custom_label": None}).json()
        assert after["custom_label"] is None
        assert after["modified_at"] > meter["modified_at"]

    def test_archiving_again_moves_the_time(self, polar: httpx.Client) -> None:
        url = f"/meters/{create(polar)['id']}"
        first, second = (polar.patch(url, json={"is_archived": True}).json()["archived_at"] for _ in range(2))
        assert second > first


class TestFreezingAndArchiving:
    def test_a_frozen_meter_keeps_what_it_bills(self, app: LocalPolar, polar: httpx.Client) -> None:
        meter = create(polar)
        app.freeze(meter["id"])
        assert get(polar, meter) == meter  # nothing tells it beforehand
        url = f"/meters/{meter['id']}"
        answer = polar.patch(url, json={"filter": ANY_FILTER, "name": "Renamed"})
        assert answer.json()["error"] == "PolarRequestValidationError"
        assert locs(answer) == [["body", "filter"]]
        assert get(polar, meter) == meter
        assert polar.patch(url, json={"name": "Renamed", "unit": "token"}).status_code == 200

    def test_benefits_and_products_prevent_archiving(self, app: LocalPolar, polar: httpx.Client) -> None:
        meter = create(polar)
        app.attach_benefit(meter["id"])
        url = f"/meters/{meter['id']}"
        benefit = polar.patch(url, json={"is_archived": True}).json()["detail"][0]["msg"]
        assert benefit == "Cannot archive meter that is still referenced by active benefits"
        app.attach_product(meter["id"])
        product = polar.patch(url, json={"is_archived": True}).json()["detail"][0]["msg"]
        assert product == "Cannot archive meter that is still attached to active products"

    def test_an_unknown_meter_can_not_be_frozen_or_attached(self, app: LocalPolar) -> None:
        for mark in (app.freeze, app.attach_product, app.attach_benefit):
            with pytest.raises(LookupError):
                mark(UNKNOWN)


class TestLists:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("REQ", ["API requests", "Überrequest"]),
            ("über", ["Überrequest"]),
            ("i%s", ["API requests"]),
            ("_0", ["100%", "a_b 10"]),
            ("%", ["100%", "API requests", "a_b 10", "Überrequest"]),
            ("\\%", ["100%"]),
            ("\\_", ["a_b 10"]),
            ("\\", ["100%"]),  # it escapes the wildcard that Polar adds
            ("", ["100%", "API requests", "a_b 10", "Überrequest"]),
            (".*", []),
        ],
    )
    def test_a_query_matches_names_as_a_pattern(
        self, polar: httpx.Client, query: str, expected: list[str]
    ) -> None:
        for name in ("API requests", "100%", "a_b 10", "Überrequest"):
            create(polar, name=name)
        assert sorted(names(polar, query=query)) == sorted(expected)

    @pytest.mark.parametrize("name", ["a" * 60, "a" * 200_000])
    def test_many_wildcards_are_looked_for_once_each(
        self, polar: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To go back for another way to fit them would take forever."""
        create(polar, name=name)
        like = store._like
        looked: list[str] = []

        class Part:
            def __init__(self, pattern: re.Pattern[str]) -> None:
                self.pattern = pattern

            def search(self, text: str, at: int) -> re.Match[str] | None:
                looked.append(self.pattern.pattern)
                return self.pattern.search(text, at)

        def counted(query: str) -> Any:
            inner, last, length = like(query)
            assert not any(re.search(r"[*+?{|]", part.pattern) for part in [*inner, last])  # none can go back
            return [Part(part) for part in inner], last, length

        monkeypatch.setattr(store, "_like", counted)
        assert names(polar, query="%a%a%a%a%a%b") == []
        assert looked == ["", "a", "a", "a", "a", "a", "b"] * 2  # for the page, and for its count
        looked.clear()
        assert names(polar, query="%a%_a%a%") == [name]
        assert looked == ["", "a", ".a", "a", ""] * 2

    def test_thousands_of_conditions_are_answered(self, polar: httpx.Client) -> None:
        create(polar, metadata={"k": "wanted"})
        either = "&".join(f"metadata[k]={i}" for i in range(1_500))
        assert polar.get(f"/meters/?{either}").json()["items"] == []
        assert len(polar.get(f"/meters/?{either}&metadata[k]=wanted").json()["items"]) == 1
        each = "&".join(f"metadata[k{i}]=wanted" for i in range(1_500))
        assert polar.get(f"/meters/?metadata[k]=wanted&{each}").json()["items"] == []

    def test_equal_names_are_repeated_and_lost_across_pages(self, polar: httpx.Client) -> None:
        ids = {create(polar, name="same")["id"] for _ in range(30)}

        def seen(sorting: str) -> list[str]:
            pages = (polar.get(f"/meters/?limit=10&page={n}&sorting={sorting}") for n in (1, 2, 3))
            return [meter["id"] for page in pages for meter in page.json()["items"]]

        assert len(seen("name")) == 30
        assert set(seen("name")) < ids
        assert set(seen("created_at")) == ids

    def test_another_organization_lists_no_meters(self, app: LocalPolar, polar: httpx.Client) -> None:
        create(polar)
        answer = polar.get(f"/meters/?organization_id={UNKNOWN}")
        assert answer.json() == {"items": [], "pagination": {"total_count": 0, "max_page": 0}}
        both = polar.get(f"/meters/?organization_id={UNKNOWN}&organization_id={app.organization_id}")
        assert both.json()["pagination"]["total_count"] == 1

    def test_both_forms_of_an_invalid_organization_id_are_reported(self, polar: httpx.Client) -> None:
        (scalar, inner) = polar.get("/meters/?organization_id=x").json()["detail"]
        assert (scalar["type"], scalar["loc"]) == ("uuid_type", ["query", "organization_id", "uuid"])
        assert (inner["type"], inner["loc"][-1]) == ("uuid_parsing", 0)

    def test_a_page_beyond_all_numbers_breaks(self, polar: httpx.Client) -> None:
        assert polar.get(f"/meters/?page={2**63}&limit=1").json()["items"] == []
        for page, limit in ((2**63 + 1, 1), (2**63, 2), (10**30, 1)):
            assert is_broken(polar.get(f"/meters/?page={page}&limit={limit}"))

    @pytest.mark.parametrize("query", ["query=%00", "metadata[%00]=x", "metadata[k]=%00"])
    def test_a_nul_in_a_query_breaks_polar(self, polar: httpx.Client, query: str) -> None:
        assert is_broken(polar.get(f"/meters/?{query}"))

    def test_metadata_is_compared_as_text(self, polar: httpx.Client) -> None:
        create(polar, metadata={'"k"\\': 1e-7, "n": 1e22, "t": True, "z": -0.0})
        for key, text in (
            ('"k"\\', "0.0000001"),
            ("n", "10000000000000000000000"),
            ("t", "true"),
            ("z", "0.0"),
        ):
            assert names(polar, **{f"metadata[{key}]": text}) == ["Requests"]
            assert names(polar, **{f"metadata[{key}]": text + "0"}) == []

    def test_lists_find_a_meter_by_its_patched_fields(self, polar: httpx.Client) -> None:
        meter = create(polar, metadata={"a": 1})
        polar.patch(f"/meters/{meter['id']}", json={"metadata": {"b": 1}, "name": "Renamed"})
        assert names(polar, **{"metadata[a]": "1"}) == []
        assert names(polar, **{"metadata[b]": "1"}, query="renamed") == ["Renamed"]


class TestWherePolarBreaks:
    @pytest.mark.parametrize("filter_", [nested(127), nested(126, clause(1))], ids=["empty", "a clause"])
    def test_the_deepest_filter_is_answered(self, polar: httpx.Client, filter_: dict[str, Any]) -> None:
        meter = create(polar, filter=filter_)
        assert get(polar, meter)["filter"] == filter_
        assert polar.get("/meters/").json()["items"] == [meter]
        answer = polar.patch(f"/meters/{meter['id']}", json={"filter": filter_})
        assert (answer.status_code, answer.json()["filter"]) == (200, filter_)

    @pytest.mark.parametrize(
        "filter_",
        [nested(127, clause(1)), nested(128), nested(254, clause(1)), nested(255), nested(255, clause(1))],
        ids=["127 and a clause", "128", "254 and a clause", "255", "255 and a clause"],
    )
    def test_a_filter_too_deep_is_stored_and_spoils_its_page(
        self, polar: httpx.Client, filter_: dict[str, Any]
    ) -> None:
        create(polar, name="before")
        create(polar, name="fine", filter=nested(127))
        answer = polar.post("/meters/", json={**METER, "filter": filter_})
        assert is_broken(answer)
        assert answer.text == "Internal Server Error"
        assert is_broken(polar.get("/meters/?sorting=created_at"))
        assert names(polar, sorting="created_at", limit=2) == ["before", "fine"]
        assert polar.get("/meters/?sorting=created_at&limit=2").json()["pagination"]["total_count"] == 3
        assert is_broken(polar.get("/meters/?sorting=created_at&limit=2&page=2"))

    @pytest.mark.parametrize("filter_", [nested(127, clause(1)), nested(128)], ids=["a clause", "empty"])
    def test_a_patch_too_deep_is_stored(self, polar: httpx.Client, filter_: dict[str, Any]) -> None:
        meter = create(polar)
        url = f"/meters/{meter['id']}"
        assert is_broken(polar.patch(url, json={"filter": filter_}))
        assert is_broken(polar.get(url))
        assert is_broken(polar.get("/meters/"))
        for body in ({}, {"name": "Renamed"}, {"is_archived": True}):
            assert is_broken(polar.patch(url, json=body))
        assert is_broken(polar.get(url))
        assert polar.patch(url, json={"filter": ANY_FILTER}).status_code == 200
        assert get(polar, meter)["filter"] == ANY_FILTER

    @pytest.mark.unmeasured
    def test_a_filter_beyond_all_depth_is_refused(self, polar: httpx.Client) -> None:
        meter = create(polar)
        for answer in (
            polar.post("/meters/", json={**METER, "filter": nested(256)}),
            polar.post("/meters/", json={**METER, "filter": nested(256, clause(1))}),
            polar.patch(f"/meters/{meter['id']}", json={"filter": nested(256)}),
        ):
            assert answer.status_code == 422
            assert "recursion_loop" in {entry["type"] for entry in answer.json()["detail"]}
        assert polar.get("/meters/").json()["items"] == [meter]

    @pytest.mark.unmeasured
    @pytest.mark.parametrize("levels", [126, 127, 200])
    def test_an_error_deep_in_a_filter_is_reported(self, polar: httpx.Client, levels: int) -> None:
        filter_ = json.loads(json.dumps(nested(levels)))
        deepest = filter_
        while deepest["clauses"]:
            (deepest,) = deepest["clauses"]
        deepest["conjunction"] = "xor"
        errors = locs(polar.post("/meters/", json={**METER, "filter": filter_}))
        assert [loc.count("clauses") for loc in errors if loc[-1] == "conjunction"] == [levels - 1]
        deepest["conjunction"] = "and"
        deepest["clauses"] = clause(1, name="metadata.metadata.x")["clauses"]
        assert polar.post("/meters/", json={**METER, "filter": filter_}).status_code == (
            201 if levels < 127 else 500
        )

    def test_an_unexpected_exception_is_a_500_and_is_printed(
        self, app: LocalPolar, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(app, "_list", lambda _: 1 / 0)
        errors = io.StringIO()
        transport = httpx.WSGITransport(app, wsgi_errors=errors)
        headers = {"authorization": "Bearer polar_oat_x"}
        with httpx.Client(transport=transport, base_url="http://polar.test/v1", headers=headers) as polar:
            assert is_broken(polar.get("/meters/"))
        assert errors.getvalue() == "the local Polar failed: ZeroDivisionError('division by zero')\n"

    @pytest.mark.parametrize(
        ("fields", "loc"),
        [
            ({"name": "a\0bc"}, ["body", "name"]),
            ({"unit": "custom", "custom_label": "\0"}, ["body", "custom_label"]),
            ({"metadata": {"a\0": "b"}}, ["body", "metadata"]),
        ],
    )
    def test_nul_is_refused_where_polar_looks(
        self, polar: httpx.Client, fields: dict[str, Any], loc: list[str]
    ) -> None:
        answer = polar.post("/meters/", json={**METER, **fields})
        assert locs(answer) == [loc]
        assert answer.json()["detail"][0]["msg"] == "Value error, This value contains invalid characters"

    @pytest.mark.parametrize(
        "body",
        [
            json.dumps({"filter": clause(1, name="\0")}),
            json.dumps({"filter": clause("\0")}),
            json.dumps({"filter": clause(float("nan"))}),
            '{"aggregation": {"func": "sum", "property": "\\u0000"}}',
            '{"name": "abc\\ud800"}',
            '{"metadata": {"k": "\\ud800"}}',
            '{"metadata": {"k": NaN}}',
            '{"metadata": {"k": 1e400}}',
        ],
    )
    def test_values_that_the_database_refuses_break_polar(self, polar: httpx.Client, body: str) -> None:
        meter = create(polar)
        headers = {"content-type": "application/json"}
        whole = json.dumps(METER)[:-1] + ", " + body[1:]  # of equal keys the last counts
        assert is_broken(polar.post("/meters/", content=whole, headers=headers))
        assert is_broken(polar.patch(f"/meters/{meter['id']}", content=body, headers=headers))
        assert polar.get("/meters/").json()["items"] == [meter]

    def test_an_escaped_backslash_is_not_a_nul(self, polar: httpx.Client) -> None:
        filter_ = clause("\\u0000 \\\\u0000")
        assert get(polar, create(polar, filter=filter_))["filter"] == filter_

    @pytest.mark.parametrize(
        ("name", "operator", "breaks"),
        [
            ("x", "gt", True),
            ("metadata.x", "lte", True),
            ("x", "eq", False),
            ("x", "like", False),
            ("name", "gt", False),
            ("timestamp", "eq", True),
            ("metadata.timestamp", "gte", True),
            ("timestamp", "not_like", False),
        ],
    )
    def test_an_ordered_bool_breaks_a_create(
        self, polar: httpx.Client, name: str, operator: str, breaks: bool
    ) -> None:
        filter_ = {"conjunction": "and", "clauses": [ANY_FILTER, clause(True, operator, name)]}
        answer = polar.post("/meters/", json={**METER, "filter": filter_})
        assert is_broken(answer) if breaks else answer.status_code == 201
        assert names(polar) == ([] if breaks else ["Requests"])

    def test_an_ordered_bool_is_stored_by_a_patch(self, polar: httpx.Client) -> None:
        meter = create(polar)
        assert polar.patch(f"/meters/{meter['id']}", json={"filter": clause(True, "gt")}).status_code == 200
        assert get(polar, meter)["filter"] == clause(True, "gt")

    @pytest.mark.parametrize("field", ["name", "unit"])
    def test_nulls_that_are_accepted_and_break(self, polar: httpx.Client, field: str) -> None:
        meter = create(polar)
        assert is_broken(polar.patch(f"/meters/{meter['id']}", json={field: None, "metadata": {"a": 1}}))
        assert get(polar, meter) == meter


class TestRateLimit:
    def test_the_rate_limit_has_a_fixed_window(self) -> None:
        now = 0.0
        limit = RateLimit(3, window=59.5, clock=lambda: now)
        with closing(LocalPolar(rate_limit=limit)) as app, client(app) as polar:
            statuses = [
                polar.get(path).status_code for path in ("/meters/", "/none", "/meters/x", "/meters/")
            ]
            assert statuses == [200, 404, 422, 429]  # every status counts
            now = 59.0
            with client(app, "polar_pat_x") as other:  # so does every token
                limited = other.get("/meters/")
            assert (limited.status_code, limited.content) == (429, b"")
            assert limited.headers["retry-after"] == "60"
            assert "content-type" not in limited.headers
            with client(app, None) as stranger:  # but nobody else's
                assert stranger.get("/meters/").status_code == 401
            now = 59.5  # what was refused meanwhile has not made it longer
            assert polar.get("/meters/").status_code == 200


class TestTheDatabase:
    def test_a_database_belongs_to_one_organization(self, tmp_path: Path) -> None:
        path = tmp_path / "polar.db"
        with closing(LocalPolar(path)) as first, client(first) as polar:
            meter = create(polar)
        with closing(LocalPolar(path)) as second, client(second) as polar:
            assert second.organization_id == first.organization_id == meter["organization_id"]
            assert get(polar, meter) == meter
        with pytest.raises(PolarIacError, match=first.organization_id):
            LocalPolar(path, organization_id=UNKNOWN)
        with closing(LocalPolar(organization_id=UNKNOWN)) as given:
            assert given.organization_id == UNKNOWN

    def test_a_database_of_another_time_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "polar.db"
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 99")
        with pytest.raises(PolarIacError, match="layout 99"):
            LocalPolar(path)

    @pytest.mark.parametrize("name", ["none/polar.db", "text"])
    def test_a_file_that_is_not_a_database_is_named(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "text").write_text("no database, although it is long enough to be one" * 20)
        with pytest.raises(PolarIacError, match=f"{name}: cannot open the local Polar"):
            LocalPolar(tmp_path / name)

    @pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
    def test_a_link_to_a_database_is_not_followed(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / "local.sqlite"
        (tmp_path / f"local.sqlite{suffix}").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(PolarIacError, match="is a symbolic link"):
            LocalPolar(path)
        assert not (tmp_path / "elsewhere").exists()

    def test_a_reset_keeps_the_organization(self, app: LocalPolar, polar: httpx.Client) -> None:
        before = create(polar, metadata={"a": 1})
        app.reset()
        assert polar.get(f"/meters/{before['id']}").status_code == 404
        after = create(polar, metadata={"a": 1})
        assert after["organization_id"] == before["organization_id"]
        assert after["created_at"] > before["modified_at"]

    def test_threads_share_one_database(self, polar: httpx.Client) -> None:
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda i: create(polar, name=f"Meter {i}"), range(80)))
        times = sorted(meter["created_at"] for meter in made)
        assert len(set(times)) == 80
        assert len(names(polar, limit=100)) == 80

    def test_processes_share_one_database(self, tmp_path: Path) -> None:
        path = tmp_path / "polar.db"
        program = (
            "import sys\n"
            "from polar_iac.local import LocalPolar\n"
            "from tests.support.local_polar import client, create\n"
            "app = LocalPolar(sys.argv[1])\n"
            "for _ in range(30): create(client(app))\n"
            "app.close()\n"
        )
        command = [sys.executable, "-c", program, str(path)]
        workers = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(3)]
        assert [worker.wait() for worker in workers] == [0, 0, 0]
        with closing(LocalPolar(path)) as app, client(app) as polar:
            pages = [polar.get(f"/meters/?sorting=created_at&limit=100&page={n}").json() for n in (1, 2)]
        times = [meter["created_at"] for page in pages for meter in page["items"]]
        assert times == sorted(set(times))
        assert len(times) == 90


class TestServing:
    def test_the_server_keeps_to_the_wsgi_protocol(self, app: LocalPolar) -> None:
        with client(validator(app)) as polar:
            meter = create(polar)
            assert get(polar, meter) == meter
            assert polar.get("/none").status_code == 404

    def test_a_body_of_unknown_length_is_refused(self, app: LocalPolar) -> None:
        with serving(app) as url, httpx.Client(base_url=url) as polar:
            for _ in range(2):  # the connection is still good
                answer = polar.post("/v1/meters/", content=iter([b"x" * 100_000, b"y"]))
                assert (answer.status_code, answer.json()["error"]) == (411, "LengthRequired")
            assert polar.get("/v1/none").status_code == 404

    def test_a_body_too_large_is_not_read(self, app: LocalPolar) -> None:
        with serving(app) as url:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANG_SECONDS)
            connection.putrequest("POST", "/v1/meters/")
            connection.putheader("content-length", str(10 * 1024 * 1024 + 1))
            connection.endheaders()
            answer = connection.getresponse()  # although nothing of the body was sent
            assert (answer.status, json.load(answer)["error"]) == (413, "RequestBodyTooLarge")
            connection.close()

    @pytest.mark.parametrize(
        ("target", "status"),
        [("//v1/meters/", 404), ("/v1/meters%2F", 200), ("/v1/%6deters/", 200), ("/v1//meters/", 404)],
    )
    def test_a_path_is_read_as_it_was_sent(self, app: LocalPolar, target: str, status: int) -> None:
        with serving(app) as url:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANG_SECONDS)
            connection.request("GET", target, headers={"authorization": "Bearer polar_oat_x"})
            assert connection.getresponse().status == status
            connection.close()

    def test_a_whole_url_is_its_path(self, app: LocalPolar) -> None:
        with serving(app) as url:
            for target, status in (("/v1/meters/", 200), ("", 404), ("/v1/meters/?query=http://x/y", 200)):
                connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANG_SECONDS)
                connection.request("GET", url + target, headers={"authorization": "Bearer polar_oat_x"})
                assert connection.getresponse().status == status
                connection.close()

    def test_a_redirect_without_a_host_leads_back(self, app: LocalPolar) -> None:
        with serving(app) as url, socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as raw:
            raw.sendall(b"GET /v1/meters HTTP/1.0\r\n\r\n")
            answer = http.client.HTTPResponse(raw)
            answer.begin()
            assert answer.headers["location"] == f"{url}/v1/meters/"

    def test_a_port_in_use_is_reported(self, app: LocalPolar) -> None:
        with serving(app) as url:
            port = urlsplit(url).port or 0
            message = f"port {port} is in use: choose another with --port, or --port 0 for any free one"
            with pytest.raises(PolarIacError, match=re.escape(message)), serving(app, port):
                pass
        with pytest.raises(PolarIacError, match="cannot serve on port 0"), serving(app, host="192.0.2.1"):
            pass

    def test_an_idle_connection_is_closed(self, app: LocalPolar, monkeypatch: pytest.MonkeyPatch) -> None:
        assert server.IDLE_SECONDS == 5
        monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
        with serving(app) as url:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANG_SECONDS)
            connection.request("GET", "/v1/none")
            assert connection.getresponse().read()
            assert connection.sock is not None  # kept alive
            assert connection.sock.recv(1) == b""  # until it is not
            connection.close()

    def test_several_requests_at_once_are_served(self, app: LocalPolar) -> None:
        barrier = threading.Barrier(4, timeout=HANG_SECONDS)

        def waiting(environ: Any, start_response: Any) -> Any:
            barrier.wait()
            return app(environ, start_response)

        with serving(waiting, threads=4) as url, ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(lambda _: httpx.get(f"{url}/v1/none").status_code, range(4)))
        assert statuses == [404] * 4


properties = st.one_of(
    st.sampled_from(["x", "metadata.x", "metadata.metadata.x", "a.b", ""]), st.text(max_size=5)
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
values = st.one_of(texts, st.integers(-(2**31), 2**31 - 1), st.booleans())
clauses = st.fixed_dictionaries(
    {
        "property": properties.map(lambda name: name.replace("\0", "")),
        "operator": st.sampled_from(["eq", "ne", "like", "not_like"]),
        "value": values,
    }
)
filters = st.recursive(
    clauses,
    lambda inner: st.fixed_dictionaries(
        {"conjunction": st.sampled_from(["and", "or"]), "clauses": st.lists(inner, max_size=4)}
    ),
    max_leaves=12,
)
numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
metadata = st.dictionaries(
    texts.filter(bool), st.one_of(texts.filter(bool), numbers, st.booleans()), max_size=5
)


@examples(60)
@given(filters.map(lambda f: f if "clauses" in f else {"conjunction": "and", "clauses": [f]}), metadata)
def test_an_answer_that_is_sent_back_changes_nothing(
    filter_: dict[str, Any], metadata: dict[str, Any]
) -> None:
    """The answer to a GET can be sent back, and comes again as it was, in type and in text."""
    with closing(LocalPolar()) as app, client(app) as polar:
        meter = create(polar, filter=filter_, metadata=metadata)
        assert meter["metadata"] == metadata
        stored = get(polar, meter)
        for key, value in metadata.items():  # a large float comes back as the int that it was written as
            read = stored["metadata"][key]
            assert (float(read) if isinstance(value, float) else read) == value
        polar.patch(f"/meters/{meter['id']}", json={"filter": stored["filter"]})
        stored = get(polar, meter)
        body = {key: stored[key] for key in ("filter", "aggregation", "metadata", "name", "unit")}
        answer = polar.patch(f"/meters/{meter['id']}", json=body)
        expected = {**stored, "modified_at": answer.json()["modified_at"]}
        assert json.dumps(answer.json(), sort_keys=True) == json.dumps(expected, sort_keys=True)
        assert json.dumps(get(polar, meter), sort_keys=True) == json.dumps(expected, sort_keys=True)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "A"]), st.sampled_from(["1", "x", "true"])), max_size=4))
def test_one_metadata_key_is_or_and_several_are_and(pairs: list[tuple[str, str]]) -> None:
    """One key twice is OR, several keys are AND."""
    held: list[dict[str, Any]] = [{}, {"a": 1}, {"a": "x", "b": True}, {"b": "1", "A": "x"}]
    with closing(LocalPolar()) as app, client(app) as polar:
        for i, metadata in enumerate(held):
            create(polar, name=f"Meter {i}", metadata=metadata)
        wanted: dict[str, set[str]] = {}
        for key, text in pairs:
            wanted.setdefault(key, set()).add(text)

        def matches(metadata: dict[str, Any]) -> bool:
            rendered = {key: json.dumps(value).strip('"') for key, value in metadata.items()}
            return all(rendered.get(key) in texts for key, texts in wanted.items())

        query = "&".join(f"metadata[{key}]={text}" for key, text in pairs)
        matching = [m["metadata"] for m in polar.get(f"/meters/?{query}").json()["items"]]
        assert matching == [metadata for metadata in held if matches(metadata)]
