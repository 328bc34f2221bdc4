"""The WSGI application: routes, tokens, rate limits, the order of checks, and answers."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from polar_iac.local import validation
from polar_iac.local.answers import (
    BROKEN,
    Answer,
    AnswerError,
    NotFoundError,
    ServerError,
    answer_json,
    answer_text,
)
from polar_iac.local.meters import Meters
from polar_iac.local.query import metadata_query
from polar_iac.local.request import Request
from polar_iac.local.request_errors import RequestError, polar_error
from polar_iac.local.store import Store
from polar_iac.local.tokens import (
    BENEFITS_READ,
    BENEFITS_WRITE,
    CUSTOMER_METERS_READ,
    EVENTS_READ,
    EVENTS_WRITE,
    METERS_READ,
    METERS_WRITE,
    ORGANIZATIONS_READ,
    ORGANIZATIONS_WRITE,
    PRODUCTS_READ,
    PRODUCTS_WRITE,
    OrganizationFault,
    Subject,
    authenticate,
    authorize,
    invalid_token,
    organization_fault,
)
from polar_iac.sanitize import printable

if TYPE_CHECKING:
    import sqlite3

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from polar_iac.local.catalog import Catalog
    from polar_iac.local.usage import Usage

_log = logging.getLogger(__name__)

DEFAULT_VERSION = "2026-04"
VERSIONS = (DEFAULT_VERSION, "2026-10", "2027-01")
"""Versions with the same bodies of meters. The newest SDK sends the last one."""

MAX_BODY = 10 * 1024 * 1024


@dataclass(frozen=True)
class RateLimit:
    """Limit of `requests` per `window` seconds. A window begins with its first request (observed)."""

    requests: int
    window: float = 60.0
    clock: Callable[[], float] = time.monotonic


@dataclass
class _Window:
    began: float
    requests: int = 0


class LocalPolar:
    """The embedded Polar, a WSGI application.

    A database holds one organization. Its id is chosen when the database is created and is stored there.
    Threads and processes may share a database. Rate limits are off by default and count the requests of this
    process only. Billing runs after each ingest, unless `bills_at_once` is false: then `bill` runs it.
    """

    organization_id: str

    def __init__(
        self,
        path: Path | str = ":memory:",
        *,
        organization_id: str | None = None,
        rate_limit: RateLimit | None = None,
        bills_at_once: bool = True,
    ) -> None:
        self._store = Store(path, organization_id)
        self.meters = Meters(self._store, lambda meter: self.usage.begin(meter))
        self._bills_at_once = bills_at_once
        self._rate_limit = rate_limit
        self._window = _Window(-math.inf)
        self._window_lock = threading.Lock()
        self.organization_id = self._store.organization_id

    @cached_property
    def usage(self) -> Usage:
        """Events, quantities and billing."""
        # A plan, which only reads meters, need not wait for the import.
        from polar_iac.local.usage import Usage

        return Usage(self._store, bills_at_once=self._bills_at_once)

    @cached_property
    def catalog(self) -> Catalog:
        """Products, benefits, the organization and customer meters."""
        from polar_iac.local.catalog import Catalog  # most plans need none of it

        return Catalog(self._store)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Keep what the block writes, or nothing of it when the block raises."""
        with self._store.write() as db:
            yield db

    def bill(self) -> None:
        """Run billing once: it freezes the meters that events have matched."""
        self.usage.bill()

    def freeze(self, meter_id: str) -> None:
        """Mark the meter as aggregating events: its filter and aggregation can no longer be changed."""
        self._store.freeze(meter_id)

    def attach_product(self, meter_id: str) -> None:
        """Attach an active product to the meter, so that it cannot be archived."""
        self.catalog.attach_product(meter_id)

    def attach_benefit(self, meter_id: str) -> None:
        """Attach an active benefit to the meter, so that it cannot be archived."""
        self.catalog.attach_benefit(meter_id)

    def reset(self) -> None:
        """Delete everything but the organization itself."""
        self._store.clear()

    def close(self) -> None:
        """Close the database. An in-memory database is lost."""
        self._store.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        answer = self._answer(request)
        length = [] if answer.status == HTTPStatus.NO_CONTENT else [("content-length", str(len(answer.body)))]
        headers = [*answer.headers, *length]
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
        return [] if request.method == "HEAD" else [answer.body]

    def _answer(self, request: Request) -> Answer:
        """Run the checks that come before all others, then the rest of the request.

        The order is observed. The first two errors are read in Polar's tests, except for their details, which
        are assumed.
        """
        version = request.header("polar-version") or DEFAULT_VERSION
        try:
            if request.method in ("POST", "PUT", "PATCH") and request.content_length is None:
                request.drain()
                answer = answer_json(
                    411, {"error": "LengthRequired", "detail": "Content-Length header is required."}
                )
            elif (request.content_length or 0) > MAX_BODY:
                answer = answer_json(
                    413, {"error": "RequestBodyTooLarge", "detail": "Request body is too large."}
                )
            elif version not in VERSIONS:
                # The answer is that for a missing meter, so the cause is reported where the server runs.
                _report(request, f"Polar-Version {version} is unknown; known are {', '.join(VERSIONS)}")
                answer = answer_json(404, {"detail": "Not Found"})
            else:
                answer = self._versioned(request)
        except ServerError:
            return BROKEN
        except Exception as error:  # noqa: BLE001  Polar answers 500 to any unexpected error.
            _report(request, f"the local Polar failed: {error!r}")
            _log.info("%s %s", request.method, request.path, exc_info=True)
            return BROKEN
        if version not in VERSIONS:
            return answer
        return Answer(answer.status, answer.body, (*answer.headers, ("polar-version", version)))

    def _versioned(self, request: Request) -> Answer:
        try:
            subject = authenticate(request.token)
            # The limit is checked before the path and the scopes: even a 404 or 403 counts (observed).
            if subject and (seconds := self._limited()):
                return Answer(429, headers=(("retry-after", str(seconds)),))
            if request.token and not subject:
                raise AnswerError(invalid_token())
            return self._route(request, subject)
        except AnswerError as refusal:
            return refusal.answer
        except NotFoundError:
            return answer_json(404, {"error": "ResourceNotFound", "detail": "Not found"})
        except RequestError as e:
            return answer_json(422, {"error": e.error, "detail": e.entries})

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

    def _route(self, request: Request, subject: Subject | None) -> Answer:
        routes = [route for route in _ROUTES if route.pattern.fullmatch(request.path)]
        if not routes:
            other = request.path.rstrip("/") if request.path.endswith("/") else request.path + "/"
            if not any(route.pattern.fullmatch(other) for route in _ROUTES):
                return answer_json(404, {"detail": "Not Found"})
            return Answer(307, headers=(("location", request.url(other)),))
        route = next((route for route in routes if route.method == request.method), None)
        if route is None:
            # `Allow` names only the methods of the first route with this path (observed).
            return answer_json(405, {"detail": "Method Not Allowed"}, ("allow", routes[0].method))
        # A body is parsed before the token is looked at (observed).
        body = request.read_body() if route.method in ("POST", "PATCH") else None
        match = route.pattern.fullmatch(request.path)
        path_id = match["id"] if match and "id" in route.pattern.groupindex else ""
        asked = _Asked(request, authorize(subject, *route.scopes), path_id, body)
        answer: Answer = getattr(self, route.method_name)(asked)
        return answer

    def _list(self, asked: _Asked) -> Answer:
        pairs = asked.request.pairs
        return answer_text(200, self.meters.list(validation.read_list_query(pairs), metadata_query(pairs)))

    def _get(self, asked: _Asked) -> Answer:
        return answer_text(200, self.meters.get(validation.read_id(asked.path_id)))

    def _create(self, asked: _Asked) -> Answer:
        create = validation.read_create(asked.body)
        if fault := organization_fault(asked.subject, create.organization_id, self.organization_id):
            loc = ["body", "organization_id"]
            raise polar_error({**fault, "loc": loc, "input": create.organization_id})
        return answer_json(201, self.meters.create(create))

    def _update(self, asked: _Asked) -> Answer:
        return answer_json(200, self.meters.update(*validation.read_update(asked.path_id, asked.body)))

    def _quantities(self, asked: _Asked) -> Answer:
        return answer_json(200, self.usage.quantities(asked.path_id, asked.request.pairs))

    def _fault(self, asked: _Asked) -> OrganizationFault:
        return partial(organization_fault, asked.subject, own_id=self.organization_id)

    def _ingest(self, asked: _Asked) -> Answer:
        return answer_json(200, self.usage.ingest(asked.body, self._fault(asked)))

    def _events(self, asked: _Asked) -> Answer:
        return answer_json(200, self.usage.events(asked.request.pairs))

    def _event_names(self, asked: _Asked) -> Answer:
        return answer_json(200, self.usage.names(asked.request.pairs))

    def _event(self, asked: _Asked) -> Answer:
        return answer_json(200, self.usage.event(asked.path_id))

    def _products(self, asked: _Asked) -> Answer:
        return answer_json(200, self.catalog.products.list(asked.request.pairs))

    def _product(self, asked: _Asked) -> Answer:
        return answer_json(200, self.catalog.products.get(asked.path_id))

    def _create_product(self, asked: _Asked) -> Answer:
        return answer_json(201, self.catalog.products.create(asked.body, self._fault(asked)))

    def _update_product(self, asked: _Asked) -> Answer:
        return answer_json(200, self.catalog.products.update(asked.path_id, asked.body))

    def _set_benefits(self, asked: _Asked) -> Answer:
        return answer_json(200, self.catalog.products.set_benefits(asked.path_id, asked.body))

    def _benefits(self, asked: _Asked) -> Answer:
        return answer_json(200, self.catalog.benefits.list(asked.request.pairs))

    def _benefit(self, asked: _Asked) -> Answer:
        return answer_json(200, self.catalog.benefits.get(asked.path_id))

    def _create_benefit(self, asked: _Asked) -> Answer:
        return answer_json(201, self.catalog.benefits.create(asked.body, self._fault(asked)))

    def _delete_benefit(self, asked: _Asked) -> Answer:
        self.catalog.benefits.delete(asked.path_id)
        return answer_text(204, "")

    def _customer_meters(self, asked: _Asked) -> Answer:
        return answer_json(200, self.catalog.customer_meters.list(asked.request.pairs))

    def _customer_meter(self, asked: _Asked) -> Answer:
        return answer_json(200, self.catalog.customer_meters.get(asked.path_id))

    def _organizations(self, asked: _Asked) -> Answer:
        return answer_json(200, self.catalog.organizations(asked.request.pairs))

    def _organization(self, asked: _Asked) -> Answer:
        return answer_json(200, self.catalog.organization(asked.path_id))


