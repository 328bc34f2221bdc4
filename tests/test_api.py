"""The client on real sockets: what it sends, what it repeats, and what it says when things go wrong."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import jsonschema
import pytest

from polar_iac.api import (
    ApiError,
    InvalidRequestError,
    NotFoundError,
    PolarClient,
    TransientError,
    check_base_url,
)
from polar_iac.errors import PolarIacError
from polar_iac.local import LocalPolar, RateLimit
from polar_iac.meter import MeterSpec
from polar_iac.waiting import RateGate, Stop
from tests import openapi
from tests.build import ORGANIZATION, identifier, meter
from tests.serve import Answer, Served, answer_json, scripted, served_polar


def client(url: str, token: str = "polar_oat_test", **options: Any) -> PolarClient:
    return PolarClient(url, token, retry_wait=0.001, **options)


def documented(**fields: Any) -> dict[str, Any]:
    """A meter as Polar's documentation shows it: without unit, custom_* and archived_at."""
    return {
        "metadata": {},
        "created_at": "2023-11-07T05:31:56Z",
        "modified_at": "2023-11-07T05:31:56Z",
        "id": identifier(1),
        "name": "<string>",
        "filter": {
            "conjunction": "and",
            "clauses": [{"property": "<string>", "operator": "eq", "value": "<string>"}],
        },
        "aggregation": {"func": "count"},
        "organization_id": ORGANIZATION,
    } | fields


class TestWhatIsSent:
    def test_headers_and_paging(self, polar: Served) -> None:
        with client(polar.url) as polar_client:
            for number in range(101):
                polar_client.create_meter(meter(name=f"Meter {number}"))
            polar.tape.clear()
            meters = polar_client.list_meters()
        assert [m.spec.name for m in meters] == [f"Meter {n}" for n in range(101)]
        assert [e.query for e in polar.tape.exchanges] == [
            "sorting=created_at&limit=100&page=1",
            "sorting=created_at&limit=100&page=2",
        ]
        headers = polar.tape.exchanges[0].headers
        assert headers["authorization"] == "Bearer polar_oat_test"
        assert headers["polar-version"] == "2026-04"

    def test_the_organization_exactly_when_the_token_is_no_organization_token(self, polar: Served) -> None:
        own = polar.polar.organization_id
        with client(polar.url, "polar_pat_test", organization_id=own) as personal:
            personal.create_meter(meter())
            personal.list_meters()
        with client(polar.url, organization_id=own) as organizational:
            organizational.create_meter(meter())
            organizational.list_meters()
        with_it, listed_with, without, listed_without = polar.tape.exchanges
        assert with_it.body["organization_id"] == own
        assert f"organization_id={own}" in listed_with.query
        assert "organization_id" not in without.body
        assert "organization_id" not in listed_without.query

    def test_repeats_across_pages_are_dropped(self) -> None:
        pages = [[1, 2], [2, 3]]

        def answer(_method: str, path: str, _body: bytes) -> Answer:
            page = 1 if "page=1" in path else 2
            items = [documented(id=identifier(n)) for n in pages[page - 1]]
            return answer_json(200, {"items": items, "pagination": {"total_count": 3, "max_page": 2}})

        with scripted(answer) as (url, _), client(url) as polar_client:
            assert [m.id for m in polar_client.list_meters()] == [identifier(n) for n in (1, 2, 3)]

    def test_a_page_without_items_ends_the_list(self) -> None:
        answer = {"items": [], "pagination": {"total_count": 0, "max_page": 10**9}}
        with scripted(lambda *_: answer_json(200, answer)) as (url, tape), client(url) as polar_client:
            assert polar_client.list_meters() == []
        assert tape.count("GET") == 1


