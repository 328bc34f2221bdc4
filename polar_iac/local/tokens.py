"""Tokens: whose they are, and what they may do. The prefix decides."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from polar_iac.local.answers import Answer, AnswerError, answer_json
from polar_iac.local.request_errors import ErrorEntry

METERS_READ, METERS_WRITE = "meters:read", "meters:write"
EVENTS_READ, EVENTS_WRITE = "events:read", "events:write"
PRODUCTS_READ, PRODUCTS_WRITE = "products:read", "products:write"
BENEFITS_READ, BENEFITS_WRITE = "benefits:read", "benefits:write"
CUSTOMER_METERS_READ = "customer_meters:read"
ORGANIZATIONS_READ, ORGANIZATIONS_WRITE = "organizations:read", "organizations:write"

OrganizationFault = Callable[[uuid.UUID | None], ErrorEntry | None]
"""Returns what is wrong with the organization that a body names: the type and text of an error."""

_REALM = 'Bearer realm="polar"'


@dataclass(frozen=True)
class Subject:
    """The owner of a token: the organization itself, or a person who may see it."""

    kind: str
    scopes: frozenset[str]


def _organization(*scopes: str) -> Subject:
    return Subject("organization", frozenset(scopes))


_FACTS = (EVENTS_READ, PRODUCTS_READ, BENEFITS_READ)
_MOST = (
    *(METERS_READ, METERS_WRITE, EVENTS_READ, EVENTS_WRITE),
    *(PRODUCTS_READ, PRODUCTS_WRITE, BENEFITS_READ, BENEFITS_WRITE, CUSTOMER_METERS_READ),
)
_BY_PREFIX = {
    "ro": (METERS_READ,),
    "wo": (METERS_WRITE,),
    "rw": (METERS_READ, METERS_WRITE),
    "er": (EVENTS_READ,),
    "ew": (EVENTS_WRITE,),
    "pr": (PRODUCTS_READ,),
    "pw": (PRODUCTS_WRITE,),
    "br": (BENEFITS_READ,),
    "bw": (BENEFITS_WRITE,),
    "cmr": (CUSTOMER_METERS_READ,),
    "orgr": (ORGANIZATIONS_READ,),
    "facts": _FACTS,
    "all": (*_MOST, ORGANIZATIONS_READ),
    "noscope": (),
}
"""Scopes of a token `polar_oat_PREFIX_…`."""

_SUBJECTS: tuple[tuple[re.Pattern[str], Subject | None], ...] = (
    (re.compile(r"polar_oat_expired_.*|polar_oat_0+"), None),
    *(
        (re.compile(rf"polar_oat_{prefix}_.*"), _organization(*scopes))
        for prefix, scopes in _BY_PREFIX.items()
    ),
    (re.compile(r"polar_oat_.*"), _organization(*_MOST)),
    (re.compile(r"polar_pat_.*"), Subject("user", frozenset(_MOST))),
)


def authenticate(token: str | None) -> Subject | None:
    """Return the owner of a token, or None when it is missing or not valid."""
    matches = (subject for pattern, subject in _SUBJECTS if token and pattern.fullmatch(token))
    return next(matches, None)


def authorize(subject: Subject | None, *any_of: str) -> Subject:
    """Return the subject if it has one of the scopes. Raises AnswerError with a 401 or 403."""
    if subject is None:
        content = {"error": "Unauthorized", "detail": "Unauthorized"}
        raise AnswerError(answer_json(401, content, ("www-authenticate", _REALM)))
    if subject.scopes.isdisjoint(any_of):
        description = "The request requires higher privileges than provided by the access token."
        scope = f', scope="{" ".join(any_of)}"'
        raise AnswerError(_oauth_error(403, "insufficient_scope", description, scope))
    return subject


def invalid_token() -> Answer:
    """Return the answer for a token that is not valid."""
    description = "The access token provided is expired, revoked, malformed, or invalid for other reasons."
    return _oauth_error(401, "invalid_token", description)


def _oauth_error(status: int, error: str, description: str, extra: str = "") -> Answer:
    challenge = f'{_REALM}{extra}, error="{error}", error_description="{description}"'
    content = {"error": error, "error_description": description}
    return answer_json(status, content, ("www-authenticate", challenge))


def organization_fault(subject: Subject, organization_id: uuid.UUID | None, own_id: str) -> ErrorEntry | None:
    """Return the type and text of what is wrong with the organization that a body names, or None.

    An organization's token must name none, not even its own (observed); a person's must name one.
    """
    if subject.kind == "organization":
        if organization_id is None:
            return None
        message = "Setting organization_id is disallowed when using an organization token."
        return {"type": "organization_token", "msg": message}
    if organization_id is None:
        return {"type": "missing", "msg": "organization_id is required."}
    if str(organization_id) != own_id:
        return {"type": "value_error", "msg": "Organization not found."}
    return None


def no_organization_fault(_organization_id: uuid.UUID | None) -> None:
    """Find nothing wrong with the organization that a body names, since this program itself made the body."""
