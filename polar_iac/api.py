"""HTTP client for Polar's meters API: paging, retries, and readable errors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import tenacity
from pydantic import AwareDatetime, BaseModel, ValidationError

from polar_iac.errors import PolarIacError
from polar_iac.meter import MARKER, LiveMeter, MeterSpec, instant, is_known
from polar_iac.waiting import Clock, RateGate, StoppedError, SystemClock

if TYPE_CHECKING:
    import httpcore

API_VERSION = "2026-04"
BASE_URLS = {"production": "https://api.polar.sh", "sandbox": "https://sandbox-api.polar.sh"}
ORGANIZATION_TOKEN = "polar_oat_"  # noqa: S105  a prefix, no secret
PAGE = 100
"""Meters per list request. Polar silently clamps a larger limit (observed)."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")

_LEAST_WAIT = 0.1
"""Minimum wait in seconds after a 429 that asks for no wait."""
_ATTEMPTS = 6
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_IDLE_SECONDS = 4.0
"""Seconds to keep an idle connection for reuse. Polar closes idle ones after 5 s (observed)."""
_IDLE_CONNECTIONS = 20

_LARGEST_BODY = 64 * 2**20
"""Maximum size of a decompressed body, in bytes. A page of 100 meters is about 50 KB (observed); a page of
100 large meters is a few MB."""
_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})

_MOST_PAGES = 10_000
_MORE_PAGES = 10
_MORE_METERS = 1_000
"""Allowed growth of a list while it is read, in addition to doubling. Other clients may create meters at the
same time."""

OnPage = Callable[[int, int], None]


class ApiError(PolarIacError):
    """A request to Polar failed, or could not reach Polar. `status` is None when there was no answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(ApiError):
    """The meter id is unknown to Polar (404)."""


class InvalidRequestError(ApiError):
    """Polar rejected the fields of a request (422).

    `detail` holds Polar's entries unchanged: `loc` (including union tags), `msg`, `type`.
    """

    def __init__(self, message: str, detail: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message, status=422)
        self.detail = tuple(detail)


Fate = Literal["not-sent", "over", "lost"]


class TransientError(ApiError):
    """No usable answer. The same request may succeed later.

    `fate` says what is known about a write, most importantly a POST, that failed this way:

    - "not-sent": the request was never sent, because no connection was made. Example: connection refused.
    - "over": Polar itself ended the request with an error, so it cannot take effect later. It may have taken
      effect
    before the error. Example: a 500 with the header `polar-version`.
    - "lost": the request was sent, and no answer from Polar arrived. It may have taken effect, or may still
      do so.
    Example: a 504.
    """

    def __init__(self, message: str, *, status: int | None = None, fate: Fate = "lost") -> None:
        super().__init__(message, status=status)
        self.fate: Fate = fate


def _was_not_sent(error: BaseException) -> bool:
    return isinstance(error, TransientError) and error.fate == "not-sent"


class _IncompleteError(TransientError):
    """The list is missing meters that its count includes, or does not end where it should."""


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
        self._completing = self._retrying.copy(retry=tenacity.retry_if_exception_type(_IncompleteError))
        self._connecting = self._retrying.copy(retry=tenacity.retry_if_exception(_was_not_sent))
        address = httpx.URL(base_url)
        self._origin = _origin(address)
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
            limits=httpx.Limits(max_keepalive_connections=_IDLE_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS),
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
            listed = _Organizations.model_validate(_json(answer))
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
        meter = _meter(_json(answer))
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
        meter = _meter(_json(self._send(method, f"/meters/{meter_id}", **content)))
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
        extent: _Extent | None = None
        page, last = 1, 1
        while page <= last:
            paging = [("sorting", "created_at"), ("limit", str(PAGE)), ("page", str(page))]
            params = [*paging, *query, *self._organization.items()]
            answer = self._retrying(
                lambda params=params: _page(_json(self._send("GET", "/meters/", params=params)))
            )
            # An empty page ends the list, whatever `max_page` says. Example: meters were removed while the
            # list was read.
            last = answer.pagination.max_page if answer.items else 0
            extent = extent or _Extent(answer.pagination)
            known = len(found)
            for item in answer.items:
                meter = _meter(item)
                found.setdefault(meter.id, meter)
            # A page with no new meter means that paging does not advance. Example: a proxy that ignores
            # `page`.
            if answer.items and len(found) == known:
                raise _IncompleteError(f"page {page} of Polar's list of meters repeats the pages before it")
            extent.check(last, len(found))
            on_page(page, last)
            page += 1
        if len(found) < answer.pagination.total_count:
            raise _IncompleteError("Polar's list of meters repeats some and lacks others")
        return list(found.values())

    def _send(self, method: str, path: str, **content: Any) -> _Answer:
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
                self._gate.limited(ticket, _retry_after(answer))
                continue
            self._gate.passed(ticket)
            if not httpx.codes.is_success(answer.status):
                raise _error(answer)
            return answer

    def _note_time(self, answer: _Answer) -> None:
        """Remember the time of this answer by Polar's clock, because the local clock may be wrong."""
        with suppress(ValueError, TypeError, IndexError, OverflowError):
            date = parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else None
            if date is not None and date.tzinfo is not None:
                self._answered = date, time.monotonic()

    def _exchange(self, request: httpx.Request) -> _Answer:
        """Send one request and read the whole answer before the deadline. Raises only ApiErrors."""
        watch = _Watch(fresh=request.method == "POST")
        request.extensions = {**request.extensions, "trace": watch}
        before = _deadline.set(time.monotonic() + self._timeout)
        try:
            return self._follow(request, watch)
        except httpx.TransportError as error:
            raise _no_answer(error, self._http.base_url, watch) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError) as error:
            raise TransientError(f"{_name(request)}: the response cannot be understood: {error}") from error
        finally:
            _deadline.reset(before)

    def _follow(self, request: httpx.Request, watch: _Watch) -> _Answer:
        for _ in range(_MAX_REDIRECTS + 1):
            with closing(self._open(request, watch)) as response:
                answer = _read(response)
            if response.next_request is None:
                return answer
            if response.next_request.method != request.method:
                # A 303 turns a PATCH into a GET: it would be answered, but nothing would be changed.
                raise TransientError(f"{answer.request}: the response redirects to something to read instead")
            request = response.next_request
        raise TransientError(f"{answer.request}: the response redirects in a circle")

    def _open(self, request: httpx.Request, watch: _Watch) -> httpx.Response:
        while True:
            watch.connected = False
            try:
                return self._http.send(request, stream=True)
            except _IdleConnectionError:  # that connection is closed now; the next attempt uses another
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
        if _origin(target) != self._origin:
            return (
                f"redirects to {_origin(target)}, and this tool follows no redirect to another host: set "
                "POLAR_BASE_URL to the right address"
            )
        return None