class TestAnswers:
    def test_the_documented_shape_and_unknown_fields_are_accepted(self) -> None:
        with (
            scripted(lambda *_: answer_json(201, documented(new_field={"a": 1}))) as (url, _),
            client(url) as polar_client,
        ):
            created = polar_client.create_meter(meter())
        assert (created.id, created.archived, created.spec.unit) == (identifier(1), False, "scalar")
        assert created.created_at == "2023-11-07T05:31:56.000000Z"

    @pytest.mark.parametrize(
        "payload", [b"", b"{", b"[]", b"null", b'{"id": 5}', b"<html>", b"\xff", b'{"items": 5}', b"9" * 5000]
    )
    def test_an_unreadable_answer_to_a_post_leaves_open_what_happened(self, payload: bytes) -> None:
        with (
            scripted(lambda *_: (201, {"content-type": "application/json"}, payload)) as (url, tape),
            client(url) as polar_client,
            pytest.raises(TransientError),
        ):
            polar_client.create_meter(meter())
        assert tape.count("POST") == 1

    def test_get_and_patch_are_repeated_and_a_post_is_not(self) -> None:
        answers = iter([(500, {}, b"oops"), (502, {}, b"<html>"), answer_json(200, documented())] * 2)
        with scripted(lambda *_: next(answers)) as (url, tape), client(url) as polar_client:
            polar_client.get_meter(identifier(1))
            polar_client.update_meter(identifier(1), {"name": "New"})
            assert [e.method for e in tape.exchanges] == ["GET"] * 3 + ["PATCH"] * 3
        with (
            scripted(lambda *_: (500, {}, b"oops")) as (url, tape),
            client(url) as polar_client,
            pytest.raises(TransientError, match="status 500"),
        ):
            polar_client.create_meter(meter())
        assert tape.count("POST") == 1

    def test_a_closed_keep_alive_connection_is_no_error(self) -> None:
        """Polar closes idle connections after 5 s, and says so to nobody: the next request meets a closed
        one."""
        answered = json.dumps(documented()).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answered)}\r\n\r\n"
        served, closed = list[bytes](), threading.Event()

        def serve(listening: socket.socket) -> None:
            for _ in range(3):
                connection, _ = listening.accept()
                with connection:
                    served.append(connection.recv(65536))
                    connection.sendall(head.encode() + answered)
                    closed.clear()
                closed.set()

        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=serve, args=[listening], daemon=True)
            thread.start()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with client(url) as polar_client:
                for _ in range(3):
                    polar_client.get_meter(identifier(1))
                    assert closed.wait(10)
            thread.join()
        assert len(served) == 3
        assert all(b"connection: keep-alive" in request.lower() for request in served)

    def test_a_timeout_of_polars_own_is_tried_again(self) -> None:
        answers = iter([(408, {}, b""), answer_json(200, documented())])
        with scripted(lambda *_: next(answers)) as (url, tape), client(url) as polar_client:
            polar_client.get_meter(identifier(1))
        assert tape.count("GET") == 2


