"""Administration over HTTP, `POST /__admin/KIND`: what a team's own tests need to start anew and to bill.

| kind | members | does |
|---|---|---|
| `reset` | | makes two fresh organizations and answers their ids as `vars` and their tokens as `tokens` |
| `customer` | `email`, `external_id`, `name` | makes a customer without any event, and answers the id |
| `credit` | `meter`, `customer`, `units` | grants units of a meter to a customer |
| `bill` | | runs billing once |
| `settle` | `only` | does nothing: nothing lags here |

Each takes `organization_id`; without it, the organization of the database is meant. Fresh organizations are
in memory and bill on request. A request must come from this machine and be of the content type
`application/json`, which no page in a browser sends elsewhere unasked.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import uuid
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from polar_iac.local.answers import Answer, AnswerError, answer_json
from polar_iac.local.app import LocalPolar

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_PREFIX = "/__admin/"

_PREFIXES = "all rw ro wo er ew pr pw br bw cmr orgr facts expired"
_TOKENS = {
    **{name: name for name in _PREFIXES.split()},
    "no_meters": "pr",
    "sr": "noscope",  # subscriptions are not served
}
"""Names of the tokens of a fresh organization, and what the token's prefix says."""

MAX_ORGANIZATIONS = 400
"""Fresh organizations that are kept. The oldest ones go first."""

M = TypeVar("M", bound="_Body")


class _Body(BaseModel):
    """The members of a request. Others are ignored."""

    model_config = ConfigDict(defer_build=True)

    organization_id: str | None = None


class _Customer(_Body):
    email: str
    external_id: str | None = None
    name: str | None = None


class _Credit(_Body):
    meter: str
    customer: str
    units: int


class AdministeredPolar:
    """A WSGI application: an embedded Polar, its administration, and the organizations that it made.

    The end of a token tells a fresh organization. All other requests are for the embedded Polar itself.
    """

    def __init__(self, polar: LocalPolar) -> None:
        self._polar = polar
        self._fresh: dict[str, LocalPolar] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ["PATH_INFO"]
        if not path.startswith(_PREFIX):
            owner: str = environ.get("HTTP_AUTHORIZATION", "").rpartition("_")[2]
            return self._fresh.get(owner, self._polar)(environ, start_response)
        try:
            answer = self._administer(path.removeprefix(_PREFIX), environ)
        except AnswerError as refusal:
            answer = refusal.answer
        except ValidationError as error:
            answer = answer_json(422, {"detail": error.errors(include_url=False, include_context=False)})
        except ValueError as error:
            answer = answer_json(422, {"detail": str(error)})
        except LookupError as error:
            answer = answer_json(404, {"detail": str(error)})
        headers = [*answer.headers, ("content-length", str(len(answer.body)))]
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
        return [answer.body]

    def bill(self) -> None:
        """Run billing once, in every organization."""
        for polar in (self._polar, *list(self._fresh.values())):
            polar.bill()

    def close(self) -> None:
        """Close the databases of the fresh organizations."""
        for polar in self._fresh.values():
            polar.close()

    def _administer(self, kind: str, environ: WSGIEnvironment) -> Answer:
        data = _read(environ)
        match kind:
            case "reset":
                return answer_json(200, self._reset())
            case "customer":
                customer = _Customer.model_validate(data)
                customer_id = self._of(customer).usage.add_customer(
                    external_id=customer.external_id, email=customer.email, name=customer.name
                )
                return answer_json(200, {"id": customer_id})
            case "credit":
                credit = _Credit.model_validate(data)
                self._of(credit).usage.credit(credit.meter, credit.customer, credit.units)
            case "bill":
                self._of(_Body.model_validate(data)).bill()
            case "settle":
                self._of(_Body.model_validate(data))
            case _:
                raise LookupError("the kinds are reset, customer, credit, bill and settle")
        return answer_json(200, {})

    def _of(self, body: _Body) -> LocalPolar:
        if body.organization_id in (None, self._polar.organization_id):
            return self._polar
        for polar in list(self._fresh.values()):
            if polar.organization_id == body.organization_id:
                return polar
        raise LookupError("no such organization: reset makes two, and keeps the latest")

    def _reset(self) -> Mapping[str, Mapping[str, str]]:
        first, second = (self._organization() for _ in range(2))
        tokens = {name: f"polar_oat_{prefix}_{first}" for name, prefix in _TOKENS.items()}
        ids = {"ORG": self._fresh[first].organization_id, "ORG2": self._fresh[second].organization_id}
        return {"vars": ids, "tokens": {**tokens, "other": f"polar_oat_all_{second}"}}

    def _organization(self) -> str:
        """Make an organization and return the end of its tokens."""
        organization_id = uuid.uuid4()
        with self._lock:
            while len(self._fresh) >= MAX_ORGANIZATIONS:
                self._fresh.pop(next(iter(self._fresh))).close()
            self._fresh[organization_id.hex] = LocalPolar(
                organization_id=str(organization_id), bills_at_once=False
            )
        return organization_id.hex


def _read(environ: WSGIEnvironment) -> Any:
    """Return the data of a request. Raises AnswerError when it may not or cannot be read."""
    if not ipaddress.ip_address(environ.get("REMOTE_ADDR", "")).is_loopback:
        raise _refusal(403, "administration is for this machine alone")
    if environ["REQUEST_METHOD"] != "POST":
        raise _refusal(405, "send a POST")
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != "application/json":
        raise _refusal(415, "send the content type application/json")
    data = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        return json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise _refusal(400, "the body is not JSON") from None


def _refusal(status: int, detail: str) -> AnswerError:
    return AnswerError(answer_json(status, {"detail": detail}))