@dataclass(frozen=True)
class _Asked:
    """A request that found its route, with its owner, the id in its path, and its body."""

    request: Request
    subject: Subject
    path_id: str
    body: object


@dataclass(frozen=True)
class _Route:
    method: str
    pattern: re.Pattern[str]
    scopes: tuple[str, ...]
    method_name: str
    """The name of the method of LocalPolar that answers."""


_METER, _EVENT = r"/v1/meters/(?P<id>[^/]+)", r"/v1/events/(?P<id>[^/]+)"
_PRODUCT, _BENEFIT = r"/v1/products/(?P<id>[^/]+)", r"/v1/benefits/(?P<id>[^/]+)"
_ORGANIZATIONS = (ORGANIZATIONS_READ, ORGANIZATIONS_WRITE)
_ROUTES = tuple(
    _Route(method, re.compile(pattern), scopes, name)
    for method, pattern, scopes, name in (
        ("GET", "/v1/meters/", (METERS_READ, METERS_WRITE), "_list"),
        ("POST", "/v1/meters/", (METERS_WRITE,), "_create"),
        ("GET", _METER, (METERS_READ, METERS_WRITE), "_get"),
        ("PATCH", _METER, (METERS_WRITE,), "_update"),
        ("GET", f"{_METER}/quantities", (METERS_READ, METERS_WRITE), "_quantities"),
        ("GET", "/v1/events/", (EVENTS_READ, EVENTS_WRITE), "_events"),
        ("GET", "/v1/events/names", (EVENTS_READ, EVENTS_WRITE), "_event_names"),
        ("GET", _EVENT, (EVENTS_READ, EVENTS_WRITE), "_event"),
        ("POST", "/v1/events/ingest", (EVENTS_WRITE,), "_ingest"),
        ("GET", "/v1/products/", (PRODUCTS_READ, PRODUCTS_WRITE), "_products"),
        ("POST", "/v1/products/", (PRODUCTS_WRITE,), "_create_product"),
        ("GET", _PRODUCT, (PRODUCTS_READ, PRODUCTS_WRITE), "_product"),
        ("PATCH", _PRODUCT, (PRODUCTS_WRITE,), "_update_product"),
        ("POST", f"{_PRODUCT}/benefits", (PRODUCTS_WRITE,), "_set_benefits"),
        ("GET", "/v1/benefits/", (BENEFITS_READ, BENEFITS_WRITE), "_benefits"),
        ("POST", "/v1/benefits/", (BENEFITS_WRITE,), "_create_benefit"),
        ("GET", _BENEFIT, (BENEFITS_READ, BENEFITS_WRITE), "_benefit"),
        ("DELETE", _BENEFIT, (BENEFITS_WRITE,), "_delete_benefit"),
        ("GET", "/v1/customer-meters/", (CUSTOMER_METERS_READ,), "_customer_meters"),
        ("GET", "/v1/customer-meters/(?P<id>[^/]+)", (CUSTOMER_METERS_READ,), "_customer_meter"),
        ("GET", "/v1/organizations/", _ORGANIZATIONS, "_organizations"),
        ("GET", "/v1/organizations/(?P<id>[^/]+)", _ORGANIZATIONS, "_organization"),
    )
)
"""The routes, in the order in which they are tried."""


def _report(request: Request, message: str) -> None:
    print(printable(message), file=request.environ["wsgi.errors"])
