"""The WSGI application: routes, tokens, rate limits, the order of checks, and answers."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

from pydantic import BaseModel

from polar_iac.local import validation
from polar_iac.local.meters import Meters, NotFoundError, ServerError
from polar_iac.local.request_errors import ErrorEntry, RequestError, polar_error
from polar_iac.local.store import Store
from polar_iac.sanitize import printable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_log = logging.getLogger(__name__)

DEFAULT_VERSION = "2026-04"
VERSIONS = (DEFAULT_VERSION, "2026-10", "2027-01")
"""Versions with the same bodies of meters. The newest SDK sends the last one."""

MAX_BODY = 10 * 1024 * 1024

READ, WRITE = "meters:read", "meters:write"

_ROUTE = re.compile(r"/v1/meters/(?P<id>[^/]*)")
_ORIGIN = re.compile(r"\Ahttps?://[^/]*", re.IGNORECASE)
_REALM = 'Bearer realm="polar"'


@dataclass(frozen=True)
class RateLimit:
    """Limit of `requests` per `window` seconds. A window begins with its first request (observed)."""

    requests: int
    window: float = 60.0
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


_BROKEN = _Answer(500, b"Internal Server Error", (("content-type", "text/plain; charset=utf-8"),))


class _AnswerError(Exception):
    """Signal that ends a request with this answer."""

    def __init__(self, answer: _Answer) -> None:
        self.answer = answer
        super().__init__(answer.status)


@dataclass(frozen=True)
class _Subject:
    """The owner of a token: the organization itself, or a person who may see it."""

    kind: str
    scopes: frozenset[str]


@dataclass
class _Window:
    began: float
    requests: int = 0


_BOTH = frozenset({READ, WRITE})
_SUBJECTS: tuple[tuple[re.Pattern[str], _Subject | None], ...] = (
    (re.compile(r"polar_oat_expired_.*|polar_oat_0+"), None),
    (re.compile(r"polar_oat_ro_.*"), _Subject("organization", frozenset({READ}))),
    (re.compile(r"polar_oat_wo_.*"), _Subject("organization", frozenset({WRITE}))),
    (re.compile(r"polar_oat_noscope_.*"), _Subject("organization", frozenset())),
    (re.compile(r"polar_oat_.*"), _Subject("organization", _BOTH)),
    (re.compile(r"polar_pat_.*"), _Subject("user", _BOTH)),
)


class _Request:
    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path = _path(environ)
        self.query: str = environ.get("QUERY_STRING", "")

    def header(self, name: str) -> str:
        return str(self.environ.get("HTTP_" + name.upper().replace("-", "_"), ""))

    @property
    def content_length(self) -> int | None:
        text = self.environ.get("CONTENT_LENGTH", "")
        return int(text) if text.isdecimal() else None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query, keep_blank_values=True)

    @property
    def token(self) -> str | None:
        """Return the bearer token, or None. Another scheme counts as no token (read)."""
        scheme, _, token = self.header("authorization").partition(" ")
        token = token.strip()
        return token if scheme.lower() == "bearer" and token and token.isascii() else None

    def read_body(self) -> object:
        """Read the body: JSON data if its content type says so, otherwise bytes. None when empty."""
        data: bytes = self.environ["wsgi.input"].read(self.content_length or 0)
        media = Message()
        media["content-type"] = self.environ.get("CONTENT_TYPE", "")
        subtype = media.get_content_subtype()
        if media.get_content_maintype() != "application" or not (
            subtype == "json" or subtype.endswith("+json")
        ):
            return data or None
        try:
            return validation.read_json(data)
        except (ValueError, RecursionError):
            raise _AnswerError(_json(400, {"detail": "There was an error parsing the body"})) from None

    def url(self, path: str) -> str:
        """Return the absolute URL of a path on this host, as Starlette writes it for a redirect (read)."""
        host = self.header("host") or f"{self.environ['SERVER_NAME']}:{self.environ['SERVER_PORT']}"
        url = f"{self.environ['wsgi.url_scheme']}://{host}{path}" + (f"?{self.query}" if self.query else "")
        return quote(url, safe=":/%#?=@[]!$&'()*+,;")


def _path(environ: WSGIEnvironment) -> str:
    # Prefer the raw path: servers differ in what they decode, and in PATH_INFO `a%2Fb` has become `a/b`.
    if raw := environ.get("REQUEST_URI"):
        # A client of a proxy sends the whole URL. `//v1` is a path, not a host.
        return unquote(_ORIGIN.sub("", raw.partition("?")[0])) or "/"
    path: str = environ["PATH_INFO"]
    try:
        return path.encode("latin-1").decode()
    except UnicodeError:
        return path  # already decoded, for example by httpx


class LocalPolar:
    """The embedded Polar, a WSGI application.

    A database holds one organization. Its id is chosen when the database is created and is stored there.
    Threads and processes may share a database. Rate limits are off by default and count the requests of this
    process only.
    """

    organization_id: str

    def __init__(
        self,
        path: Path | str = ":memory:",
        *,
        organization_id: str | None = None,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self._store = Store(path, organization_id)
        self._meters = Meters(self._store)
        self._rate_limit = rate_limit
        self._window = _Window(-math.inf)
        self._window_lock = threading.Lock()
        self.organization_id = self._store.organization_id

    def freeze(self, meter_id: str) -> None:
        """Mark the meter as aggregating events: its filter and aggregation can no longer be changed."""
        self._store.mark(meter_id, "frozen")

    def attach_product(self, meter_id: str) -> None:
        """Attach an active product to the meter, so that it cannot be archived."""
        self._store.mark(meter_id, "has_product")

    def attach_benefit(self, meter_id: str) -> None:
        """Attach an active benefit to the meter, so that it cannot be archived."""
        self._store.mark(meter_id, "has_benefit")

    def reset(self) -> None:
        """Delete every meter."""
        self._store.clear()

    def close(self) -> None:
        """Close the database. An in-memory database is lost."""
        self._store.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = _Request(environ)
        answer = self._answer(request)
        headers = [*answer.headers, ("content-length", str(len(answer.body)))]
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
        return [] if request.method == "HEAD" else [answer.body]

    def _answer(self, request: _Request) -> _Answer:
        """Run the checks that come before all others, then the rest of the request.

        The order is observed. The first two errors are read in Polar's tests, except for their details, which
        are assumed.
        """
        version = request.header("polar-version") or DEFAULT_VERSION
        try:
            if request.method in ("POST", "PUT", "PATCH") and request.content_length is None:
                _drain(request.environ)
                answer = _json(
                    411, {"error": "LengthRequired", "detail": "Content-Length header is required."}
                )
            elif (request.content_length or 0) > MAX_BODY:
                answer = _json(413, {"error": "RequestBodyTooLarge", "detail": "Request body is too large."})
            elif version not in VERSIONS:
                # The answer is that for a missing meter, so the cause is reported where the server runs.
                _report(request, f"Polar-Version {version} is unknown; known are {', '.join(VERSIONS)}")
                answer = _json(404, {"detail": "Not Found"})
            else:
                answer = self._versioned(request)
        except ServerError:
            return _BROKEN
        except Exception as error:  # noqa: BLE001  Polar answers 500 to any unexpected error.
            _report(request, f"the local Polar failed: {error!r}")
            _log.info("%s %s", request.method, request.path, exc_info=True)
            return _BROKEN
        if version not in VERSIONS:
            return answer
        return _Answer(answer.status, answer.body, (*answer.headers, ("polar-version", version)))

    def _versioned(self, request: _Request) -> _Answer:
        try:
            subject = _authenticate(request.token)
            # The limit is checked before the path and the scopes: even a 404 or 403 counts (observed).
            if subject and (seconds := self._limited()):
                return _Answer(429, headers=(("retry-after", str(seconds)),))
            if request.token and not subject:
                raise _AnswerError(_invalid_token())
            return self._route(request, subject)
        except _AnswerError as refusal:
            return refusal.answer
        except NotFoundError:
            return _json(404, {"error": "ResourceNotFound", "detail": "Not found"})
        except RequestError as e:
            return _json(422, {"error": e.error, "detail": e.entries})

    def _limited(self) -> int | None:
        """Return the length of the whole window in seconds if the organization's limit is reached, else None.

        Every earlier request with a valid token counts, whatever its token, path and answer (observed).
        """
        if self._rate_limit is None:
            return None
        limit, now = self._rate_limit, self._rate_limit.clock()
        with self._window_lock:
            if now >= self._window.began + limit.window:
                self._window = _Window(now)
            if self._window.requests >= limit.requests:
                return math.ceil(limit.window)
            self._window.requests += 1
        return None

    def _route(self, request: _Request, subject: _Subject | None) -> _Answer:
        route = _ROUTE.fullmatch(request.path)
        if route is None:
            other = request.path.rstrip("/") if request.path.endswith("/") else request.path + "/"
            if not _ROUTE.fullmatch(other):
                return _json(404, {"detail": "Not Found"})
            return _Answer(307, headers=(("location", request.url(other)),))
        meter_id = route["id"]
        match request.method, meter_id:
            case "GET", "":
                _authorize(subject, READ, WRITE)
                return self._list(request)
            case "GET", _:
                _authorize(subject, READ, WRITE)
                return self._get(meter_id)
            case "POST", "":
                body = request.read_body()
                return self._create(_authorize(subject, WRITE), body)
            case "PATCH", _ if meter_id:
                body = request.read_body()
                _authorize(subject, WRITE)
                return self._update(meter_id, body)
        # `Allow` names only the methods of the first route with this path (observed).
        return _json(405, {"detail": "Method Not Allowed"}, ("allow", "GET"))

    def _list(self, request: _Request) -> _Answer:
        query = validation.read_list_query(request.pairs)
        return _answer_text(200, self._meters.list(query, validation.metadata_query(request.pairs)))

    def _get(self, id_text: str) -> _Answer:
        return _answer_text(200, self._meters.get(validation.read_id(id_text)))

    def _create(self, subject: _Subject, body: object) -> _Answer:
        create = validation.read_create(body)
        self._check_organization(subject, create.organization_id)
        return _json(201, self._meters.create(create))

    def _update(self, id_text: str, body: object) -> _Answer:
        return _json(200, self._meters.update(*validation.read_update(id_text, body)))

    def _check_organization(self, subject: _Subject, organization_id: uuid.UUID | None) -> None:
        entry: ErrorEntry = {"loc": ["body", "organization_id"], "input": organization_id}
        if subject.kind == "organization":
            if organization_id is not None:
                message = "Setting organization_id is disallowed when using an organization token."
                raise polar_error({"type": "organization_token", "msg": message, **entry})
        elif organization_id is None:
            raise polar_error({"type": "missing", "msg": "organization_id is required.", **entry})
        elif str(organization_id) != self.organization_id:
            raise polar_error({"type": "value_error", "msg": "Organization not found.", **entry})


def _authenticate(token: str | None) -> _Subject | None:
    matches = (subject for pattern, subject in _SUBJECTS if token and pattern.fullmatch(token))
    return next(matches, None)


def _authorize(subject: _Subject | None, *any_of: str) -> _Subject:
    if subject is None:
        content = {"error": "Unauthorized", "detail": "Unauthorized"}
        raise _AnswerError(_json(401, content, ("www-authenticate", _REALM)))
    if subject.scopes.isdisjoint(any_of):
        description = "The request requires higher privileges than provided by the access token."
        scope = f', scope="{" ".join(any_of)}"'
        raise _AnswerError(_oauth_error(403, "insufficient_scope", description, scope))
    return subject


def _invalid_token() -> _Answer:
    description = "The access token provided is expired, revoked, malformed, or invalid for other reasons."
    return _oauth_error(401, "invalid_token", description)


def _oauth_error(status: int, error: str, description: str, extra: str = "") -> _Answer:
    challenge = f'{_REALM}{extra}, error="{error}", error_description="{description}"'
    content = {"error": error, "error_description": description}
    return _json(status, content, ("www-authenticate", challenge))


def _json(status: int, content: object, *headers: tuple[str, str]) -> _Answer:
    try:
        text = json.dumps(
            content, default=_encode, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
    except (ValueError, RecursionError):
        raise ServerError from None
    return _answer_text(status, text, *headers)


def _answer_text(status: int, text: str, *headers: tuple[str, str]) -> _Answer:
    try:
        body = text.encode()
    except UnicodeEncodeError:  # the answer echoes a lone surrogate
        raise ServerError from None
    return _Answer(status, body, (("content-type", "application/json"), *headers))


def _encode(value: object) -> object:
    """Encode values that JSON does not support, as FastAPI's encoder does (read)."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, uuid.UUID):
        return str(value)
    return {}  # the exception that a validator raised


def _report(request: _Request, message: str) -> None:
    print(printable(message), file=request.environ["wsgi.errors"])


def _drain(environ: WSGIEnvironment) -> None:
    """Read a chunked body to its end, so that the connection can be reused."""
    if environ.get("wsgi.input_terminated"):
        while environ["wsgi.input"].read(65536):
            pass
