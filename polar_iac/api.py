"""Polar's meters API over HTTP: paging, retries, and errors in plain words."""

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
"""Meters a list request; Polar clamps a larger limit silently (observed)."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")

_LEAST_WAIT = 0.1
"""Seconds, where a 429 asks for none."""
_ATTEMPTS = 6
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_IDLE_SECONDS = 4.0
"""How long a connection is kept for another request: Polar closes idle ones after 5 s (observed)."""
_IDLE_CONNECTIONS = 20

_LARGEST_BODY = 64 * 2**20
"""Bytes, decompressed. A page of 100 meters has some 50 KB (observed), of 100 large ones a few MB."""
_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})

_MOST_PAGES = 10_000
_MORE_PAGES = 10
_MORE_METERS = 1_000
"""How much a list may grow, besides doubling, while it is read: others may create meters meanwhile."""

OnPage = Callable[[int, int], None]


class ApiError(PolarIacError):
    """Polar, or the way to it, did not do what was asked. `status` is None when there was no answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(ApiError):
    """Polar does not know this meter."""


class InvalidRequestError(ApiError):
    """Polar refused the fields of a request (422). `detail` holds its entries as they came: `loc` with its
    union tags, `msg`, `type`."""

    def __init__(self, message: str, detail: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message, status=422)
        self.detail = tuple(detail)


Fate = Literal["not-sent", "over", "lost"]


class TransientError(ApiError):
    """No usable answer: the same request may succeed later.

    `fate` is what is known of a write, above all of a POST, that came to this:

    - "not-sent": it never left, since no connection was made. Example: connection refused.
    - "over": Polar itself ended it with an error, so it cannot land later; it may have landed before that.
      Example: a 500 with the header `polar-version`.
    - "lost": it left, and no answer of Polar's came. It may have landed, and may yet. Example: a 504.
    """

    def __init__(self, message: str, *, status: int | None = None, fate: Fate = "lost") -> None:
        super().__init__(message, status=status)
        self.fate: Fate = fate


def _was_not_sent(error: BaseException) -> bool:
    return isinstance(error, TransientError) and error.fate == "not-sent"


class _IncompleteError(TransientError):
    """A list lacks some of the meters that it counts, or does not end where it said."""