class _IdleConnectionError(Exception):
    """A request was about to use a connection that was not opened for it."""


_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))
"""Deadline of this thread's request, by `time.monotonic` (the clock that socket timeouts use)."""


class _Watch:
    """Observer of one request on the wire, passed to httpcore as its `trace` extension.

    That extension is the documented way to see connections being made, including through a proxy. It does
    three things: it sets a deadline on every connection, keeps a `fresh` request off idle connections, and
    records in `sent` whether the request may have left. If httpcore renames its events, none of this happens;
    a request then counts as not sent only when no connection was made.
    """

    def __init__(self, *, fresh: bool) -> None:
        self._fresh = fresh
        self._refused = 0
        self.connected = False
        """True once a connection was made for the request."""
        self.tunneling = False
        """True once a proxy was asked for a connection."""
        self.sent = False

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self.connected = True
            _bound(info["return_value"])
        elif event.endswith(".send_request_headers.started"):
            self._sending(info["request"])

    def _sending(self, request: httpcore.Request) -> None:
        if request.method == b"CONNECT":
            self.tunneling = True
        elif self._fresh and not self.connected and self._refused < _IDLE_CONNECTIONS:
            # The server may be about to close an idle connection. Data sent then is lost, and a lost create
            # requires a lookup. httpcore closes the connection when this error is raised.
            self._refused += 1
            raise _IdleConnectionError
        else:
            self.sent = True

    def fate(self, error: httpx.TransportError) -> Fate:
        """Return the request's fate after this error: "not-sent" only with proof, else "lost"."""
        unconnected = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
        shown = self.tunneling or isinstance(error, unconnected)
        return "not-sent" if shown and not self.sent else "lost"


def _bound(stream: httpcore.NetworkStream) -> None:
    """Stop every read and write on a connection at the deadline of its request.

    httpx limits each read and write separately: a server that sends one byte per second would keep it reading
    forever.
    """
    read, write = stream.read, stream.write

    def read_in_time(max_bytes: int, timeout: float | None = None) -> bytes:
        return read(max_bytes, _left(timeout))

    def write_in_time(buffer: bytes, timeout: float | None = None) -> None:
        write(buffer, _left(timeout))

    stream.read, stream.write = read_in_time, write_in_time  # type: ignore[method-assign]