class TestErrors:
    def test_a_bad_token(self, polar: Served) -> None:
        with client(polar.url, "polar_oat_expired_x") as polar_client, pytest.raises(ApiError) as caught:
            polar_client.list_meters()
        assert caught.value.status == 401
        assert "expired" in str(caught.value)
        assert "polar_oat" not in str(caught.value)

    @pytest.mark.parametrize(("token", "scope"), [("polar_oat_ro_x", "meters:write")])
    def test_a_missing_scope_is_named(self, polar: Served, token: str, scope: str) -> None:
        with client(polar.url, token) as polar_client, pytest.raises(ApiError, match=scope):
            polar_client.create_meter(meter())

    def test_no_scope_at_all(self, polar: Served) -> None:
        with client(polar.url, "polar_oat_noscope_x") as polar_client, pytest.raises(ApiError) as caught:
            polar_client.list_meters()
        assert "meters:read" in str(caught.value)

    def test_an_unknown_id(self, polar: Served) -> None:
        with client(polar.url) as polar_client, pytest.raises(NotFoundError):
            polar_client.get_meter(identifier(1))

    def test_a_404_without_polar_version_is_not_a_missing_meter(self) -> None:
        with (
            scripted(lambda *_: (404, {"content-type": "application/json"}, b'{"detail":"Not Found"}')) as (
                url,
                _,
            ),
            client(url) as polar_client,
            pytest.raises(ApiError, match="POLAR_BASE_URL") as caught,
        ):
            polar_client.get_meter(identifier(1))
        assert not isinstance(caught.value, NotFoundError)

    def test_refused_fields(self, polar: Served) -> None:
        with client(polar.url) as polar_client, pytest.raises(InvalidRequestError) as caught:
            polar_client.create_meter(meter(name="ab"))
        assert caught.value.detail[0]["loc"] == ["body", "name"]
        assert "at least 3 characters" in str(caught.value)

    @pytest.mark.parametrize("location", ["http://localhost:1/v1/meters/", "https://127.0.0.1/v1/meters/"])
    def test_a_redirect_to_another_host_is_not_followed(self, location: str) -> None:
        with (
            scripted(lambda *_: (307, {"location": location}, b"")) as (url, tape),
            client(url) as polar_client,
            pytest.raises(ApiError, match="redirect"),
        ):
            polar_client.list_meters()
        assert len(tape.exchanges) == 1

    def test_a_redirect_on_the_same_host_is_followed_with_method_and_body(self) -> None:
        def answer(_method: str, path: str, _body: bytes) -> Answer:
            return answer_json(201, documented()) if path == "/there" else (307, {"location": "/there"}, b"")

        with scripted(answer) as (url, tape), client(url) as polar_client:
            polar_client.create_meter(meter())
        assert [(e.method, e.body) for e in tape.exchanges] == [("POST", meter())] * 2

    def test_a_redirect_in_a_circle(self) -> None:
        with (
            scripted(lambda *_: (307, {"location": "/v1/meters/"}, b"")) as (url, _),
            client(url) as polar_client,
            pytest.raises(TransientError, match="circle"),
        ):
            polar_client.create_meter(meter())

    def test_nobody_there(self) -> None:
        with scripted(lambda *_: (200, {}, b"")) as (url, _):
            pass
        with client(url) as polar_client, pytest.raises(TransientError, match="no connection"):
            polar_client.list_meters()

    def test_no_such_host(self) -> None:
        with (
            client("https://polar-iac.invalid") as polar_client,
            pytest.raises(ApiError, match=r"cannot be found|no connection"),
        ):
            polar_client.list_meters()

    def test_no_answer_in_time(self) -> None:
        release = threading.Event()

        def answer(*_: Any) -> Answer:
            release.wait(0.3)
            return answer_json(200, documented())

        try:
            with (
                scripted(answer) as (url, _),
                client(url, timeout=0.05) as polar_client,
                pytest.raises(TransientError, match="in time"),
            ):
                polar_client.create_meter(meter())
        finally:
            release.set()

    def test_tls_that_nobody_trusts(self) -> None:
        """A plain server answers a TLS handshake with nonsense: told as TLS, and not tried again."""
        with (
            scripted(lambda *_: (200, {}, b"")) as (url, _),
            client(url.replace("http:", "https:")) as polar_client,
            pytest.raises(ApiError) as caught,
        ):
            polar_client.list_meters()
        assert "TLS" in str(caught.value)
        assert not isinstance(caught.value, TransientError)


