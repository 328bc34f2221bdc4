"""Tokens: whose they are, and what they may do. The prefix decides."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from polar_iac.local.answers import Answer, AnswerError, answer_json
from polar_iac.local.request_errors import ErrorEntry

METERS_READ, METERS_WRITE = "meters:read", "meters:write"
EVENTS_READ, EVENTS_WRITE = "events:read", "events:write"

_REALM = 'Bearer realm="polar"'


@dataclass(frozen=True)
class Subject:
    """The owner of a token: the organization itself, or a person who may see it."""

    kind: str
    scopes: frozenset[str]


def _organization(*scopes: str) -> Subject:
    return Subject("organization", frozenset(scopes))


_ALL = (METERS_READ, METERS_WRITE, EVENTS_READ, EVENTS_WRITE)
_SUBJECTS: tuple[tuple[re.Pattern[str], Subject | None], ...] = (
    (re.compile(r"polar_oat_expired_.*|polar_oat_0+"), None),
    (re.compile(r"polar_oat_ro_.*"), _organization(METERS_READ)),
    (re.compile(r"polar_oat_wo_.*"), _organization(METERS_WRITE)),
    (re.compile(r"polar_oat_rw_.*"), _organization(METERS_READ, METERS_WRITE)),
    (re.compile(r"polar_oat_er_.*"), _organization(EVENTS_READ)),
    (re.compile(r"polar_oat_ew_.*"), _organization(EVENTS_WRITE)),
    (re.compile(r"polar_oat_noscope_.*"), _organization()),
    (re.compile(r"polar_oat_.*"), _organization(*_ALL)),
    (re.compile(r"polar_pat_.*"), Subject("user", frozenset(_ALL))),
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
