"""The client on real sockets: what it sends, what it repeats, and what it says when things go wrong."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.clock import Stop, StoppedError, SystemClock
from polar_iac.errors import PolarIacError
from polar_iac.local import LocalPolar, RateLimit
from polar_iac.meter.spec import MeterSpec
from polar_iac.polar import connection, transport
from polar_iac.polar.client import PolarClient
from polar_iac.polar.connection import check_base_url
from polar_iac.polar.errors import ApiError, Fate, InvalidRequestError, NotFoundError, TransientError
from polar_iac.polar.retry import RateGate, RetryPolicy
from polar_iac.polar.transport import IDLE_SECONDS
from tests.support import openapi
from tests.support.build import ORGANIZATION, identifier, meter, spec_of
from tests.support.examples import examples
from tests.support.served_polar import (
    JSON,
    Answer,
    Served,
    answer_json,
    connections,
    read_request,
    scripted,
    served_polar,
    wire,
)


def client(url: str, token: str = "polar_oat_test", **options: Any) -> PolarClient:
    return PolarClient(url, token, retry=RetryPolicy(first_wait=0.001), **options)


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
    def test_a_list_sends_headers_and_reads_every_page(self, polar: Served) -> None:
        with client(polar.url) as polar_client:
            for number in range(101):
                polar_client.create_meter(meter(name=f"Meter {number}"))
            polar.tape.clear()
            meters = polar_client.list_meters()
        assert [spec_of(m).name for m in meters] == [f"Meter {n}" for n in range(101)]
        assert [e.query for e in polar.tape.exchanges] == [
            "sorting=created_at&limit=100&page=1",
            "sorting=created_at&limit=100&page=2",
        ]
        headers = polar.tape.exchanges[0].headers
        assert headers["authorization"] == "Bearer polar_oat_test"
        assert headers["polar-version"] == "2026-04"

    def test_the_organization_is_sent_unless_the_token_belongs_to_one(self, polar: Served) -> None:
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
        assert (created.id, created.archived, spec_of(created).unit) == (identifier(1), False, "scalar")
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

    def test_a_closed_keep_alive_connection_is_not_an_error(self) -> None:
        """Polar closes idle connections after 5 s, and says so to nobody: the next request meets a closed
        one.
        """
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
    def test_a_bad_token_is_reported(self, polar: Served) -> None:
        with client(polar.url, "polar_oat_expired_x") as polar_client, pytest.raises(ApiError) as caught:
            polar_client.list_meters()
        assert caught.value.status == 401
        assert "expired" in str(caught.value)
        assert "polar_oat" not in str(caught.value)

    @pytest.mark.parametrize(("token", "scope"), [("polar_oat_ro_x", "meters:write")])
    def test_a_missing_scope_is_named(self, polar: Served, token: str, scope: str) -> None:
        with client(polar.url, token) as polar_client, pytest.raises(ApiError, match=scope):
            polar_client.create_meter(meter())

    def test_a_token_without_scopes_is_reported(self, polar: Served) -> None:
        with client(polar.url, "polar_oat_noscope_x") as polar_client, pytest.raises(ApiError) as caught:
            polar_client.list_meters()
        assert "meters:read" in str(caught.value)

    def test_an_unknown_id_is_not_found(self, polar: Served) -> None:
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

    def test_refused_fields_are_reported_by_path(self, polar: Served) -> None:
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

    def test_a_redirect_in_a_circle_ends(self) -> None:
        with (
            scripted(lambda *_: (307, {"location": "/v1/meters/"}, b"")) as (url, _),
            client(url) as polar_client,
            pytest.raises(TransientError, match="circle"),
        ):
            polar_client.create_meter(meter())

    def test_a_refused_connection_is_reported(self) -> None:
        with scripted(lambda *_: (200, {}, b"")) as (url, _):
            pass
        with client(url) as polar_client, pytest.raises(TransientError, match="no connection"):
            polar_client.list_meters()

    def test_an_unknown_host_is_reported(self) -> None:
        with (
            client("https://polar-iac.invalid") as polar_client,
            pytest.raises(ApiError, match=r"cannot be found|no connection"),
        ):
            polar_client.list_meters()

    def test_a_timeout_is_reported(self) -> None:
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

    def test_a_failed_tls_handshake_is_reported_and_not_repeated(self) -> None:
        """A plain server answers a TLS handshake with nonsense: reported as TLS, and not tried again."""
        with (
            scripted(lambda *_: (200, {}, b"")) as (url, _),
            client(url.replace("http:", "https:")) as polar_client,
            pytest.raises(ApiError) as caught,
        ):
            polar_client.list_meters()
        assert "TLS" in str(caught.value)
        assert not isinstance(caught.value, TransientError)


POLAR = {"polar-version": "2026-04"}
TEXT = {"content-type": "text/plain; charset=utf-8"}
HTML = {"content-type": "text/html"}

FATES: dict[str, tuple[Answer, Fate]] = {
    "Polar's own 500": ((500, {**JSON}, b'{"error":"Oops","detail":"?"}'), "over"),
    "Polar's own 500, empty": ((500, POLAR, b""), "over"),
    "Polar's unhandled 500": ((500, TEXT, b"Internal Server Error"), "over"),
    "Polar's unhandled 500, no charset": (
        (500, {"content-type": "Text/Plain"}, b"Internal Server Error"),
        "over",
    ),
    "a gateway's 500 in HTML": ((500, HTML, b"Internal Server Error"), "lost"),
    "a gateway's 500 in other words": ((500, TEXT, b"Internal server error\n"), "lost"),
    "a gateway's 500 in JSON": ((500, {"content-type": "application/json"}, b"{}"), "lost"),
    "a gateway's 500 without a type": ((500, {}, b"Internal Server Error"), "lost"),
    "501": ((501, TEXT, b"Internal Server Error"), "lost"),
    "502": ((502, HTML, b"<html>"), "lost"),
    "503": ((503, TEXT, b"upstream connect error"), "lost"),
    "503 that looks like Polar's": ((503, {**JSON}, b"{}"), "lost"),
    "504": ((504, HTML, b"<html>"), "lost"),
    "520": ((520, HTML, b""), "lost"),
    "524": ((524, HTML, b""), "lost"),
    "599": ((599, {}, b""), "lost"),
    "408": ((408, {}, b""), "lost"),
    "204": ((204, POLAR, b""), "lost"),
    "a 200": (answer_json(200, documented()), "lost"),
    "a 201 of something else": (answer_json(201, {"ok": True}), "lost"),
    "a 201 that is cut": ((201, JSON, b'{"id": "'), "lost"),
    "a 201 in a broken compression": ((201, {**JSON, "content-encoding": "gzip"}, b"no gzip"), "lost"),
    "a 201 in an unknown compression": ((201, {**JSON, "content-encoding": "br"}, b"{}"), "lost"),
    "a redirect in a circle": ((307, {"location": "/v1/meters/"}, b""), "lost"),
    "a redirect to something to read": ((303, {"location": "/v1/meters/x"}, b""), "lost"),
}


def fate_of_a_post(url: str, **options: Any) -> Fate:
    with client(url, **options) as polar_client, pytest.raises(TransientError) as caught:
        polar_client.create_meter(meter())
    return caught.value.fate


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def proxied(monkeypatch: pytest.MonkeyPatch, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A proxy for everything but loopback; whatever it says about a connection is up to `serve`."""
    with connections(serve) as url:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("HTTPS_PROXY", url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield


class TestTheFateOfAPost:
    @pytest.mark.parametrize("kind", FATES)
    def test_each_fault_gives_the_expected_fate(self, kind: str) -> None:
        answer, fate = FATES[kind]
        with scripted(lambda *_: answer) as (url, _):
            assert fate_of_a_post(url) == fate

    def test_a_429_is_waited_out_and_never_lost(self) -> None:
        answers = iter([(429, {"retry-after": "0"}, b""), answer_json(201, documented())])
        with scripted(lambda *_: next(answers)) as (url, tape), client(url) as polar_client:
            polar_client.create_meter(meter())
        assert tape.count("POST") == 2

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 411, 413, 418, 422, 431, 451])
    @pytest.mark.parametrize("headers", [JSON, HTML], ids=["Polar", "a gateway"])
    def test_other_4xx_are_final(self, status: int, headers: dict[str, str]) -> None:
        with (
            scripted(lambda *_: (status, headers, b"{}")) as (url, _),
            client(url) as polar_client,
            pytest.raises(ApiError) as caught,
        ):
            polar_client.create_meter(meter())
        assert not isinstance(caught.value, TransientError)
        assert caught.value.status == status

    def test_a_refused_connection_means_not_sent(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            assert fate_of_a_post(f"http://127.0.0.1:{bound.getsockname()[1]}") == "not-sent"

    @pytest.mark.parametrize(
        "error",
        [
            socket.gaierror(-2, "Name or service not known"),
            TimeoutError("timed out"),
            OSError(101, "Network is unreachable"),
        ],
        ids=["no such host", "no connection in time", "no network"],
    )
    def test_a_failed_connection_means_not_sent(
        self, error: OSError, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(socket, "create_connection", fail)
        assert fate_of_a_post("http://127.0.0.1:9") == "not-sent"

    @pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["reset", "closed"])
    def test_a_failed_tls_handshake_means_not_sent(self, end: Callable[[socket.socket], None]) -> None:
        def serve(connection: socket.socket) -> None:
            connection.recv(65536)
            end(connection)

        with connections(serve) as url:
            assert fate_of_a_post(url.replace("http:", "https:")) == "not-sent"

    @pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["reset", "closed"])
    @pytest.mark.parametrize(
        "sent", [b"", b"HTTP/1.1 2", wire(201, b"{}")[:-1]], ids=["at once", "head", "body"]
    )
    def test_a_connection_that_ends_after_sending_means_lost(
        self, sent: bytes, end: Callable[[socket.socket], None]
    ) -> None:
        def serve(connection: socket.socket) -> None:
            read_request(connection)
            connection.sendall(sent)
            end(connection)

        with connections(serve) as url:
            assert fate_of_a_post(url) == "lost"

    @pytest.mark.parametrize("answer", [b"\x15\x03\x01 no HTTP\r\n\r\n", b"HTTP/1.1 20x OK\r\n\r\n"])
    def test_an_answer_that_is_not_http_means_lost(self, answer: bytes) -> None:
        def serve(connection: socket.socket) -> None:
            read_request(connection)
            connection.sendall(answer)

        with connections(serve) as url:
            assert fate_of_a_post(url) == "lost"

    def test_no_answer_in_time_means_lost(self) -> None:
        def serve(connection: socket.socket) -> None:
            read_request(connection)
            connection.recv(1)  # until the client has had enough

        with connections(serve) as url:
            assert fate_of_a_post(url, timeout=0.05) == "lost"

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 403 Forbidden\r\n\r\n",
            b"HTTP/1.1 502 Bad gateway\r\ncontent-length: 0\r\n\r\n",
            b"",
            b"?",
        ],
        ids=["403", "502", "closed", "not HTTP"],
    )
    def test_a_refused_tunnel_means_not_sent(self, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = list[bytes]()

        def serve(connection: socket.socket) -> None:
            seen.append(read_request(connection))
            connection.sendall(answer)

        with proxied(monkeypatch, serve):
            assert fate_of_a_post("https://polar.example") == "not-sent"
        # A create that never left is tried again, and the tunnel is asked for each time.
        assert [request.split()[0] for request in seen] == [b"CONNECT"] * 6
        assert b"polar_oat" not in seen[0]

    def test_a_tunnel_that_opens_too_late_means_not_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def serve(connection: socket.socket) -> None:
            read_request(connection)
            connection.recv(1)

        with proxied(monkeypatch, serve):
            assert fate_of_a_post("https://polar.example", timeout=0.05) == "not-sent"

    @pytest.mark.parametrize("answer", [b"", wire(502)], ids=["closed", "502"])
    def test_an_error_of_a_proxy_means_lost(self, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        def serve(connection: socket.socket) -> None:
            read_request(connection)
            connection.sendall(answer)

        with proxied(monkeypatch, serve):
            assert fate_of_a_post("http://polar.example") == "lost"

    def test_a_redirect_to_a_closed_server_means_lost(self) -> None:
        """The server that redirected the request may have carried it out."""
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def serve() -> None:
                connection, _ = listening.accept()
                with connection:
                    read_request(connection)
                    listening.close()
                    connection.sendall(wire(307, location="/v1/meters/", connection="close"))

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            assert fate_of_a_post(f"http://127.0.0.1:{listening.getsockname()[1]}") == "lost"
            thread.join(10)

    def test_a_patch_that_never_left_was_not_sent(self) -> None:
        """A stop during a retry is reported as a stop."""
        stop = Stop()
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            with (
                client(url, clock=SystemClock(stop), on_retry=stop.request) as polar_client,
                pytest.raises(StoppedError),
            ):
                polar_client.update_meter(identifier(1), {"name": "New"})


class OneRequest:
    """A server that answers one request on each connection, keeps it open, and closes it unanswered when a
    second comes: Polar closes idle connections, and what was sent just then is lost.
    """

    def __init__(self) -> None:
        self.lost = list[str]()
        self.connections = 0

    def __call__(self, connection: socket.socket) -> None:
        self.connections += 1
        made = read_request(connection).startswith(b"POST")
        connection.sendall(wire(201 if made else 200, json.dumps(documented()).encode()))
        if second := read_request(connection):
            self.lost.append(second.split()[0].decode())


class TestConnections:
    def test_a_post_never_uses_an_idle_connection(self) -> None:
        server = OneRequest()
        with connections(server) as url, client(url) as polar_client:
            for _ in range(3):
                polar_client.get_meter(identifier(1))
                polar_client.create_meter(meter())
                polar_client.create_meter(meter())
        assert "POST" not in server.lost

    def test_a_post_never_uses_any_of_several_idle_connections(self) -> None:
        server, together = OneRequest(), threading.Barrier(4)

        def serve(connection: socket.socket) -> None:
            if server.connections < 4:
                server.connections += 1
                read_request(connection)
                together.wait(10)
                connection.sendall(wire(200, json.dumps(documented()).encode()))
                if second := read_request(connection):
                    server.lost.append(second.split()[0].decode())
            else:
                server(connection)

        with connections(serve) as url, client(url) as polar_client:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(polar_client.get_meter, [identifier(1)] * 4))
            polar_client.create_meter(meter())
        assert not server.lost

    def test_a_get_on_a_closed_connection_is_repeated(self) -> None:
        server = OneRequest()
        with connections(server) as url, client(url) as polar_client:
            polar_client.get_meter(identifier(1))
            polar_client.get_meter(identifier(1))
        assert server.lost == ["GET"]

    def test_idle_connections_are_closed_before_polar_closes_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert IDLE_SECONDS < 5
        monkeypatch.setattr(connection, "IDLE_SECONDS", 0.0)
        server = OneRequest()
        with connections(server) as url, client(url) as polar_client:
            for _ in range(3):
                polar_client.get_meter(identifier(1))
        assert (server.connections, server.lost) == (3, [])

    def test_a_client_can_be_closed_twice(self, polar: Served) -> None:
        with client(polar.url) as polar_client:
            polar_client.create_meter(meter())
            with polar_client:
                pass

    def test_the_embedded_server_needs_no_connection(self) -> None:
        embedded = LocalPolar()
        transport = httpx.WSGITransport(app=embedded)
        with client("http://localhost", transport=transport) as polar_client, polar_client:
            made = polar_client.create_meter(meter())
            assert polar_client.list_meters() == [made]
        embedded.close()


def drip(head: bytes, forever: bytes, *, ended: threading.Event) -> Callable[[socket.socket], None]:
    """A server that sends byte after byte, each well in time, until the client has had enough."""

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(head)
        try:
            while not ended.wait(0.004):
                connection.sendall(forever)
        except OSError:
            ended.set()

    return serve


HEAD = b"HTTP/1.1 201 Created\r\n"
DRIPS = {
    "in the headers": (HEAD + b"x: ", b"x"),
    "in the body": (HEAD + b"content-length: 9999999\r\n\r\n", b" "),
    "in chunks": (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "before the headers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """Set once a client has given up; after ten seconds, too late, so that a test fails and does not hang."""
    event = threading.Event()
    timer = threading.Timer(10, event.set)
    timer.start()
    yield event
    timer.cancel()
    event.set()


@pytest.mark.unmeasured
class TestEndlessAnswers:
    @pytest.mark.parametrize("where", DRIPS)
    def test_an_answer_byte_after_byte_times_out(self, where: str, ended: threading.Event) -> None:
        with (
            connections(drip(*DRIPS[where], ended=ended)) as url,
            client(url, timeout=0.05) as polar_client,
            pytest.raises(TransientError, match="in time"),
        ):
            polar_client.create_meter(meter())

    def test_an_answer_byte_after_byte_on_a_used_connection_times_out(self, ended: threading.Event) -> None:
        def serve(connection: socket.socket) -> None:
            read_request(connection)
            connection.sendall(wire(200, json.dumps(documented()).encode()))
            drip(*DRIPS["in the body"], ended=ended)(connection)

        with connections(serve) as url, client(url, timeout=0.3) as polar_client:
            polar_client.get_meter(identifier(1))
            with pytest.raises(TransientError, match="in time"):
                polar_client._send("GET", "/meters/")

    @pytest.mark.parametrize("url", ["http://polar.example", "https://polar.example"])
    def test_an_answer_byte_after_byte_from_a_proxy_times_out(
        self, url: str, ended: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reasons = list[str]()
        with (
            proxied(monkeypatch, drip(*DRIPS["in the headers"], ended=ended)),
            client(url, timeout=0.05, on_retry=reasons.append) as polar_client,
            pytest.raises(TransientError) as caught,
        ):
            polar_client.create_meter(meter())
        # Through a tunnel it never left, so that it is tried again: the first time says why.
        assert "in time" in [*reasons, str(caught.value)][0]

    @pytest.mark.skipif(not shutil.which("openssl"), reason="makes the certificate")
    @pytest.mark.parametrize("tunnel", [False, True], ids=["direct", "through a proxy"])
    def test_an_answer_byte_after_byte_inside_tls_times_out(
        self, tunnel: bool, tmp_path: Path, ended: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import ssl

        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=polar.example"
        names = ["-addext", "subjectAltName=DNS:polar.example,IP:127.0.0.1"]
        files = ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        def serve(connection: socket.socket) -> None:
            if tunnel:
                read_request(connection)
                connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            with context.wrap_socket(connection, server_side=True) as secret:
                drip(*DRIPS["in the body"], ended=ended)(secret)

        with proxied(monkeypatch, serve), connections(serve) as direct:
            url = "https://polar.example" if tunnel else direct.replace("http:", "https:")
            with client(url, timeout=1.0) as polar_client, pytest.raises(TransientError) as caught:
                polar_client.create_meter(meter())
        assert "in time" in str(caught.value)
        assert caught.value.fate == "lost"

    def test_a_body_over_the_limit_is_refused(self) -> None:
        large = b" " * (64 * 2**20) + b"{}"
        with (
            scripted(lambda *_: (201, JSON, large)) as (url, _),
            client(url) as polar_client,
            pytest.raises(TransientError, match="larger than 64 MiB"),
        ):
            polar_client.create_meter(meter())

    def test_a_body_over_the_limit_after_decompression_is_refused(self) -> None:
        bomb = gzip.compress(b" " * (64 * 2**20) + b"{}")
        with (
            scripted(lambda *_: (201, {**JSON, "content-encoding": "gzip"}, bomb)) as (url, _),
            client(url) as polar_client,
            pytest.raises(TransientError, match="larger than 64 MiB"),
        ):
            polar_client.create_meter(meter())

    def test_a_body_without_an_end_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transport, "LARGEST_BODY", 2**20)

        def serve(connection: socket.socket) -> None:
            read_request(connection)
            connection.sendall(b"HTTP/1.1 201 Created\r\n\r\n")
            for _ in range(4096):
                connection.sendall(b" " * 65536)

        with (
            connections(serve) as url,
            client(url) as polar_client,
            pytest.raises(TransientError, match="larger than 1 MiB"),
        ):
            polar_client.create_meter(meter())

    @pytest.mark.parametrize("encoding", ["gzip", "GZip", "deflate", "identity", ""])
    def test_an_accepted_encoding_is_decompressed(
        self, encoding: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import zlib

        packed: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
        plain = json.dumps(documented()).encode()
        monkeypatch.setattr(transport, "LARGEST_BODY", len(plain))
        pack = packed.get(encoding.lower(), bytes)
        with (
            scripted(lambda *_: (200, {**JSON, "content-encoding": encoding}, pack(plain))) as (url, tape),
            client(url) as polar_client,
        ):
            assert polar_client.get_meter(identifier(1)).id == identifier(1)
        assert tape.exchanges[0].headers["accept-encoding"] == "gzip, deflate"

    @pytest.mark.parametrize("encoding", ["gzip, gzip", "deflate,gzip", "br", "zstd", "identity, x", "é"])
    def test_another_encoding_is_refused(self, encoding: str) -> None:
        twice = gzip.compress(gzip.compress(json.dumps(documented()).encode()))
        with (
            scripted(lambda *_: (201, {**JSON, "content-encoding": encoding}, twice)) as (url, _),
            client(url) as polar_client,
            pytest.raises(TransientError, match="not asked for"),
        ):
            polar_client.create_meter(meter())

    @pytest.mark.parametrize("status", [401, 429, 500])
    def test_an_error_status_counts_whatever_its_body(self, status: int) -> None:
        refused = status, {**POLAR, "content-encoding": "br", "retry-after": "0"}, b"?"
        answers = iter([refused, answer_json(201, documented())])
        with scripted(lambda *_: next(answers)) as (url, _), client(url) as polar_client:
            if status == 429:
                polar_client.create_meter(meter())
            else:
                with pytest.raises(ApiError) as caught:
                    polar_client.create_meter(meter())
                assert caught.value.status == status


@pytest.mark.unmeasured
class TestEndlessLists:
    """Of each, how many requests are made before it is given up; a list is read six times at most."""

    def listed(self, page: Callable[[int], dict[str, Any]], error: str) -> int:
        def answer(_method: str, path: str, _body: bytes) -> Answer:
            return answer_json(200, page(int(path.partition("&page=")[2].partition("&")[0])))

        with (
            scripted(answer) as (url, tape),
            client(url) as polar_client,
            pytest.raises(ApiError, match=error),
        ):
            polar_client.list_meters()
        return tape.count("GET")

    def page(self, ids: range, total: int, pages: int) -> dict[str, Any]:
        items = [documented(id=identifier(n)) for n in ids]
        return {"items": items, "pagination": {"total_count": total, "max_page": pages}}

    def test_a_page_that_repeats_ends_the_list(self) -> None:
        assert self.listed(lambda _: self.page(range(3), 3, 9000), "page 2 .* repeats") == 6 * 2

    def test_a_page_that_repeats_without_a_count_ends_the_list(self) -> None:
        assert self.listed(lambda n: self.page(range(3), 0, n + 1), "page 2 .* repeats") == 6 * 2

    def test_a_page_count_that_grows_with_every_page_ends_the_list(self) -> None:
        assert self.listed(lambda n: self.page(range(n, n + 1), n, n + 1), "does not end") <= 6 * 14

    def test_too_many_pages_end_the_list(self) -> None:
        assert self.listed(lambda n: self.page(range(n, n + 1), 10**9, 10**9), "does not end") == 6

    @pytest.mark.unmeasured
    def test_more_meters_than_counted_end_the_list(self) -> None:
        requests = self.listed(lambda n: self.page(range(400 * n, 400 * n + 400), 3, 5000), "does not end")
        assert requests == 6 * 3

    def test_a_list_that_others_add_to_is_read_to_its_end(self) -> None:
        """It had one page of three when the reading began, and has five at its end."""

        def answer(_method: str, path: str, _body: bytes) -> Answer:
            number = int(path.partition("&page=")[2])
            ids = range(3 * number - 3, 3 * number)
            return answer_json(200, self.page(ids, 3 * number, min(number + 1, 5)))

        with scripted(answer) as (url, tape), client(url) as polar_client:
            assert len(polar_client.list_meters()) == 15
        assert tape.count("GET") == 5


class TestOddRedirects:
    @pytest.mark.parametrize(
        "location",
        [
            "javascript:x",
            "mailto:a@b",
            "http://[",
            "http://127.0.0.1:99999/",
            "https:///v1/meters/",
            "http:/v1/meters/",
            "//",
            "///x",
            "http://user:pw@{host}/v1/meters/",
            "http://user@{host}/v1/meters/",
            "https://{host}/v1/meters/",
            "ftp://{host}/",
            "http://xn--/",
            "/%ff\x01",
            "\xff\xfe://",
            "x" * 60_000 + ":",
            "",
            " ",
        ],
    )
    @pytest.mark.parametrize("status", [301, 307])
    def test_a_redirect_to_nonsense_is_refused(self, location: str, status: int) -> None:
        def answer(*_: Any) -> Answer:
            return status, {"location": location.format(host=host)}, b""

        with scripted(answer) as (url, tape), client(url) as polar_client:
            host = url.removeprefix("http://")
            with pytest.raises(ApiError) as caught:
                polar_client.list_meters()
        assert "redirect" in str(caught.value)
        assert not isinstance(caught.value, TransientError) or "circle" in str(caught.value)
        assert len(tape.exchanges) == 1 or "circle" in str(caught.value)
        assert all(e.headers["authorization"] == "Bearer polar_oat_test" for e in tape.exchanges)

    def test_a_redirect_without_a_location_is_refused(self) -> None:
        with (
            scripted(lambda *_: (308, {}, b"")) as (url, tape),
            client(url) as polar_client,
            pytest.raises(ApiError, match="redirects without saying where"),
        ):
            polar_client.list_meters()
        assert tape.count("GET") == 1

    @pytest.mark.parametrize("status", [302, 303])
    def test_a_patch_that_becomes_a_get_is_not_done(self, status: int) -> None:
        def answer(method: str, *_: Any) -> Answer:
            if method == "PATCH":
                return status, {"location": f"/v1/meters/{identifier(1)}"}, b""
            return answer_json(200, documented())

        with (
            scripted(answer) as (url, tape),
            client(url) as polar_client,
            pytest.raises(TransientError, match="something to read instead"),
        ):
            polar_client.update_meter(identifier(1), {"name": "New"})
        assert tape.count("GET") == 0


class TestOrganizationIds:
    def asked(self, answer: Answer) -> frozenset[str] | None:
        with scripted(lambda *_: answer) as (url, tape), client(url) as polar_client:
            organizations = polar_client.organization_ids()
        assert (tape.exchanges[0].path, tape.exchanges[0].query) == ("/v1/organizations/", "limit=100")
        return organizations

    def test_the_ids_that_the_token_sees_are_returned(self) -> None:
        items = [{"id": identifier(n).upper(), "name": f"No. {n}"} for n in range(2)]
        listed = answer_json(200, {"items": items, "pagination": {"total_count": 2, "max_page": 1}})
        assert self.asked(listed) == frozenset({identifier(0), identifier(1)})

    def test_no_organization_gives_no_ids(self) -> None:
        listed = answer_json(200, {"items": [], "pagination": {"total_count": 0, "max_page": 0}})
        assert self.asked(listed) == frozenset()

    @pytest.mark.parametrize(
        "answer",
        [
            (403, JSON, b'{"error":"insufficient_scope"}'),
            (401, JSON, b"{}"),
            (404, {}, b""),
            (500, {}, b""),
            (307, {"location": "javascript:x"}, b""),
            (200, JSON, b"<html>"),
            (200, JSON, b"[]"),
            answer_json(200, {"items": [{"id": "x"}], "pagination": {"max_page": 1}}),
            answer_json(200, {"items": [{"id": identifier(1)}], "pagination": {"max_page": 2}}),
            answer_json(203, {"items": [{"id": identifier(1)}], "pagination": {"max_page": 1}}),
        ],
        ids=str,
    )
    def test_an_unusable_answer_leaves_the_ids_unknown(self, answer: Answer) -> None:
        assert self.asked(answer) is None

    def test_an_error_answer_is_retried_as_often_as_any_other(self) -> None:
        with scripted(lambda *_: (503, {}, b"")) as (url, tape), client(url) as polar_client:
            assert polar_client.organization_ids() is None
        assert tape.count("GET") == 6

    def test_a_stop_is_raised(self) -> None:
        stop = Stop()
        stop.request("SIGINT")
        with (
            scripted(lambda *_: (200, {}, b"")) as (url, _),
            client(url, clock=SystemClock(stop)) as polar_client,
            pytest.raises(StoppedError),
        ):
            polar_client.organization_ids()


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


NAMES = st.sampled_from(
    [
        *("location", "retry-after", "content-encoding", "content-type", "content-length"),
        *("transfer-encoding", "set-cookie", "www-authenticate", "polar-version", "connection", "upgrade"),
    ]
)
VALUES = st.one_of(
    st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=30),
    st.sampled_from(
        [
            *(
                "gzip",
                "chunked",
                "close",
                "a=é",
                "a=b; expires=x",
                'scope="',
                "9" * 30,
                "9" * 5000,
                "0",
                "-1",
            ),
            *("//[", "/v1/x", "http://x:1:2/", "javascript:x", "text/plain; charset=x"),
            "Mon, 32 Jan 99999999999 99:99:99 +999999",
        ]
    ),
)


@examples(150)
@given(
    status=st.integers(100, 999),
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=4),
    body=st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [json.dumps(documented()).encode(), b"[" * 2000, b'{"detail": [{"loc": [1]}]}', b"9" * 9000]
        ),
    ),
    framed=st.booleans(),
)
def test_any_answer_raises_only_our_own_errors(
    status: int, headers: list[tuple[str, str]], body: bytes, framed: bool
) -> None:
    length = [("content-length", str(len(body)))] if framed else []
    lines = [f"HTTP/1.1 {status} Any", *(f"{name}: {value}" for name, value in [*length, *headers]), "", ""]
    answer = "\r\n".join(lines).encode("latin-1") + body

    def serve(connection: socket.socket) -> None:
        while read_request(connection):
            connection.sendall(answer)
            if not framed:
                return

    class Impatient(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.time > 10_000:
                raise StoppedError("it is to end")

    with connections(serve) as url, client(url, clock=Impatient(), timeout=0.2) as polar_client:
        for ask in (
            lambda: polar_client.create_meter(meter()),
            lambda: polar_client._send("GET", "/meters/"),
            lambda: polar_client._send("PATCH", "/meters/x", json={}),
        ):
            with suppress(PolarIacError):
                ask()


class TestBaseUrl:
    @pytest.mark.parametrize("url", ["https://polar.example", "http://localhost:8010", "http://[::1]:80/"])
    def test_a_valid_base_url_is_accepted(self, url: str) -> None:
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
    def test_an_invalid_base_url_is_refused(self, url: str) -> None:
        with pytest.raises(PolarIacError):
            check_base_url(url)


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

    def test_a_date_as_retry_after_is_waited_for(self) -> None:
        from datetime import UTC, datetime, timedelta
        from email.utils import format_datetime

        clock = FakeClock()
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
        answers = iter([(429, {"retry-after": at}, b""), answer_json(200, documented())])
        with scripted(lambda *_: next(answers)) as (url, _), client(url, clock=clock) as polar_client:
            polar_client.get_meter(identifier(1))
        assert 25 <= clock.time <= 33

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [("999999", 3600), ("Thu, 01 Jan 2099 00:00:00 GMT", 3600), ("nonsense", 60), ("-5", 60), ("0", 0.1)],
    )
    def test_an_unusual_retry_after_is_read(self, header: str, seconds: float) -> None:
        clock = FakeClock()
        answers = iter([(429, {"retry-after": header}, b""), answer_json(200, documented())])
        with scripted(lambda *_: next(answers)) as (url, _), client(url, clock=clock) as polar_client:
            polar_client.get_meter(identifier(1))
        assert clock.time == pytest.approx(seconds, rel=0.03)

    def test_of_two_waiting_threads_one_tries(self) -> None:
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

    def test_creates_on_a_limited_server_all_succeed(self) -> None:
        with (
            served_polar(LocalPolar(rate_limit=RateLimit(10, 1.0))) as polar,
            client(polar.url) as polar_client,
        ):
            for number in range(25):
                polar_client.create_meter(meter(name=f"Meter {number}"))
            assert len(polar_client.list_meters()) == 25


def test_the_first_reason_for_a_stop_is_kept() -> None:
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
