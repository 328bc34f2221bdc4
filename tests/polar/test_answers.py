"""Answers that count, and servers that get the token: proxies, redirects and certificates in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from polar_iac.clock import Stop, StoppedError, SystemClock
from polar_iac.errors import PolarIacError
from polar_iac.meter.marker import MARKER
from polar_iac.polar.client import PolarClient
from polar_iac.polar.connection import check_base_url
from polar_iac.polar.errors import ApiError, NotFoundError, TransientError
from polar_iac.polar.retry import RetryPolicy
from tests.support.build import ORGANIZATION, identifier, meter
from tests.support.served_polar import JSON, Answer, answer_json, scripted

BODY = meter(metadata={MARKER: "acme/calls"})


def live(number: int = 1, marker: str | None = "acme/calls", **fields: Any) -> dict[str, Any]:
    times = {"created_at": "2026-01-01T00:00:00Z", "modified_at": None}
    metadata = {MARKER: marker} if marker else {}
    identity = {"id": identifier(number), "organization_id": ORGANIZATION}
    return {**meter(), **times, **identity, "metadata": metadata, **fields}


def asked(answer: Callable[[str, str, bytes], Answer], ask: Callable[[PolarClient], Any]) -> Any:
    with (
        scripted(answer) as (url, _),
        PolarClient(url, "polar_oat_t", retry=RetryPolicy(first_wait=0.001)) as client,
    ):
        return ask(client)


def created(answer: Callable[[str, str, bytes], Answer]) -> Any:
    return asked(answer, lambda client: client.create_meter(BODY))


class TestAnswersToAPost:
    def test_a_201_with_this_meter_is_accepted(self) -> None:
        assert created(lambda *_: answer_json(201, live())).id == identifier(1)

    def test_a_201_without_metadata_is_accepted(self) -> None:
        assert created(lambda *_: answer_json(201, live(marker=None))).id == identifier(1)

    @pytest.mark.parametrize(("status", "marker"), [(200, "acme/calls"), (201, "acme/other")])
    def test_another_status_or_marker_leaves_open_what_was_created(self, status: int, marker: str) -> None:
        """A cache's 200, or another meter's answer: open is what was made."""
        with pytest.raises(TransientError):
            created(lambda *_: answer_json(status, live(marker=marker)))

    def test_the_answer_behind_a_redirect_leaves_open_what_was_created(self) -> None:
        def answer(method: str, *_: Any) -> Answer:
            if method == "POST":
                return 303, {"location": f"/v1/meters/{identifier(7)}"}, b""
            return answer_json(200, live(7))

        with pytest.raises(TransientError):
            created(answer)

    @pytest.mark.parametrize(
        "fields",
        [{"id": "no-uuid"}, {"organization_id": "x"}, {"created_at": "0001-01-01T00:00:00+14:00"}],
        ids=str,
    )
    def test_a_201_that_cannot_be_recorded_leaves_open_what_was_created(self, fields: dict[str, Any]) -> None:
        with pytest.raises(TransientError):
            created(lambda *_: answer_json(201, live(**fields)))

    def test_an_id_is_recorded_as_polar_writes_it(self) -> None:
        upper = "ABCDEF12-0000-4000-8000-000000000000"
        assert created(lambda *_: answer_json(201, live(id=upper))).id == upper.lower()


@pytest.mark.parametrize(
    "ask", [lambda c: c.get_meter(identifier(1)), lambda c: c.update_meter(identifier(1), {})]
)
def test_an_answer_with_another_meter_is_refused(ask: Callable[[PolarClient], Any]) -> None:
    with pytest.raises(TransientError, match="another meter's"):
        asked(lambda *_: answer_json(200, live(2)), ask)


class TestWaiting:
    def test_a_429_that_asks_for_no_wait_is_not_asked_again_at_once(self) -> None:
        """Else a `Retry-After: 0` would be sent thousands of requests, and no deadline would end it."""
        stop = Stop()
        requests = []

        def answer(*_: Any) -> Answer:
            requests.append(1)
            if len(requests) == 3:
                stop.request("the deadline has come")
            return 429, {"retry-after": "0"}, b""

        with (
            scripted(answer) as (url, _),
            PolarClient(url, "polar_oat_t", clock=SystemClock(stop)) as client,
            pytest.raises(StoppedError),
        ):
            client.list_meters()
        assert len(requests) == 3

    def test_nothing_is_sent_after_a_stop(self) -> None:
        stop = Stop()
        stop.request("SIGINT")
        with (
            scripted(lambda *_: answer_json(201, live())) as (url, tape),
            PolarClient(url, "polar_oat_t", clock=SystemClock(stop)) as client,
        ):
            with pytest.raises(StoppedError):
                client.create_meter(BODY)
            assert not tape.exchanges

    def test_a_patch_that_was_sent_and_stopped_is_not_said_to_be_unsent(self) -> None:
        stop = Stop()

        def answer(*_: Any) -> Answer:
            stop.request("SIGINT")
            return 503, {}, b""

        with (
            scripted(answer) as (url, _),
            PolarClient(url, "polar_oat_t", clock=SystemClock(stop)) as client,
            pytest.raises(TransientError, match="status 503"),
        ):
            client.update_meter(identifier(1), {"name": "New"})

    def test_each_retry_is_reported(self) -> None:
        messages: list[str] = []
        with (
            scripted(lambda *_: (503, {}, b"")) as (url, _),
            PolarClient(
                url, "polar_oat_t", retry=RetryPolicy(first_wait=0.001), on_retry=messages.append
            ) as client,
            pytest.raises(TransientError),
        ):
            client.list_meters()
        assert messages == ["GET /v1/meters/: Polar failed with status 503"] * 5


class TestTheWayThere:
    @pytest.mark.parametrize(
        "url",
        [
            "https://[::1",
            "https://:pw@host",
            "https://host/#fragment",
            "https://host?query",
            "ftp://host",
            "host",
            "https://",
        ],
    )
    def test_an_invalid_base_url_is_refused(self, url: str) -> None:
        with pytest.raises(PolarIacError, match="is not an address"):
            check_base_url(url)

    @pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
    def test_certificates_are_checked_however_https_is_written(
        self, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import httpx

        seen: dict[str, Any] = {}
        monkeypatch.setattr(httpx, "Client", lambda **options: seen.update(options))
        PolarClient(check_base_url(f"{scheme}://api.example"), "polar_oat_t")
        assert seen["verify"] is True
        assert seen["trust_env"] is True

    def test_no_proxy_sees_the_token_of_what_stays_on_this_machine(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with scripted(lambda *_: (500, {}, b"")) as (proxy, seen):
            monkeypatch.setenv("HTTP_PROXY", proxy)
            monkeypatch.delenv("NO_PROXY", raising=False)
            asked(lambda *_: answer_json(200, live()), lambda client: client.get_meter(identifier(1)))
            assert not seen.exchanges

    def test_a_wrong_port_is_named(self) -> None:
        with (
            PolarClient("http://127.0.0.1:9", "polar_oat_t", retry=RetryPolicy(first_wait=0.001)) as client,
            pytest.raises(TransientError, match=r"no connection to 127\.0\.0\.1:9:"),
        ):
            client.list_meters()

    def test_a_wrong_path_is_not_a_missing_meter(self) -> None:
        nowhere = 404, JSON, json.dumps({"detail": "Not Found"}).encode()
        with pytest.raises(ApiError, match="check POLAR_BASE_URL") as caught:
            asked(lambda *_: nowhere, lambda client: client.list_meters())
        assert not isinstance(caught.value, NotFoundError)


class TestQuantities:
    """The usage that a meter has counted, for the list of meters without an owner."""

    def total(self, answer: Callable[[str, str, bytes], Answer]) -> float | None:
        total: float | None = asked(answer, lambda client: client.quantity(identifier(1), 30))
        return total

    def test_the_total_of_whole_days_up_to_now(self) -> None:
        paths = []

        def answer(_method: str, path: str, _body: bytes) -> Answer:
            paths.append(path)
            return answer_json(200, {"quantities": [{"timestamp": "2026-01-01T00:00:00Z"}], "total": 12.5})

        assert self.total(answer) == 12.5
        assert paths[0].startswith(f"/v1/meters/{identifier(1)}/quantities")

    def test_unknown_where_it_is_not_served(self) -> None:
        assert self.total(lambda *_: answer_json(404, {"detail": "Not Found"})) is None

    @pytest.mark.parametrize("body", [{}, {"total": "many"}, []])
    def test_anything_else_is_an_error(self, body: Any) -> None:
        with pytest.raises(TransientError, match="quantities of a meter"):
            self.total(lambda *_: answer_json(200, body))

    def test_a_token_that_may_not_ask(self) -> None:
        with pytest.raises(ApiError, match="scope"):
            self.total(lambda *_: answer_json(403, {"error": "insufficient_scope"}))
