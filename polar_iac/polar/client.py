"""HTTP client for Polar's meters API: paging, retries, and readable errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx
import tenacity
from pydantic import ValidationError

from polar_iac.clock import Clock, StoppedError, SystemClock
from polar_iac.meter.live import LiveMeter, instant
from polar_iac.meter.marker import MARKER
from polar_iac.polar.answers import Extent, Organizations, meter_from, page_from, total_from
from polar_iac.polar.connection import Connection
from polar_iac.polar.error_answers import error_from
from polar_iac.polar.errors import ApiError, IncompleteError, InvalidRequestError, TransientError
from polar_iac.polar.retry import Operation, RateGate, RetryPolicy, retry_after_of
from polar_iac.polar.transport import Answer, json_of

BASE_URLS = {"production": "https://api.polar.sh", "sandbox": "https://sandbox-api.polar.sh"}
ORGANIZATION_TOKEN = "polar_oat_"  # noqa: S105  a prefix, no secret
PAGE = 100
"""Meters per list request. Polar silently clamps a larger limit (observed)."""
OnPage = Callable[[int, int], None]


class PolarClient:
    """Client for the meters of one organization. Safe to share between threads.

    `base_url` does not include `/v1`. `organization_id` is sent unless the token is an organization token,
    because Polar rejects the field with those (observed). GET and PATCH are retried when no usable answer
    came, as `retry` says; `on_retry` receives the reason. A POST is sent once, and the caller decides what a
    `TransientError` means. `timeout` is the limit in seconds for a whole answer, including redirects. Only
    PolarIacErrors are raised, whatever the server sends.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        organization_id: str | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
        on_wait: Callable[[float], None] = lambda _: None,
        on_retry: Callable[[str], None] = lambda _: None,
        timeout: float = 30.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        own = token.startswith(ORGANIZATION_TOKEN) or organization_id is None
        self._organization = {} if own else {"organization_id": str(organization_id)}
        self._clock = clock or SystemClock()
        self._gate = RateGate(self._clock, on_wait)
        self._answered: tuple[datetime | None, float] = (None, 0.0)
        policy = retry or RetryPolicy()
        self._repeat: dict[Operation, tenacity.Retrying] = {
            operation: policy.retrying(operation, self._clock, on_retry) for operation in policy.retried
        }
        self._connection = Connection(base_url, token, transport=transport, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def list_meters(self, on_page: OnPage = lambda _done, _of: None) -> list[LiveMeter]:
        """Return every meter, including archived ones, oldest first. Sends one request per 100 meters.

        `on_page` receives the number of pages read and the total number of pages.
        """
        return self._list([], on_page)

    def find_by_markers(self, *markers: str) -> list[LiveMeter]:
        """Return the meters that have one of these markers, oldest first.

        Includes archived meters. The answer comes from one replica, which may lag.
        """
        return self._list([(f"metadata[{MARKER}]", m) for m in markers], lambda _done, _of: None)

    def now(self) -> datetime:
        """Return the current time by Polar's clock, or slightly earlier.

        Before the first answer this is the time of the local clock.
        """
        date, arrived = self._answered
        if date is None:
            return datetime.now(UTC)
        return date + timedelta(seconds=time.monotonic() - arrived)

    def get_meter(self, meter_id: str) -> LiveMeter:
        """Return the meter with this id. Raises NotFoundError when Polar does not know the id."""
        return self._repeat["GET"](lambda: self._meter_of("GET", meter_id))

    def quantity(self, meter_id: str, days: int) -> float | None:
        """Return what a meter has counted in the last days, today included, or None if Polar cannot tell.

        Raises ApiError. The average and the count of distinct values are of all time: Polar ignores the days
        (observed). System events count too.
        """
        end = self.now()
        params = {
            "start_timestamp": instant(end - timedelta(days=days)),
            "end_timestamp": instant(end),
            "interval": "day",
        }
        path = f"/meters/{meter_id}/quantities"
        try:
            return self._repeat["GET"](lambda: total_from(json_of(self._send("GET", path, params=params))))
        except ApiError as error:
            # Example: an emulator that does not serve quantities.
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def organization_ids(self) -> frozenset[str] | None:
        """Return the ids of all organizations that the token can see, or None when that cannot be determined.

        None is common: the request needs the scope `organizations:read`, which a token for meters lacks. None
        is also returned when there is more than one page, because some ids would be missing.
        """
        try:
            answer = self._repeat["GET"](lambda: self._send("GET", "/organizations/", params={"limit": PAGE}))
            page = Organizations.model_validate(json_of(answer))
        except (ApiError, ValidationError):
            return None
        if answer.status != httpx.codes.OK or page.pagination.max_page > 1:
            return None
        return frozenset(str(item.id) for item in page.items)

    def create_meter(self, body: Mapping[str, Any]) -> LiveMeter:
        """Send the POST once, as soon as a connection can be made.

        The `fate` of a TransientError tells whether the meter may have been created. Only a 201 that shows
        this meter counts as a create: a proxy could return a different meter.
        """
        whole = {**body, **self._organization}
        answer = self._repeat["POST"](lambda: self._send("POST", "/meters/", json=whole))
        meter = meter_from(json_of(answer))
        wanted = body.get("metadata", {}).get(MARKER)
        if answer.status != httpx.codes.CREATED or meter.marker not in (None, wanted):
            raise TransientError("the response to POST /v1/meters/ does not show the meter that was sent")
        return meter

    def update_meter(self, meter_id: str, body: Mapping[str, Any]) -> LiveMeter:
        """Send a PATCH with exactly `body`. It is idempotent, so it may be retried.

        Raises StoppedError only when the request was never sent.
        """
        lost: list[TransientError] = []

        def attempt() -> LiveMeter:
            try:
                return self._meter_of("PATCH", meter_id, json=body)
            except TransientError as error:
                # A PATCH that left may have taken effect. Keep its error: a stop during the retry must not
                # look like "never sent".
                if error.fate != "not-sent":
                    lost.append(error)
                raise

        try:
            return self._repeat["PATCH"](attempt)
        except StoppedError as error:
            if lost:
                raise lost[-1] from error
            raise

    def is_frozen(self, meter: LiveMeter) -> bool:
        """Ask whether Polar refuses to change what a meter counts, by `PATCH {"filter": null}`.

        Such a PATCH changes nothing, not even `modified_at`: for a frozen meter the answer is a 422, and any
        other meter is shown as it is (observed). It is sent once. Raises ApiError for every other answer.
        """
        path = f"/meters/{meter.id}"
        try:
            answer = self._repeat["probe"](lambda: self._send("PATCH", path, json={"filter": None}))
        except InvalidRequestError as error:
            if [(entry["type"], entry["loc"]) for entry in error.detail] == [
                ("forbidden", ["body", "filter"])
            ]:
                return True
            raise
        shown = meter_from(json_of(answer))
        counts_the_same = (shown.spec and shown.spec.billing) == (meter.spec and meter.spec.billing)
        if answer.status != httpx.codes.OK or shown.id != meter.id or not counts_the_same:
            raise ApiError(
                f"the response to PATCH /v1/meters/{meter.id} with a null filter does not show the meter as "
                "the list did: look at it in Polar's dashboard",
                status=answer.status,
            )
        return False

    def _meter_of(self, method: str, meter_id: str, **content: Any) -> LiveMeter:
        meter = meter_from(json_of(self._send(method, f"/meters/{meter_id}", **content)))
        if meter.id != meter_id:
            raise TransientError(f"the response to {method} /v1/meters/{meter_id} is another meter's")
        return meter

    def _list(self, query: Sequence[tuple[str, str]], on_page: OnPage) -> list[LiveMeter]:
        """Read all pages, and start over when the pages are inconsistent.

        A meter that is missed here would be created again.
        """
        return self._repeat["list"](lambda: self._pages(query, on_page))

    def _pages(self, query: Sequence[tuple[str, str]], on_page: OnPage) -> list[LiveMeter]:
        meters: dict[str, LiveMeter] = {}
        extent: Extent | None = None
        page, last = 1, 1
        while page <= last:
            paging = [("sorting", "created_at"), ("limit", str(PAGE)), ("page", str(page))]
            params = [*paging, *query, *self._organization.items()]
            answer = self._repeat["GET"](
                lambda params=params: page_from(json_of(self._send("GET", "/meters/", params=params)))
            )
            # An empty page ends the list, whatever `max_page` says. Example: meters were removed while the
            # list was read.
            last = answer.pagination.max_page if answer.items else 0
            extent = extent or Extent(answer.pagination)
            meters_before = len(meters)
            for item in answer.items:
                meter = meter_from(item)
                meters.setdefault(meter.id, meter)
            # A page with no new meter means that paging does not advance. Example: a proxy that ignores
            # `page`.
            if answer.items and len(meters) == meters_before:
                raise IncompleteError(f"page {page} of Polar's list of meters repeats the pages before it")
            extent.check(last, len(meters))
            on_page(page, last)
            page += 1
        if len(meters) < answer.pagination.total_count:
            raise IncompleteError("Polar's list of meters repeats some and lacks others")
        return list(meters.values())

    def _send(self, method: str, path: str, **content: Any) -> Answer:
        """Send one request and return its 2xx answer. Retries only while Polar limits the rate (429).

        Raises StoppedError, before sending anything, when the run must end.
        """
        while True:
            # A sleep of 0 seconds waits for nothing; it raises StoppedError when the run must end.
            self._clock.sleep(0)
            ticket = self._gate.enter()
            answer = self._connection.send(method, path, **content)
            self._note_time(answer)
            if answer.status == httpx.codes.TOO_MANY_REQUESTS:
                self._gate.limited(ticket, retry_after_of(answer))
                continue
            self._gate.passed(ticket)
            if not httpx.codes.is_success(answer.status):
                raise error_from(answer)
            return answer

    def _note_time(self, answer: Answer) -> None:
        """Remember the time of this answer by Polar's clock, because the local clock may be wrong."""
        with suppress(ValueError, TypeError, IndexError, OverflowError):
            date = parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else None
            if date is not None and date.tzinfo is not None:
                self._answered = date, time.monotonic()