class TestBaseUrl:
    @pytest.mark.parametrize("url", ["https://polar.example", "http://localhost:8010", "http://[::1]:80/"])
    def test_good(self, url: str) -> None:
        assert check_base_url(url) == url.rstrip("/")

    @pytest.mark.parametrize(
        "url",
        [
            "http://polar.example",
            "ftp://localhost",
            "localhost:8010",
            "https://a:b@polar.example",
            "https://",
        ],
    )
    def test_bad(self, url: str) -> None:
        with pytest.raises(PolarIacError):
            check_base_url(url)


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class TestRateLimits:
    def test_an_empty_429_is_waited_out_and_shown(self) -> None:
        clock, waits = FakeClock(), list[float]()
        answers = iter([(429, {"retry-after": "60"}, b""), answer_json(200, documented())])
        with (
            scripted(lambda *_: next(answers)) as (url, tape),
            client(url, clock=clock, on_wait=waits.append) as polar_client,
        ):
            polar_client.get_meter(identifier(1))
        assert tape.count("GET") == 2
        assert waits == [pytest.approx(60, abs=1.5)]
        assert clock.time == pytest.approx(60, abs=1.5)

    def test_a_date_as_retry_after(self) -> None:
        from datetime import UTC, datetime, timedelta
        from email.utils import format_datetime

        clock = FakeClock()
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
        answers = iter([(429, {"retry-after": at}, b""), answer_json(200, documented())])
        with scripted(lambda *_: next(answers)) as (url, _), client(url, clock=clock) as polar_client:
            polar_client.get_meter(identifier(1))
        assert 25 <= clock.time <= 33

    @pytest.mark.parametrize(
        ("told", "seconds"),
        [("999999", 3600), ("Thu, 01 Jan 2099 00:00:00 GMT", 3600), ("nonsense", 60), ("-5", 60), ("0", 0.1)],
    )
    def test_an_odd_retry_after(self, told: str, seconds: float) -> None:
        clock = FakeClock()
        answers = iter([(429, {"retry-after": told}, b""), answer_json(200, documented())])
        with scripted(lambda *_: next(answers)) as (url, _), client(url, clock=clock) as polar_client:
            polar_client.get_meter(identifier(1))
        assert clock.time == pytest.approx(seconds, rel=0.03)

    def test_where_two_wait_one_tries(self) -> None:
        """The other waits for the upper bound, as long as nothing is heard of the try."""
        clock = FakeClock()
        gate = RateGate(clock, lambda _: None)
        gate.passed(gate.enter())
        clock.time = 50.0
        gate.limited(gate.enter(), 60.0)
        gate.enter()
        assert 60 <= clock.time <= 62
        gate.enter()
        assert clock.time == pytest.approx(110, abs=1)

    def test_a_stale_429_after_reopening_does_not_close(self) -> None:
        clock = FakeClock()
        gate = RateGate(clock, lambda _: None)
        stale = gate.enter()
        gate.limited(gate.enter(), 60.0)
        gate.passed(gate.enter())
        opened = clock.time
        gate.limited(stale, 60.0)
        gate.enter()
        assert clock.time == opened

    def test_the_window_is_that_of_the_burst_and_not_of_the_first_request(self) -> None:
        """The first window was over at 60; the next began with the burst at 90."""
        clock = FakeClock()
        gate = RateGate(clock, lambda _: None)
        gate.passed(gate.enter())
        clock.time = 90.0
        for _ in range(3):
            gate.passed(gate.enter())
        clock.time = 100.0
        gate.limited(gate.enter(), 60.0)
        gate.enter()
        assert 150 <= clock.time <= 152.5

    def test_the_wait_ends_with_the_window_not_with_its_upper_bound(self) -> None:
        """Retry-After always says a whole window; the window began with our first request."""
        clock = FakeClock()
        gate = RateGate(clock, lambda _: None)
        gate.passed(gate.enter())
        clock.time = 50.0
        gate.limited(gate.enter(), 60.0)
        gate.passed(gate.enter())
        assert 60 <= clock.time <= 62

    def test_a_failed_try_is_followed_by_others_until_the_bound(self) -> None:
        clock = FakeClock()
        gate = RateGate(clock, lambda _: None)
        gate.passed(gate.enter())
        clock.time = 50.0
        gate.limited(gate.enter(), 60.0)
        tries = 0
        while clock.time < 109:
            ticket = gate.enter()
            if clock.time < 109:
                tries += 1
                gate.limited(ticket, 60.0)
        assert 5 <= tries <= 12
        assert clock.time == pytest.approx(110, abs=1.5)

    def test_answers_to_earlier_requests_neither_open_nor_prolong(self) -> None:
        clock = FakeClock()
        gate = RateGate(clock, lambda _: None)
        early, also_early = gate.enter(), gate.enter()
        gate.limited(gate.enter(), 60.0)
        gate.passed(early)
        gate.limited(also_early, 600.0)
        gate.enter()
        assert 60 <= clock.time <= 62

    def test_against_a_limited_server(self) -> None:
        with (
            served_polar(LocalPolar(rate_limit=RateLimit(10, 1.0))) as polar,
            client(polar.url) as polar_client,
        ):
            for number in range(25):
                polar_client.create_meter(meter(name=f"Meter {number}"))
            assert len(polar_client.list_meters()) == 25


def test_the_first_reason_for_a_stop_counts() -> None:
    stop = Stop()
    stop.request("SIGINT")
    stop.request("the deadline has come")
    assert stop.reason == "SIGINT"
    assert stop.wait(60)


@openapi.needed
def test_create_bodies_fit_the_openapi_document() -> None:
    spec = MeterSpec.from_json(meter(unit="custom", custom_label="call", metadata={"a": 1.5}))
    openapi.check([("POST", spec.create_body("a/b"))])
    with pytest.raises(jsonschema.ValidationError):
        openapi.check([("POST", {**spec.create_body("a/b"), "filter": {}})])
