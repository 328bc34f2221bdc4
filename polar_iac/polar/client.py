"""HTTP client for Polar's meters API: paging, retries, and readable errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import tenacity
from pydantic import ValidationError

from polar_iac.clock import Clock, StoppedError, SystemClock
from polar_iac.errors import PolarIacError
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.marker import MARKER
from polar_iac.polar.answers import Extent, Organizations, meter_from, page_from
from polar_iac.polar.error_answers import error_from, no_answer
from polar_iac.polar.errors import ApiError, IncompleteError, TransientError, was_not_sent
from polar_iac.polar.retry import RateGate, retry_after_of
from polar_iac.polar.transport import (
    API_VERSION,
    IDLE_CONNECTIONS,
    IDLE_SECONDS,
    Answer,
    IdleConnectionError,
    Watch,
    json_of,
    origin_of,
    read_answer,
    request_deadline,
    request_name,
)

BASE_URLS = {"production": "https://api.polar.sh", "sandbox": "https://sandbox-api.polar.sh"}
ORGANIZATION_TOKEN = "polar_oat_"  # noqa: S105  a prefix, no secret
PAGE = 100
"""Meters per list request. Polar silently clamps a larger limit (observed)."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ATTEMPTS = 6
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
OnPage = Callable[[int, int], None]


