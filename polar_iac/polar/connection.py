"""Connection to Polar: sends one request, follows its redirects within the origin, and reads the answer."""

from __future__ import annotations

import math
import time
from contextlib import closing
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import httpx

from polar_iac.errors import PolarIacError
from polar_iac.polar.error_answers import no_answer
from polar_iac.polar.errors import ApiError, TransientError
from polar_iac.polar.transport import (
    API_VERSION,
    IDLE_CONNECTIONS,
    IDLE_SECONDS,
    Answer,
    IdleConnectionError,
    Watch,
    origin_of,
    read_answer,
    request_deadline,
    request_name,
)

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Connection:
    """Pool of connections to one origin. Safe to share between threads.

    `base_url` does not include `/v1`. `timeout` is the limit in seconds for a whole answer, including
    redirects. `send` raises only ApiErrors, whatever the server sends.
    """

    def __init__(
        self, base_url: str, token: str, *, transport: httpx.BaseTransport | None, timeout: float
    ) -> None:
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
            limits=httpx.Limits(max_keepalive_connections=IDLE_CONNECTIONS, keepalive_expiry=IDLE_SECONDS),
            event_hooks={"response": [self._check_redirect]},
        )

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, *, within: float = math.inf, **content: Any) -> Answer:
        """Send one request and read the whole answer before the deadline, whatever its status.

        `within` is a limit in seconds for this answer, where it is less than that of the connection.
        """
        seconds = min(within, self._timeout)
        request = self._http.build_request(method, path, timeout=_limits(seconds), **content)
        watch = Watch(fresh=request.method == "POST")
        request.extensions = {**request.extensions, "trace": watch}
        before = request_deadline.set(time.monotonic() + seconds)
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
            problem = self._redirect_problem(
                response.request.url, response.headers.get("location", "").strip()
            )
        except (httpx.InvalidURL, ValueError):
            problem = "redirects to something that is not a valid address: check POLAR_BASE_URL"
        if problem:
            raise ApiError(f"{self._origin} {problem}", status=response.status_code)

    def _redirect_problem(self, requested: httpx.URL, location: str) -> str | None:
        """Return the reason for not following a redirect, or None to follow it."""
        if not location:
            return "redirects without saying where: check POLAR_BASE_URL"
        target = httpx.URL(location)
        # Example: `javascript:x` has a scheme and no host.
        if target.scheme and not target.host:
            return "redirects to something that is not a valid address: check POLAR_BASE_URL"
        target = requested.join(target)
        if target.userinfo:
            return "redirects to an address that holds a user name: check POLAR_BASE_URL"
        if origin_of(target) != self._origin:
            return (
                f"redirects to {origin_of(target)}, and this tool follows no redirect to another host: set "
                "POLAR_BASE_URL to the right address"
            )
        return None


def _limits(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, 10.0))


def check_base_url(url: str, *, allow_http: bool = False) -> str:
    """Return the address without a trailing `/v1`, if it is safe to send a token to.

    Safe means https, or http to this machine only, unless `allow_http` is set. Raises PolarIacError
    otherwise.
    """
    invalid = PolarIacError("POLAR_BASE_URL is not an address like https://api.polar.sh")
    try:
        parts = urlsplit(url)
        port = parts.port  # raises ValueError above 65535
        address = httpx.URL(url)
        # Both raise ValueError for what no resolver takes. Examples: `xn--a`, `a..b`, a label of 64 letters.
        _ = address.host, address.raw_host.decode("ascii").encode("idna")
    except (ValueError, httpx.InvalidURL):
        raise invalid from None
    # Example: https://user:password@api.polar.sh/?team=1#top
    extra = "@" in parts.netloc or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or extra:
        raise invalid
    if parts.scheme == "http" and not allow_http and parts.hostname not in LOOPBACK:
        raise PolarIacError(
            f"POLAR_BASE_URL would send the token unencrypted to {parts.hostname}: use https, or --allow-http"
        )
    return url.rstrip("/").removesuffix("/v1")
