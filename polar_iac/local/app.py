"""The WSGI application: what is asked, by whom, in which order it is checked, and what is answered."""

from __future__ import annotations

import json
import math
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote

from pydantic import BaseModel

from polar_iac.local import schemas
from polar_iac.local.schemas import ErrorEntry, JsonObject, RequestError
from polar_iac.local.store import Page, Store

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

DEFAULT_VERSION = "2026-04"
VERSIONS = {DEFAULT_VERSION, "2026-10"}

MAX_BODY = 10 * 1024 * 1024
MAX_READABLE_DEPTH = 127  # levels of filters that Polar can write as JSON (observed)
MAX_SEARCHABLE_CLAUSES = (
    19_999  # with 20,000 a POST fails (observed); where between 5,000 and there is not known
)
INT64_MAX = 2**63 - 1

READ, WRITE = "meters:read", "meters:write"
ORDER_OPERATORS = {"gt", "gte", "lt", "lte"}
LIKE_OPERATORS = {"like", "not_like"}

_ROUTE = re.compile(r"/v1/meters/(?P<id>[^/]*)")
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_REALM = 'Bearer realm="polar"'
_REASONS = {
    200: "OK",
    201: "Created",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


@dataclass(frozen=True)
class RateLimit:
    """So many requests in each window; a window begins with its first request (observed)."""

    requests: int
    window: float = 60.0
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class _AnswerError(Exception):
    """Ends a request with this answer."""

    def __init__(self, answer: _Answer) -> None:
        self.answer = answer
        super().__init__(answer.status)


class _ServerError(Exception):
    """Polar has no answer here but a 500."""


@dataclass(frozen=True)
class _Subject:
    """Who asks: the organization itself, or a person who may see it."""

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


@dataclass(frozen=True)
class _Request:
    environ: WSGIEnvironment
    method: str = field(init=False)
    path: str = field(init=False)
    query: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", self.environ["REQUEST_METHOD"])
        object.__setattr__(self, "path", _path(self.environ))
        object.__setattr__(self, "query", self.environ.get("QUERY_STRING", ""))

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
        """The bearer token. Another scheme is as no token (read)."""
        scheme, _, token = self.header("authorization").partition(" ")
        token = token.strip()
        return token if scheme.lower() == "bearer" and token and token.isascii() else None

    def read_body(self) -> object:
        """The body: JSON data if it says so, otherwise its bytes; None when empty."""
        data: bytes = self.environ["wsgi.input"].read(self.content_length or 0)
        media = Message()
        media["content-type"] = self.environ.get("CONTENT_TYPE", "")
        subtype = media.get_content_subtype()
        if media.get_content_maintype() != "application" or not (
            subtype == "json" or subtype.endswith("+json")
        ):
            return data or None
        try:
            return schemas.read_json(data)
        except (ValueError, RecursionError):
            raise _AnswerError(_json(400, {"detail": "There was an error parsing the body"})) from None

    def url(self, path: str) -> str:
        """The absolute URL of another path on this host, as Starlette writes it for a redirect (read)."""
        host = self.header("host") or f"{self.environ['SERVER_NAME']}:{self.environ['SERVER_PORT']}"
        url = f"{self.environ['wsgi.url_scheme']}://{host}{path}" + (f"?{self.query}" if self.query else "")
        return quote(url, safe=":/%#?=@[]!$&'()*+,;")


def _path(environ: WSGIEnvironment) -> str:
    # Servers differ in what they decode, and PEP 3333 loses `%2F`: prefer what was sent.
    if raw := environ.get("REQUEST_URI"):
        return unquote(raw.partition("?")[0])
    path: str = environ["PATH_INFO"]
    try:
        return path.encode("latin-1").decode()
    except UnicodeError:
        return path  # decoded already, as httpx does


class LocalPolar:
    """The embedded Polar, a WSGI application.

    One organization per database; its id is stored there, chosen when the database is created. A database may
    be shared by threads and by processes. Rate limits are off unless asked for, and counted in this process.
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
        self._rate_limit = rate_limit
        self._windows: dict[str, _Window] = {}
        self._windows_lock = threading.Lock()
        self.organization_id = self._store.organization_id

    def freeze(self, meter_id: str) -> None:
        """Let the meter aggregate events: its filter and aggregation cannot be changed any more."""
        self._store.mark(meter_id, "frozen")

    def attach_product(self, meter_id: str) -> None:
        """Let an active product bill by the meter: it cannot be archived."""
        self._store.mark(meter_id, "has_product")

    def attach_benefit(self, meter_id: str) -> None:
        """Let an active benefit refer to the meter: it cannot be archived."""
        self._store.mark(meter_id, "has_benefit")

    def reset(self) -> None:
        """Delete every meter."""
        self._store.clear()

    def close(self) -> None:
        """Close the database. What was in memory is gone."""
        self._store.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = _Request(environ)
        answer = self._answer(request)
        headers = [*answer.headers, ("content-length", str(len(answer.body)))]
        start_response(f"{answer.status} {_REASONS[answer.status]}", headers)
        return [] if request.method == "HEAD" else [answer.body]

    def _answer(self, request: _Request) -> _Answer:
        """The checks that come before any other (observed), then all the rest."""
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
                answer = _json(404, {"detail": "Not Found"})
            else:
                answer = self._versioned(request)
        except _ServerError:
            plain = ("content-type", "text/plain; charset=utf-8")
            return _Answer(500, b"Internal Server Error", (plain,))
        if version not in VERSIONS:
            return answer
        return _Answer(answer.status, answer.body, (*answer.headers, ("polar-version", version)))

    def _versioned(self, request: _Request) -> _Answer:
        try:
            subject = _authenticate(request.token)
            if subject and (seconds := self._limited(subject)):
                return _Answer(429, headers=(("retry-after", str(seconds)),))
            if request.token and not subject:
                raise _AnswerError(_invalid_token())
            return self._route(request, subject)
        except _AnswerError as refusal:
            return refusal.answer
        except RequestError as e:
            return _json(422, {"error": e.error, "detail": e.entries})

    def _limited(self, subject: _Subject) -> int | None:
        """The whole window in seconds, when the limit is reached; every request before counts, whatever its
        answer."""
        if self._rate_limit is None:
            return None
        limit, now = self._rate_limit, self._rate_limit.clock()
        with self._windows_lock:
            window = self._windows.get(subject.kind)
            if window is None or now >= window.began + limit.window:
                window = self._windows[subject.kind] = _Window(now)
            if window.requests >= limit.requests:
                return math.ceil(limit.window)
            window.requests += 1
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
        # Only the methods of the first route with this path are named (observed).
        return _json(405, {"detail": "Method Not Allowed"}, ("allow", "GET"))

    def _list(self, request: _Request) -> _Answer:
        wanted = schemas.read_list_query(request.pairs)
        metadata = schemas.metadata_query(request.pairs)
        offset = wanted.limit * (wanted.page - 1)
        texts = [wanted.query or "", *metadata, *(text for values in metadata.values() for text in values)]
        if offset > INT64_MAX or any("\0" in text for text in texts):
            raise _ServerError
        if wanted.organization_ids is not None and self.organization_id not in wanted.organization_ids:
            page = Page([], 0, readable=True)
        else:
            page = self._store.list(
                metadata=metadata,
                query=wanted.query,
                is_archived=wanted.is_archived,
                sorting=wanted.sorting,
                limit=wanted.limit,
                offset=offset,
            )
        if not page.readable:
            raise _ServerError
        pagination = {"total_count": page.total, "max_page": math.ceil(page.total / wanted.limit)}
        items = ",".join(page.documents)
        return _answer_text(200, f'{{"items":[{items}],"pagination":{json.dumps(pagination)}}}')

    def _get(self, id_text: str) -> _Answer:
        page = self._store.find_text(schemas.read_id(id_text))
        if not page.documents:
            raise _AnswerError(_not_found())
        if not page.readable:
            raise _ServerError
        return _answer_text(200, page.documents[0])

    def _create(self, subject: _Subject, body: object) -> _Answer:
        create = schemas.read_create(body)
        self._check_organization(subject, create.organization_id)
        sent = create.model_dump(mode="python", exclude={"organization_id"})
        if _breaks_search(sent["filter"]):
            raise _ServerError
        with self._store.write():
            created_at = self._store.now()
            times = {"created_at": created_at, "modified_at": self._store.now(), "archived_at": None}
            ids = {"id": str(uuid.uuid4()), "organization_id": self.organization_id}
            written = {**sent, **ids, **times}
            readable = _check_storable(written)
            self._store.insert(_as_read(written), readable=readable)
        return _meter(201, written, readable)

    def _check_organization(self, subject: _Subject, organization_id: uuid.UUID | None) -> None:
        entry: ErrorEntry = {"loc": ["body", "organization_id"], "input": organization_id}
        if subject.kind == "organization":
            if organization_id is not None:
                message = "Setting organization_id is disallowed when using an organization token."
                raise _polar_error({"type": "organization_token", "msg": message, **entry})
        elif organization_id is None:
            raise _polar_error({"type": "missing", "msg": "organization_id is required.", **entry})
        elif str(organization_id) != self.organization_id:
            raise _polar_error({"type": "value_error", "msg": "Organization not found.", **entry})

    def _update(self, id_text: str, body: object) -> _Answer:
        meter_id, update = schemas.read_update(id_text, body)
        with self._store.write():
            stored = self._store.find(meter_id)
            if stored is None:
                raise _AnswerError(_not_found())
            if stored.frozen:
                _check_frozen(update)
            if update.is_archived:
                _check_archivable(stored.has_product, stored.has_benefit)
            changes = _changes(update)
            if update.is_archived is not None:
                changes["archived_at"] = self._store.now() if update.is_archived else None
            written = {**stored.document, **changes}
            readable = _check_storable(written)
            if changes:
                written["modified_at"] = self._store.now()
                # What did not change is answered as read, what did as it was sent (observed).
                self._store.update({**written, **_as_read(changes)}, readable=readable)
        return _meter(200, written, readable)


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


def _polar_error(*entries: ErrorEntry) -> RequestError:
    return RequestError(entries, "PolarRequestValidationError")


def _not_found() -> _Answer:
    return _json(404, {"error": "ResourceNotFound", "detail": "Not found"})


def _check_frozen(update: schemas.MeterUpdate) -> None:
    message = "This field can't be updated because the meter is already aggregating events."
    entries = [
        {"type": "forbidden", "loc": ["body", name], "msg": message, "input": getattr(update, name)}
        for name in ("aggregation", "filter")
        if name in update.model_fields_set
    ]
    if entries:
        raise _polar_error(*entries)


def _check_archivable(has_product: bool, has_benefit: bool) -> None:
    if has_product:
        reason = "attached to active products"
    elif has_benefit:
        reason = "referenced by active benefits"
    else:
        return
    message = f"Cannot archive meter that is still {reason}"
    raise _polar_error({"type": "value_error", "loc": ["body", "is_archived"], "msg": message, "input": True})


def _changes(update: schemas.MeterUpdate) -> JsonObject:
    """What a PATCH writes: each field that was sent, equal or not, but a null filter or aggregation."""
    changes = update.model_dump(exclude_unset=True, exclude={"is_archived"})
    for name in ("filter", "aggregation"):
        if name in changes and changes[name] is None:
            del changes[name]
    if any(name in changes and changes[name] is None for name in ("name", "unit")):
        raise _ServerError  # the columns allow no null (observed)
    return changes


def _check_storable(meter: JsonObject) -> bool:
    """Whether the meter can be answered once it is stored. Raises _ServerError when it cannot even be stored:
    PostgreSQL refuses NUL, lone surrogates, NaN, infinities and integers beyond its own (observed)."""
    try:
        text = json.dumps(meter, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError):
        raise _ServerError from None
    if _NUL.search(text) or (meter["custom_multiplier"] or 0) > INT64_MAX:
        raise _ServerError
    return _depth(meter["filter"]) <= MAX_READABLE_DEPTH


def _depth(clause: JsonObject) -> int:
    """How many levels of filters there are; 0 for a clause that is no filter."""
    depth, level = 0, [clause]
    while level := [c for c in level if "clauses" in c]:
        depth += 1
        level = [inner for c in level for inner in c["clauses"]]
    return depth


def _breaks_search(clause: JsonObject) -> bool:
    """Whether the look for matching events, which a POST makes, fails in PostgreSQL whatever the events."""
    clauses = [clause]
    for c in clauses:
        clauses += c.get("clauses", ())
    return len(clauses) > MAX_SEARCHABLE_CLAUSES or any(_compares_bool(c) for c in clauses if "operator" in c)


def _compares_bool(clause: JsonObject) -> bool:
    """Whether SQL compares by order what has none: a boolean (observed), or a time with a boolean (read)."""
    operator, name = clause["operator"], clause["property"]
    if not isinstance(clause["value"], bool) or name in ("name", "source"):
        return False
    return operator not in LIKE_OPERATORS if name == "timestamp" else operator in ORDER_OPERATORS


def _as_read(meter: JsonObject) -> JsonObject:
    """The fields of a meter as they come back from the database: PostgreSQL's jsonb keeps numbers as
    decimals, and Polar strips another `metadata.` (observed)."""
    read = dict(meter)
    if "filter" in meter:
        read["filter"] = _strip_clause(meter["filter"])
    if "aggregation" in meter:
        read["aggregation"] = _strip_clause(meter["aggregation"])
    if "metadata" in meter:
        read["metadata"] = {key: _jsonb(value) for key, value in meter["metadata"].items()}
    return read


def _strip_clause(clause: Mapping[str, Any]) -> JsonObject:
    if "clauses" in clause:
        return {**clause, "clauses": [_strip_clause(inner) for inner in clause["clauses"]]}
    if "property" in clause:
        return {**clause, "property": schemas.strip_prefix(clause["property"])}
    return dict(clause)


def _jsonb(value: str | float) -> str | float:
    if not isinstance(value, float):
        return value
    exact = Decimal(repr(value))
    # A number without decimals is an integer to JSON: `1e+16` has none, `1.0` has one.
    return value + 0.0 if "." in format(exact, "f") else int(exact)


def _meter(status: int, meter: JsonObject, readable: bool) -> _Answer:
    if not readable:
        raise _ServerError
    return _json(status, meter)


def _json(status: int, content: object, *headers: tuple[str, str]) -> _Answer:
    try:
        text = json.dumps(
            content, default=_encode, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
    except (ValueError, RecursionError):
        raise _ServerError from None
    return _answer_text(status, text, *headers)


def _answer_text(status: int, text: str, *headers: tuple[str, str]) -> _Answer:
    try:
        body = text.encode()
    except UnicodeEncodeError:  # a lone surrogate in what is echoed
        raise _ServerError from None
    return _Answer(status, body, (("content-type", "application/json"), *headers))


def _encode(value: object) -> object:
    """What FastAPI's encoder makes of values that JSON does not know (read)."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, uuid.UUID):
        return str(value)
    return {}  # the exception that a validator raised


def _drain(environ: WSGIEnvironment) -> None:
    """Read a chunked body to its end, so that the connection can be used again."""
    if environ.get("wsgi.input_terminated"):
        while environ["wsgi.input"].read(65536):
            pass
