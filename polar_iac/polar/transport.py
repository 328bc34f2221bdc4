"""One request on the wire: its connection, its deadline, its answer, and whether it may have left."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from polar_iac.polar.errors import Fate, TransientError

if TYPE_CHECKING:
    import httpcore

API_VERSION = "2026-04"
IDLE_SECONDS = 4.0
"""Seconds to keep an idle connection for reuse. Polar closes idle ones after 5 s (observed)."""
IDLE_CONNECTIONS = 20
LARGEST_BODY = 64 * 2**20
"""Maximum size of a decompressed body, in bytes. A page of 100 meters is about 50 KB (observed); a page of
100 large meters is a few MB."""
ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})


class IdleConnectionError(Exception):
    """A request was about to use a connection that was not opened for it."""


request_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))
"""Deadline of this thread's request, by `time.monotonic` (the clock that socket timeouts use)."""


class Watch:
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
        self.peer: tuple[str, int] | None = None
        """Host and port that a connection was last tried to: Polar's, or a proxy's."""

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("connect_tcp.started"):
            self.peer = info["host"], info["port"]
        elif event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self.connected = True
            _bound(info["return_value"])
        elif event.endswith(".send_request_headers.started"):
            self._sending(info["request"])

    def _sending(self, request: httpcore.Request) -> None:
        if request.method == b"CONNECT":
            self.tunneling = True
        elif self._fresh and not self.connected and self._refused < IDLE_CONNECTIONS:
            # The server may be about to close an idle connection. Data sent then is lost, and a lost create
            # requires a lookup. httpcore closes the connection when this error is raised.
            self._refused += 1
            raise IdleConnectionError
        else:
            self.sent = True

    def fate(self, error: httpx.TransportError) -> Fate:
        """Return the request's fate after this error: "not-sent" only with proof, else "lost"."""
        unconnected = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
        never_connected = self.tunneling or isinstance(error, unconnected)
        return "not-sent" if never_connected and not self.sent else "lost"


def _bound(stream: httpcore.NetworkStream) -> None:
    """Stop every read and write on a connection at the deadline of its request.

    httpx limits each read and write separately: a server that sends one byte per second would keep it reading
    forever.
    """
    read, write = stream.read, stream.write

    def read_in_time(max_bytes: int, timeout: float | None = None) -> bytes:
        return read(max_bytes, _remaining(timeout))

    def write_in_time(buffer: bytes, timeout: float | None = None) -> None:
        write(buffer, _remaining(timeout))

    stream.read, stream.write = read_in_time, write_in_time  # type: ignore[method-assign]


def _remaining(timeout: float | None) -> float:
    remaining = request_deadline.get() - time.monotonic()
    if remaining <= 0:
        # Imported late: httpx loads it when it connects, so startup does not pay for it.
        import httpcore

        raise httpcore.ReadTimeout("the whole answer took too long")
    return remaining if timeout is None else min(timeout, remaining)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. `request` names the request, for example `GET /v1/meters/`."""

    request: str
    status: int
    headers: httpx.Headers
    body: bytes


def request_name(request: httpx.Request) -> str:
    """Return the name of a request in messages. Example: `GET /v1/meters/`."""
    return f"{request.method} {request.url.path}"


def read_answer(response: httpx.Response) -> Answer:
    """Read the whole answer. Raises TransientError when a successful one cannot be read."""
    try:
        body = _body(response)
    except TransientError:
        if response.is_success:
            raise
        body = b""  # the status is enough, for example for a 429
    return Answer(request_name(response.request), response.status_code, response.headers, body)


def _body(response: httpx.Response) -> bytes:
    """Return the decompressed body.

    Raises TransientError for a possible decompression bomb: 1 KB compressed twice can hold 1 GB.
    """
    name, body = request_name(response.request), bytearray()
    if response.headers.get("content-encoding", "").strip().lower() not in ENCODINGS:
        raise TransientError(f"{name}: the response is compressed in a way that was not asked for")
    try:
        for part in response.iter_bytes():
            body += part
            if len(body) > LARGEST_BODY:
                raise TransientError(f"{name}: the response is larger than {LARGEST_BODY // 2**20} MiB")
    except httpx.DecodingError as error:
        raise TransientError(f"{name}: the response cannot be decompressed") from error
    return bytes(body)


def origin_of(url: httpx.URL) -> str:
    """Return scheme, host and port: where a token may be sent."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def json_of(answer: Answer) -> Any:
    """Parse the body. Raises TransientError when it is not JSON."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        message = "the response is not valid JSON (truncated, or not from Polar)"
        raise TransientError(f"{answer.request}: {message}") from error
