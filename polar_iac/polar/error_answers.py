"""Unsuccessful answers, and requests without one, as errors in plain words."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from polar_iac.polar.errors import ApiError, Fate, InvalidRequestError, NotFoundError, TransientError
from polar_iac.polar.transport import API_VERSION, Answer, Watch

_PROXIES = "HTTPS_PROXY, HTTP_PROXY and ALL_PROXY"


def no_answer(error: httpx.TransportError, base_url: httpx.URL, watch: Watch) -> ApiError:
    """Return the error of a request that got no answer, with what is known of the request's fate."""
    cause, fate = str(error).lower(), watch.fate(error)
    host = base_url.netloc.decode("ascii")
    proxy = _proxy_of(base_url, watch)
    if proxy and not watch.connected and isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return TransientError(f"no connection to the proxy {proxy} (see {_PROXIES}): {error}", fate=fate)
    if isinstance(error, httpx.TimeoutException):
        return TransientError(f"{host} did not answer in time", fate=fate)
    untrusted = any(sign in cause for sign in ("certificate", "wrong_version"))
    if untrusted and isinstance(error, httpx.ConnectError):
        return ApiError(f"no trusted TLS connection to {host}: {error}")
    if isinstance(error, httpx.UnsupportedProtocol):
        return ApiError(f"{host} cannot be asked: {error}")
    if isinstance(error, httpx.ProxyError):
        return TransientError(f"the proxy {proxy or ''} refuses a connection to {host}: {error}", fate=fate)
    if any(sign in cause for sign in ("name or service", "getaddrinfo", "nodename", "name resolution")):
        message = f"the host {host} cannot be found: check the network and POLAR_BASE_URL"
        return TransientError(message, fate=fate)
    if isinstance(error, httpx.ConnectError):
        return TransientError(f"no connection to {host}: {error}", fate=fate)
    return TransientError(f"the connection to {host} broke before the answer came", fate=fate)


def _proxy_of(base_url: httpx.URL, watch: Watch) -> str | None:
    """Return host and port of the proxy that a request went to, or None where it went to Polar itself."""
    port = base_url.port or {"http": 80, "https": 443}.get(base_url.scheme)
    if watch.peer is None or watch.peer == (base_url.raw_host.decode("ascii"), port):
        return None
    return "{}:{}".format(*watch.peer)


def error_from(answer: Answer) -> ApiError:
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
        detail = detail_of(answer)
        # Example: `{"loc": ["body", "name"], "msg": "Too short"}` reads "body.name: Too short".
        problems = (
            ".".join(map(str, entry["loc"])) + ": " + " ".join(entry["msg"].split()) for entry in detail
        )
        reasons = "; ".join(problems) or "no reason given"
        return InvalidRequestError(f"Polar refused {request}: {reasons}", detail)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.REQUEST_TIMEOUT:
        fate: Fate = "over" if _ended_by_polar(answer) else "lost"
        return TransientError(f"{request}: Polar failed with status {status}", status=status, fate=fate)
    return ApiError(f"{request}: Polar answered with status {status}", status=status)


def _ended_by_polar(answer: Answer) -> bool:
    """Tell whether Polar itself produced this error.

    A gateway's error does not end the request, which may still be running behind it. Polar answers errors
    that it does not handle in plain text, without its header (observed).
    """
    if answer.status != httpx.codes.INTERNAL_SERVER_ERROR:
        return False
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    unhandled = kind == "text/plain" and answer.body == b"Internal Server Error"
    return unhandled or "polar-version" in answer.headers


def _scope(answer: Answer) -> str:
    """Return the missing scope.

    Polar names it in `www-authenticate: Bearer …, scope="meters:write", …` (observed).
    """
    header = answer.headers.get("www-authenticate", "")
    _, start, rest = header.partition('scope="')
    return rest.partition('"')[0] if start else "meters:read or meters:write"


class _Problem(BaseModel):
    loc: list[str | int]
    msg: str
    type: str


class _Unprocessable(BaseModel):
    detail: list[_Problem]


def detail_of(answer: Answer) -> list[dict[str, Any]]:
    """Return the entries of a 422, or an empty list when the body is not Polar's."""
    try:
        return [entry.model_dump() for entry in _Unprocessable.model_validate_json(answer.body).detail]
    except ValidationError:
        return []