def _left(timeout: float | None) -> float:
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        # Imported late: httpx loads it when it connects, so startup does not pay for it.
        import httpcore

        raise httpcore.ReadTimeout("the whole answer took too long")
    return left if timeout is None else min(timeout, left)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A complete answer. `request` names the request, for example `GET /v1/meters/`."""

    request: str
    status: int
    headers: httpx.Headers
    body: bytes


def _name(request: httpx.Request) -> str:
    return f"{request.method} {request.url.path}"


def _read(response: httpx.Response) -> _Answer:
    try:
        body = _body(response)
    except TransientError:
        if response.is_success:
            raise
        body = b""  # the status is enough, for example for a 429
    return _Answer(_name(response.request), response.status_code, response.headers, body)


def _body(response: httpx.Response) -> bytes:
    """Return the decompressed body.

    Raises TransientError for a possible decompression bomb: 1 KB compressed twice can hold 1 GB.
    """
    name, body = _name(response.request), bytearray()
    if response.headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
        raise TransientError(f"{name}: the response is compressed in a way that was not asked for")
    try:
        for part in response.iter_bytes():
            body += part
            if len(body) > _LARGEST_BODY:
                raise TransientError(f"{name}: the response is larger than {_LARGEST_BODY // 2**20} MiB")
    except httpx.DecodingError as error:
        raise TransientError(f"{name}: the response cannot be decompressed") from error
    return bytes(body)


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _json(answer: _Answer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        told = "the response is not valid JSON (truncated, or not from Polar)"
        raise TransientError(f"{answer.request}: {told}") from error


class _Pagination(BaseModel):
    total_count: int = 0
    max_page: int


class _Page(BaseModel):
    items: list[dict[str, Any]]
    pagination: _Pagination


class _Extent:
    """Limits on how far a list may grow while it is read.

    Example: for 3 pages on the first, up to 16 are read.
    """

    def __init__(self, first: _Pagination) -> None:
        self._first = first
        self._pages = min(2 * first.max_page + _MORE_PAGES, _MOST_PAGES)
        self._meters = 2 * first.total_count + _MORE_METERS

    def check(self, last: int, meters: int) -> None:
        """Raise _IncompleteError when the list has implausibly many pages or meters."""
        if last > self._pages:
            raise _IncompleteError(
                f"Polar's list of meters does not end: of {self._first.max_page} pages on the first, and now "
                f"of {last}, at most {self._pages} are read"
            )
        # A missing `total_count` also reads as 0, so 0 is not usable as a limit.
        if self._first.total_count and meters > self._meters:
            raise _IncompleteError(
                f"Polar's list of meters does not end: it counted {self._first.total_count} meters, and "
                f"{meters} have come"
            )


class _Organization(BaseModel):
    id: UUID


class _Organizations(BaseModel):
    items: list[_Organization]
    pagination: _Pagination


class _Identity(BaseModel):
    """Fields that every meter must have in addition to its spec. Unknown fields are ignored."""

    id: UUID
    organization_id: UUID
    created_at: AwareDatetime
    archived_at: AwareDatetime | None = None


def _page(answer: Any) -> _Page:
    try:
        return _Page.model_validate(answer)
    except ValidationError as error:
        told = "the response is not a list of meters (truncated, or not from Polar)"
        raise TransientError(told) from error


def _meter(answer: Any) -> LiveMeter:
    """Parse a meter.

    If this version cannot read the spec, `spec` is None, so that one meter of a future kind does not block
    all others. Raises TransientError when the answer is not a meter at all.
    """
    try:
        identity = _Identity.model_validate(answer)
        metadata = answer.get("metadata")
        marker = metadata.get(MARKER) if isinstance(metadata, dict) else None
        return LiveMeter(
            id=str(identity.id),
            organization_id=str(identity.organization_id),
            created_at=instant(identity.created_at),
            archived_at=None if identity.archived_at is None else instant(identity.archived_at),
            marker=None if marker is None else str(marker),
            spec=_spec(answer),
            label=str(answer.get("name", "")),
        )
    except (TypeError, AttributeError, ValueError, RecursionError, OverflowError) as error:
        raise TransientError("the response is not a meter (truncated, or not from Polar)") from error


def _spec(answer: Mapping[str, Any]) -> MeterSpec | None:
    try:
        if not is_known(answer["filter"], answer["aggregation"]):
            return None
        spec = MeterSpec.from_json(answer)
        _ = spec.fingerprint  # forces the canonical form, so wrong types inside raise here
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, OverflowError):
        return None
    return spec


def _retry_after(answer: _Answer) -> float:
    """Return the seconds to wait, from either form of the header (number or date).

    Without a usable header the result is 60 seconds, Polar's own window. The result is never 0.
    """
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(max(float(text), _LEAST_WAIT), 3600.0)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return 60.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((at - datetime.now(UTC)).total_seconds(), 1.0), 3600.0)


def _no_answer(error: httpx.TransportError, base_url: httpx.URL, watch: _Watch) -> ApiError:
    cause, fate = str(error).lower(), watch.fate(error)
    host = base_url.netloc.decode("ascii")
    if isinstance(error, httpx.TimeoutException):
        return TransientError(f"{host} did not answer in time", fate=fate)
    untrusted = any(sign in cause for sign in ("certificate", "wrong_version"))
    if untrusted and isinstance(error, httpx.ConnectError):
        return ApiError(f"no trusted TLS connection to {host}: {error}")
    if isinstance(error, httpx.UnsupportedProtocol):
        return ApiError(f"{host} cannot be asked: {error}")
    if isinstance(error, httpx.ProxyError):
        return TransientError(f"the proxy refuses a connection to {host}: {error}", fate=fate)
    if any(sign in cause for sign in ("name or service", "getaddrinfo", "nodename", "name resolution")):
        told = f"the host {host} cannot be found: check the network and POLAR_BASE_URL"
        return TransientError(told, fate=fate)
    if isinstance(error, httpx.ConnectError):
        return TransientError(f"no connection to {host}: {error}", fate=fate)
    return TransientError(f"the connection to {host} broke before the answer came", fate=fate)


def _error(answer: _Answer) -> ApiError:
    """Translate an unsuccessful answer into an error with a readable message."""
    status, request = answer.status, answer.request
    if status == httpx.codes.UNAUTHORIZED:
        return ApiError(
            "Polar does not accept the token: it is wrong, expired or revoked, or of another environment "
            "(sandbox and production have their own)",
            status=status,
        )
    if status == httpx.codes.FORBIDDEN:
        return ApiError(f"the token may not do this: it lacks the scope {_scope(answer)}", status=status)
    if status == httpx.codes.NOT_FOUND:
        # Only Polar's own 404 means "no such meter". Example: a wrong POLAR_BASE_URL gets a 404 from any web
        # server.
        if "polar-version" not in answer.headers or b"ResourceNotFound" not in answer.body:
            return ApiError(
                f"{request}: not found, and the answer does not look like Polar {API_VERSION}: "
                "check POLAR_BASE_URL",
                status=status,
            )
        return NotFoundError(f"{request}: Polar knows no such meter", status=status)
    if status == httpx.codes.UNPROCESSABLE_ENTITY:
        detail = _detail(answer)
        places = (
            ".".join(map(str, entry["loc"])) + ": " + " ".join(entry["msg"].split()) for entry in detail
        )
        told = "; ".join(places) or "no reason given"
        return InvalidRequestError(f"Polar refused {request}: {told}", detail)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.REQUEST_TIMEOUT:
        fate: Fate = "over" if _ended_by_polar(answer) else "lost"
        return TransientError(f"{request}: Polar failed with status {status}", status=status, fate=fate)
    return ApiError(f"{request}: Polar answered with status {status}", status=status)


def _ended_by_polar(answer: _Answer) -> bool:
    """Tell whether Polar itself produced this error.

    A gateway's error does not end the request, which may still be running behind it. Polar answers errors
    that it does not handle in plain text, without its header (observed).
    """
    if answer.status != httpx.codes.INTERNAL_SERVER_ERROR:
        return False
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    unhandled = kind == "text/plain" and answer.body == b"Internal Server Error"
    return unhandled or "polar-version" in answer.headers


def _scope(answer: _Answer) -> str:
    """Return the missing scope.

    Polar names it in `www-authenticate: Bearer …, scope="meters:write", …` (observed).
    """
    header = answer.headers.get("www-authenticate", "")
    _, found, rest = header.partition('scope="')
    return rest.partition('"')[0] if found else "meters:read or meters:write"


class _Problem(BaseModel):
    loc: list[str | int]
    msg: str
    type: str


class _Unprocessable(BaseModel):
    detail: list[_Problem]


def _detail(answer: _Answer) -> list[dict[str, Any]]:
    try:
        return [entry.model_dump() for entry in _Unprocessable.model_validate_json(answer.body).detail]
    except ValidationError:
        return []


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
