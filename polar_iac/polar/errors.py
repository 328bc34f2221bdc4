"""Errors of the API client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from polar_iac.errors import PolarIacError


class ApiError(PolarIacError):
    """A request to Polar failed, or could not reach Polar. `status` is None when there was no answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(ApiError):
    """The meter id is unknown to Polar (404)."""


class InvalidRequestError(ApiError):
    """Polar rejected the fields of a request (422).

    `detail` holds Polar's entries unchanged: `loc` (including union tags), `msg`, `type`.
    """

    def __init__(self, message: str, detail: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message, status=422)
        self.detail = tuple(detail)


Fate = Literal["not-sent", "over", "lost"]


class TransientError(ApiError):
    """No usable answer. The same request may succeed later.

    `fate` says what is known about a write, most importantly a POST, that failed this way:

    - "not-sent": the request was never sent, because no connection was made. Example: connection refused.
    - "over": Polar itself ended the request with an error, so it cannot take effect later. It may have taken
      effect before the error. Example: a 500 with the header `polar-version`.
    - "lost": the request was sent, and no answer from Polar arrived. It may have taken effect, or may still
      do so. Example: a 504.
    """

    def __init__(self, message: str, *, status: int | None = None, fate: Fate = "lost") -> None:
        super().__init__(message, status=status)
        self.fate: Fate = fate


class IncompleteError(TransientError):
    """The list is missing meters that its count includes, or does not end where it should."""