class PolarClient:
    """Client for the meters of one organization. Safe to share between threads.

    `base_url` does not include `/v1`. `organization_id` is sent unless the token is an organization token,
    because Polar rejects the field with those (observed). GET and PATCH are retried when no usable answer
    came; `on_retry` receives the reason. A POST is sent once, and the caller decides what a `TransientError`
    means. `timeout` is the limit in seconds for a whole answer, including redirects. Only PolarIacErrors are
    raised, whatever the server sends.
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
        retry_wait: float = 0.4,
    ) -> None:
        own = token.startswith(ORGANIZATION_TOKEN) or organization_id is None
        self._organization = {} if own else {"organization_id": str(organization_id)}
        self._clock = clock or SystemClock()
        self._gate = RateGate(self._clock, on_wait)
        self._answered: tuple[datetime | None, float] = (None, 0.0)
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=retry_wait, max=25 * retry_wait),
            sleep=self._clock.sleep,
            before_sleep=lambda state: on_retry(str(state.outcome and state.outcome.exception())),
            reraise=True,
        )
        self._completing = self._retrying.copy(retry=tenacity.retry_if_exception_type(IncompleteError))
        self._connecting = self._retrying.copy(retry=tenacity.retry_if_exception(was_not_sent))
        address = httpx.URL(base_url)
        self._origin = origin_of(address)
        self._timeout = timeout
        self._http = httpx.Client(
            base_url=base_url.rstrip("/") + "/v1",
            headers={
                "Authorization": f"Bearer {token}",
                "Polar-Version": API_VERSION,
                "User-Agent": "polar-iac",
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
            },
            # Store no cookies: a cookie that contains `é` could not be sent back, and every later request
            # would fail.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            transport=transport,
            # Plain http has no certificate to verify, and loading the trusted certificates is slow. No
            # redirect leads from here to https, because that is another origin and is refused.
            verify=address.scheme != "http",
            # Loopback traffic needs no proxy, and a proxy must not see a token in plain text.
            trust_env=address.scheme != "http" or address.host not in LOOPBACK,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            limits=httpx.Limits(max_keepalive_connections=IDLE_CONNECTIONS, keepalive_expiry=IDLE_SECONDS),
            event_hooks={"response": [self._check_redirect]},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

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
        return self._retrying(lambda: self._meter_of("GET", meter_id))

    def organization_ids(self) -> frozenset[str] | None:
        """Return the ids of all organizations that the token can see, or None when that cannot be determined.

        None is common: the request needs the scope `organizations:read`, which a token for meters lacks. None
        is also returned when there is more than one page, because some ids would be missing.
        """
        try:
            answer = self._retrying(lambda: self._send("GET", "/organizations/", params={"limit": PAGE}))
            listed = Organizations.model_validate(json_of(answer))
        except (ApiError, ValidationError):
            return None
        if answer.status != httpx.codes.OK or listed.pagination.max_page > 1:
            return None
        return frozenset(str(item.id) for item in listed.items)

    def create_meter(self, body: Mapping[str, Any]) -> LiveMeter:
        """Send the POST once, as soon as a connection can be made.

        The `fate` of a TransientError tells whether the meter may have been created. Only a 201 that shows
        this meter counts as a create: a proxy could return a different meter.
        """
        whole = {**body, **self._organization}
        answer = self._connecting(lambda: self._send("POST", "/meters/", json=whole))
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
            return self._retrying(attempt)
        except StoppedError as error:
            if lost:
                raise lost[-1] from error
            raise

    def _meter_of(self, method: str, meter_id: str, **content: Any) -> LiveMeter:
        meter = meter_from(json_of(self._send(method, f"/meters/{meter_id}", **content)))
        if meter.id != meter_id:
            raise TransientError(f"the response to {method} /v1/meters/{meter_id} is another meter's")
        return meter

    def _list(self, query: Sequence[tuple[str, str]], on_page: OnPage) -> list[LiveMeter]:
        """Read all pages, and start over when the pages are inconsistent.

        A meter that is missed here would be created again.
        """
        return self._completing(lambda: self._pages(query, on_page))

    def _pages(self, query: Sequence[tuple[str, str]], on_page: OnPage) -> list[LiveMeter]:
        found: dict[str, LiveMeter] = {}
        extent: Extent | None = None
        page, last = 1, 1
        while page <= last:
            paging = [("sorting", "created_at"), ("limit", str(PAGE)), ("page", str(page))]
            params = [*paging, *query, *self._organization.items()]
            answer = self._retrying(
                lambda params=params: page_from(json_of(self._send("GET", "/meters/", params=params)))
            )
            # An empty page ends the list, whatever `max_page` says. Example: meters were removed while the
            # list was read.
            last = answer.pagination.max_page if answer.items else 0
            extent = extent or Extent(answer.pagination)
            known = len(found)
            for item in answer.items:
                meter = meter_from(item)
                found.setdefault(meter.id, meter)
            # A page with no new meter means that paging does not advance. Example: a proxy that ignores
            # `page`.
            if answer.items and len(found) == known:
                raise IncompleteError(f"page {page} of Polar's list of meters repeats the pages before it")
            extent.check(last, len(found))
            on_page(page, last)
            page += 1
        if len(found) < answer.pagination.total_count:
            raise IncompleteError("Polar's list of meters repeats some and lacks others")
        return list(found.values())

    def _send(self, method: str, path: str, **content: Any) -> Answer:
        """Send one request and return its 2xx answer. Retries only while Polar limits the rate (429).

        Raises StoppedError, before sending anything, when the run must end.
        """
        while True:
            # A sleep of 0 seconds waits for nothing; it raises StoppedError when the run must end.
            self._clock.sleep(0)
            ticket = self._gate.enter()
            answer = self._exchange(self._http.build_request(method, path, **content))
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

    def _exchange(self, request: httpx.Request) -> Answer:
        """Send one request and read the whole answer before the deadline. Raises only ApiErrors."""
        watch = Watch(fresh=request.method == "POST")
        request.extensions = {**request.extensions, "trace": watch}
        before = request_deadline.set(time.monotonic() + self._timeout)
        try:
            return self._follow(request, watch)
        except httpx.TransportError as error:
            raise no_answer(error, self._http.base_url, watch) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError) as error:
            raise TransientError(
                f"{request_name(request)}: the response cannot be understood: {error}"
            ) from error
        finally:
            request_deadline.reset(before)

    def _follow(self, request: httpx.Request, watch: Watch) -> Answer:
        for _ in range(_MAX_REDIRECTS + 1):
            with closing(self._open(request, watch)) as response:
                answer = read_answer(response)
            if response.next_request is None:
                return answer
            if response.next_request.method != request.method:
                # A 303 turns a PATCH into a GET: it would be answered, but nothing would be changed.
                raise TransientError(f"{answer.request}: the response redirects to something to read instead")
            request = response.next_request
        raise TransientError(f"{answer.request}: the response redirects in a circle")

    def _open(self, request: httpx.Request, watch: Watch) -> httpx.Response:
        while True:
            watch.connected = False
            try:
                return self._http.send(request, stream=True)
            except IdleConnectionError:  # that connection is closed now; the next attempt uses another
                continue

    def _check_redirect(self, response: httpx.Response) -> None:
        """Refuse a redirect that would send the token or a meter to another origin.

        This is a hook because httpx prepares the next request right afterwards. There, an address such as
        `javascript:x` would raise httpx's own error.
        """
        if response.status_code not in _REDIRECTS:
            return
        try:
            told = self._refused(response.request.url, response.headers.get("location", "").strip())
        except (httpx.InvalidURL, ValueError):
            told = "redirects to something that is not a valid address: check POLAR_BASE_URL"
        if told:
            raise ApiError(f"{self._origin} {told}", status=response.status_code)

    def _refused(self, asked: httpx.URL, location: str) -> str | None:
        """Return the reason for not following a redirect, or None to follow it."""
        if not location:
            return "redirects without saying where: check POLAR_BASE_URL"
        target = httpx.URL(location)
        # Example: `javascript:x` has a scheme and no host.
        if target.scheme and not target.host:
            return "redirects to something that is not a valid address: check POLAR_BASE_URL"
        target = asked.join(target)
        if target.userinfo:
            return "redirects to an address that holds a user name: check POLAR_BASE_URL"
        if origin_of(target) != self._origin:
            return (
                f"redirects to {origin_of(target)}, and this tool follows no redirect to another host: set "
                "POLAR_BASE_URL to the right address"
            )
        return None


def check_base_url(url: str, *, allow_http: bool = False) -> str:
    """Return the address without a trailing `/v1`, if it is safe to send a token to.

    Safe means https, or http to this machine only, unless `allow_http` is set. Raises PolarIacError
    otherwise.
    """
    nonsense = PolarIacError("POLAR_BASE_URL holds no address like https://api.polar.sh")
    try:
        parts = urlsplit(url)
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        raise nonsense from None
    more = "@" in parts.netloc or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or more:
        raise nonsense
    if parts.scheme == "http" and not allow_http and parts.hostname not in LOOPBACK:
        raise PolarIacError(
            f"POLAR_BASE_URL would send the token unencrypted to {parts.hostname}: use https, or --allow-http"
        )
    return url.rstrip("/").removesuffix("/v1")