class PolarClient:
    """The meters of one organization. Safe to share between threads.

    `base_url` is without `/v1`. `organization_id` is sent exactly when the token is not an organization's
    own, since Polar refuses it from those (observed). GET and PATCH are repeated when no usable answer came,
    and `on_retry` is told why; a POST is sent once, and whoever asked decides what a `TransientError` means.
    `timeout` is how many seconds a whole answer may take, redirects included. Whatever a server sends, only
    PolarIacErrors are raised.
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
            # No cookie is kept: one that holds `é` could not be sent back, and would fail every request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            transport=transport,
            # Plain http has no certificate to check, and reading those to trust takes a while. Nothing
            # follows a redirect from it to https: that is another origin.
            verify=address.scheme != "http",
            # What stays on this machine needs no proxy, and a proxy is not to see a token in plain text.
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
        """Every meter, archived ones too, oldest first: one request for each 100.

        `on_page` is told how many pages were read, and of how many.
        """
        return self._list([], on_page)

    def find_by_markers(self, *markers: str) -> list[LiveMeter]:
        """The meters, archived ones too, that bear one of the markers, oldest first; from one replica."""
        return self._list([(f"metadata[{MARKER}]", m) for m in markers], lambda _done, _of: None)

    def now(self) -> datetime:
        """The time by Polar's clock, and no later than that; by this machine's before the first answer."""
        date, arrived = self._answered
        if date is None:
            return datetime.now(UTC)
        return date + timedelta(seconds=time.monotonic() - arrived)

    def get_meter(self, meter_id: str) -> LiveMeter:
        """Raises NotFoundError when Polar does not know the id."""
        return self._retrying(lambda: self._meter_of("GET", meter_id))

    def organization_ids(self) -> frozenset[str] | None:
        """The ids of all organizations that the token may see, or None when Polar does not tell.

        None is usual: the request needs the scope `organizations:read`, which a token for meters lacks. It
        is also the answer where there are more than one page, since some would be missing.
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
        """Send the POST once, where a connection can be made.

        The `fate` of a TransientError tells whether the meter may have been created. Only a 201 with this
        meter counts as made by this request: what a proxy answers may be another.
        """
        whole = {**body, **self._organization}
        answer = self._connecting(lambda: self._send("POST", "/meters/", json=whole))
        meter = _meter(_json(answer))
        wanted = body.get("metadata", {}).get(MARKER)
        if answer.status != httpx.codes.CREATED or meter.marker not in (None, wanted):
            raise TransientError("the response to POST /v1/meters/ does not show the meter that was sent")
        return meter

    def update_meter(self, meter_id: str, body: Mapping[str, Any]) -> LiveMeter:
        """Send a PATCH with exactly `body`; sending it again changes nothing more, so it may be repeated.

        Raises StoppedError only when it was never sent.
        """
        lost: list[TransientError] = []

        def attempt() -> LiveMeter:
            try:
                return self._meter_of("PATCH", meter_id, json=body)
            except TransientError as error:
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
        """All pages; read again when one of them took another's place, since a meter that is overlooked would
        be created again."""
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
            last = answer.pagination.max_page if answer.items else 0
            extent = extent or _Extent(answer.pagination)
            known = len(found)
            for item in answer.items:
                meter = _meter(item)
                found.setdefault(meter.id, meter)
            if answer.items and len(found) == known:
                raise _IncompleteError(f"page {page} of Polar's list of meters repeats the pages before it")
            extent.check(last, len(found))
            on_page(page, last)
            page += 1
        if len(found) < answer.pagination.total_count:
            raise _IncompleteError("Polar's list of meters repeats some and lacks others")
        return list(found.values())

    def _send(self, method: str, path: str, **content: Any) -> _Answer:
        """One request, repeated only while Polar limits the rate: a 2xx answer.

        Nothing is sent once the run is to end: StoppedError.
        """
        while True:
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
        """Remember when Polar answered, by its own clock: this machine's may be wrong."""
        with suppress(ValueError, TypeError, IndexError, OverflowError):
            date = parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else None
            if date is not None and date.tzinfo is not None:
                self._answered = date, time.monotonic()

    def _exchange(self, request: httpx.Request) -> _Answer:
        """Send one request, and read the whole answer in time. Raises ApiErrors only."""
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
                # A PATCH that a 303 turns into a GET would be answered, and never done.
                raise TransientError(f"{answer.request}: the response redirects to something to read instead")
            request = response.next_request
        raise TransientError(f"{answer.request}: the response redirects in a circle")

    def _open(self, request: httpx.Request, watch: _Watch) -> httpx.Response:
        while True:
            watch.connected = False
            try:
                return self._http.send(request, stream=True)
            except _IdleConnectionError:  # it is closed now, so the next one is another
                continue

    def _check_redirect(self, response: httpx.Response) -> None:
        """Refuse to carry the token, or a meter, to where it was not sent to.

        This is a hook, since httpx prepares the next request right after, where `javascript:x` would fail in
        words of its own.
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
        """Why a redirect is not followed, if it is not."""
        if not location:
            return "redirects without saying where: check POLAR_BASE_URL"
        target = httpx.URL(location)
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
    """A request would have gone over a connection that was not made for it."""


_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))
"""When the request of this thread is to be over, by `time.monotonic`: sockets know no other clock."""


class _Watch:
    """Follows one request on the wire; passed to httpcore as its `trace` extension.

    That extension is the documented way to see a connection being made, through a proxy too, so three things
    are done here: every connection gets a deadline, a request that is to be `fresh` is kept off connections
    that were idle, and `sent` says whether it may have left. Where httpcore has other names for its events
    nothing of this happens, and a request counts as not sent only where no connection came about.
    """

    def __init__(self, *, fresh: bool) -> None:
        self._fresh = fresh
        self._refused = 0
        self.connected = False
        """Whether a connection was made for the request."""
        self.tunneling = False
        """Whether a proxy was asked for a connection."""
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
            # The server may be about to close it: what is sent then is lost, and a create that is lost has
            # to be looked for. httpcore closes the connection that this error comes from.
            self._refused += 1
            raise _IdleConnectionError
        else:
            self.sent = True

    def fate(self, error: httpx.TransportError) -> Fate:
        """What is known of the request after this error; not sent only where something shows it."""
        unconnected = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
        shown = self.tunneling or isinstance(error, unconnected)
        return "not-sent" if shown and not self.sent else "lost"


def _bound(stream: httpcore.NetworkStream) -> None:
    """Let no read or write on a connection outlast the request it is for.

    httpx bounds each one alone: a server that sends a byte a second would be listened to for ever.
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
        # Loaded by httpx when it connects, so not at every start.
        import httpcore

        raise httpcore.ReadTimeout("the whole answer took too long")
    return left if timeout is None else min(timeout, left)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer that was read to its end. `request` names what was asked, as in `GET /v1/meters/`."""

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
        body = b""  # the status says what matters, as of a 429
    return _Answer(_name(response.request), response.status_code, response.headers, body)


def _body(response: httpx.Response) -> bytes:
    """The decompressed body. Raises TransientError for what could be a bomb: 1 KB compressed twice holds up
    to 1 GB."""
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
    """How far a list may go, by what its first page says. Example: of 3 pages, up to 16 are read."""

    def __init__(self, first: _Pagination) -> None:
        self._first = first
        self._pages = min(2 * first.max_page + _MORE_PAGES, _MOST_PAGES)
        self._meters = 2 * first.total_count + _MORE_METERS

    def check(self, last: int, meters: int) -> None:
        """Raise when the list claims more pages, or holds more meters, than it can have grown by."""
        if last > self._pages:
            raise _IncompleteError(
                f"Polar's list of meters does not end: of {self._first.max_page} pages on the first, and now "
                f"of {last}, at most {self._pages} are read"
            )
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
    """What a meter's answer must hold besides its spec; fields that this version does not know may come."""

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
    """Read a meter. What this version cannot read of it leaves it without a spec, so that one meter of
    tomorrow does not stop all others. Raises TransientError when the answer is not a meter at all."""
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
        _ = spec.fingerprint  # wrong types inside show here
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, OverflowError):
        return None
    return spec


def _retry_after(answer: _Answer) -> float:
    """Seconds, from either form of the header; Polar's own window when there is none. Never none at all."""
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
    """What an answer that is no success means, in plain words."""
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
    """Whether an error is Polar's own and not a gateway's, behind which the request may still run.

    What Polar does not handle itself it answers in plain text, without its header (observed).
    """
    if answer.status != httpx.codes.INTERNAL_SERVER_ERROR:
        return False
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    unhandled = kind == "text/plain" and answer.body == b"Internal Server Error"
    return unhandled or "polar-version" in answer.headers


def _scope(answer: _Answer) -> str:
    """The missing scope, named in `www-authenticate: Bearer …, scope="meters:write", …` (observed)."""
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
    """An address that a token may be sent to: https, or http to this machine only, unless allowed.

    Raises PolarIacError otherwise.
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
