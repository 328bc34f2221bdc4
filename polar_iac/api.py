"""Polar's meters API over HTTP: paging, retries, and errors in plain words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import tenacity
from pydantic import AwareDatetime, BaseModel, ValidationError

from polar_iac.errors import PolarIacError
from polar_iac.meter import MARKER, LiveMeter, MeterSpec
from polar_iac.waiting import Clock, RateGate, StoppedError, SystemClock

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


class TransientError(ApiError):
    """No usable answer: the same request may succeed later. A write may have been done all the same."""


class _IncompleteError(TransientError):
    """A list lacks some of the meters that it counts."""


class PolarClient:
    """The meters of one organisation. Safe to share between threads.

    `base_url` is without `/v1`. `organization_id` is sent exactly when the token is not an organisation's
    own, since Polar refuses it from those (observed). GET and PATCH are repeated when no usable answer came,
    and `on_retry` is told why; a POST is sent once, and whoever asked decides what a `TransientError` means.
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
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=retry_wait, max=25 * retry_wait),
            sleep=self._clock.sleep,
            before_sleep=lambda state: on_retry(str(state.outcome and state.outcome.exception())),
            reraise=True,
        )
        self._completing = self._retrying.copy(retry=tenacity.retry_if_exception_type(_IncompleteError))
        address = httpx.URL(base_url)
        self._origin = _origin(address)
        self._http = httpx.Client(
            base_url=base_url.rstrip("/") + "/v1",
            headers={
                "Authorization": f"Bearer {token}",
                "Polar-Version": API_VERSION,
                "User-Agent": "polar-iac",
                "Accept": "application/json",
            },
            transport=transport,
            # Plain http has no certificate to check, and reading those to trust takes a while. Nothing
            # follows a redirect from it to https: that is another origin.
            verify=address.scheme != "http",
            # What stays on this machine needs no proxy, and a proxy is not to see a token in plain text.
            trust_env=address.scheme != "http" or address.host not in LOOPBACK,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            follow_redirects=True,
            max_redirects=_MAX_REDIRECTS,
            event_hooks={"request": [self._stay_home]},
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

    def get_meter(self, meter_id: str) -> LiveMeter:
        """Raises NotFoundError when Polar does not know the id."""
        return self._retrying(lambda: self._meter_of("GET", meter_id))

    def create_meter(self, body: Mapping[str, Any]) -> LiveMeter:
        """Send the POST once. A TransientError leaves open whether the meter was created.

        Only a 201 with this meter counts as made by this request: what a proxy answers may be another.
        """
        response = self._send("POST", "/meters/", json={**body, **self._organization})
        meter = _meter(_json(response))
        wanted = body.get("metadata", {}).get(MARKER)
        if response.status_code != httpx.codes.CREATED or meter.marker not in (None, wanted):
            raise TransientError("the answer to POST /v1/meters/ is not that of the meter that was sent")
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
            raise TransientError(f"the answer to {method} /v1/meters/{meter_id} is another meter's")
        return meter

    def _list(self, query: Sequence[tuple[str, str]], on_page: OnPage) -> list[LiveMeter]:
        """All pages; read again when one of them took another's place, since a meter that is overlooked would
        be created again."""
        return self._completing(lambda: self._pages(query, on_page))

    def _pages(self, query: Sequence[tuple[str, str]], on_page: OnPage) -> list[LiveMeter]:
        found: dict[str, LiveMeter] = {}
        page, last = 1, 1
        while page <= last:
            paging = [("sorting", "created_at"), ("limit", str(PAGE)), ("page", str(page))]
            params = [*paging, *query, *self._organization.items()]
            answer = self._retrying(
                lambda params=params: _page(_json(self._send("GET", "/meters/", params=params)))
            )
            last = answer.pagination.max_page if answer.items else 0
            for item in answer.items:
                meter = _meter(item)
                found.setdefault(meter.id, meter)
            on_page(page, last)
            page += 1
        if len(found) < answer.pagination.total_count:
            raise _IncompleteError("Polar's list of meters repeats some and lacks others")
        return list(found.values())

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        """One request, repeated only while Polar limits the rate: a 2xx answer.

        Nothing is sent once the run is to end: StoppedError.
        """
        while True:
            self._clock.sleep(0)
            ticket = self._gate.enter()
            try:
                response = self._http.request(method, path, **content)
            except httpx.TooManyRedirects as error:
                raise TransientError(f"{method} {path}: the answer redirects in a circle") from error
            except httpx.TransportError as error:
                raise _no_answer(error, self._http.base_url) from error
            except httpx.DecodingError as error:
                raise TransientError(f"{method} {path}: Polar's answer cannot be decompressed") from error
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                self._gate.limited(ticket, _retry_after(response))
                continue
            self._gate.passed(ticket)
            if not response.is_success:
                raise _error(response)
            return response

    def _stay_home(self, request: httpx.Request) -> None:
        """Refuse to carry the token, or a meter, to where it was not sent to."""
        if _origin(request.url) != self._origin:
            raise ApiError(
                f"{self._origin} redirects to {_origin(request.url)}, and this tool follows no redirect to "
                "another host: set POLAR_BASE_URL to the right address"
            )


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        request = f"{response.request.method} {response.request.url.path}"
        raise TransientError(f"{request}: Polar's answer is no JSON: cut short, or not Polar's") from error


class _Pagination(BaseModel):
    total_count: int = 0
    max_page: int


class _Page(BaseModel):
    items: list[dict[str, Any]]
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
        raise TransientError("Polar's answer is no list of meters: cut short, or not Polar's") from error


def _meter(answer: Any) -> LiveMeter:
    try:
        identity = _Identity.model_validate(answer)
        spec = MeterSpec.from_json(answer)
        marker = answer.get("metadata", {}).get(MARKER)
        _ = spec.fingerprint  # wrong types inside show here
        return LiveMeter(
            id=str(identity.id),
            organization_id=str(identity.organization_id),
            created_at=_instant(identity.created_at),
            archived_at=None if identity.archived_at is None else _instant(identity.archived_at),
            marker=None if marker is None else str(marker),
            spec=spec,
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, OverflowError) as error:
        raise TransientError("Polar's answer is no meter: cut short, or not Polar's") from error


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _retry_after(response: httpx.Response) -> float:
    """Seconds, from either form of the header; Polar's own window when there is none. Never none at all."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(max(float(text), _LEAST_WAIT), 3600.0)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return 60.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((at - datetime.now(UTC)).total_seconds(), 1.0), 3600.0)


def _no_answer(error: httpx.TransportError, base_url: httpx.URL) -> ApiError:
    cause = str(error).lower()
    host = base_url.netloc.decode("ascii")
    if isinstance(error, httpx.TimeoutException):
        return TransientError(f"{host} did not answer in time")
    # Before there is a connection nothing was sent; what breaks later leaves open what was done.
    untrusted = any(sign in cause for sign in ("certificate", "wrong_version"))
    if untrusted and isinstance(error, httpx.ConnectError):
        return ApiError(f"no trusted TLS connection to {host}: {error}")
    if isinstance(error, httpx.UnsupportedProtocol):
        return ApiError(f"{host} cannot be asked: {error}")
    if any(sign in cause for sign in ("name or service", "getaddrinfo", "nodename", "name resolution")):
        return TransientError(f"the host {host} cannot be found: check the network and POLAR_BASE_URL")
    if isinstance(error, httpx.ConnectError):
        return TransientError(f"no connection to {host}: {error}")
    return TransientError(f"the connection to {host} broke before the answer came")


def _error(response: httpx.Response) -> ApiError:
    """What an answer that is no success means, in plain words."""
    status, request = response.status_code, f"{response.request.method} {response.request.url.path}"
    if status == httpx.codes.UNAUTHORIZED:
        return ApiError(
            "Polar does not accept the token: it is wrong, expired or revoked, or of another environment "
            "(sandbox and production have their own)",
            status=status,
        )
    if status == httpx.codes.FORBIDDEN:
        return ApiError(f"the token may not do this: it lacks the scope {_scope(response)}", status=status)
    if status == httpx.codes.NOT_FOUND:
        if "polar-version" not in response.headers or b"ResourceNotFound" not in response.content:
            return ApiError(
                f"{request}: not found, and the answer does not look like Polar {API_VERSION}: "
                "check POLAR_BASE_URL",
                status=status,
            )
        return NotFoundError(f"{request}: Polar knows no such meter", status=status)
    if status == httpx.codes.UNPROCESSABLE_ENTITY:
        detail = _detail(response)
        places = (
            ".".join(map(str, entry["loc"])) + ": " + " ".join(entry["msg"].split()) for entry in detail
        )
        told = "; ".join(places) or "no reason given"
        return InvalidRequestError(f"Polar refused {request}: {told}", detail)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.REQUEST_TIMEOUT:
        return TransientError(f"{request}: Polar failed with status {status}", status=status)
    return ApiError(f"{request}: Polar answered with status {status}", status=status)


def _scope(response: httpx.Response) -> str:
    """The missing scope, named in `www-authenticate: Bearer …, scope="meters:write", …` (observed)."""
    header = response.headers.get("www-authenticate", "")
    _, found, rest = header.partition('scope="')
    return rest.partition('"')[0] if found else "meters:read or meters:write"


class _Problem(BaseModel):
    loc: list[str | int]
    msg: str
    type: str


class _Unprocessable(BaseModel):
    detail: list[_Problem]


def _detail(response: httpx.Response) -> list[dict[str, Any]]:
    try:
        return [entry.model_dump() for entry in _Unprocessable.model_validate_json(response.content).detail]
    except ValidationError:
        return []


def check_base_url(url: str, *, allow_http: bool = False) -> str:
    """An address that a token may be sent to: https, or http to this machine only, unless allowed.

    Raises PolarIacError otherwise.
    """
    nonsense = PolarIacError("POLAR_BASE_URL is no address like https://api.polar.sh")
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
