"""Polar's answers as values: meters, pages of them, organizations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ValidationError

from polar_iac.meter.filter import is_known
from polar_iac.meter.live import LiveMeter, instant
from polar_iac.meter.marker import MARKER
from polar_iac.meter.spec import MeterSpec
from polar_iac.polar.errors import IncompleteError, TransientError

_MOST_PAGES = 10_000
_MORE_PAGES = 10
_MORE_METERS = 1_000
"""Allowed growth of a list while it is read, in addition to doubling. Other clients may create meters at the
same time."""


class Pagination(BaseModel):
    """Extent of a list, as each page states it."""

    total_count: int = 0
    max_page: int


class Page(BaseModel):
    """One page of a list, with its items unparsed."""

    items: list[dict[str, Any]]
    pagination: Pagination


class Extent:
    """Limits on how far a list may grow while it is read.

    Example: for 3 pages on the first, up to 16 are read.
    """

    def __init__(self, first: Pagination) -> None:
        self._first = first
        self._pages = min(2 * first.max_page + _MORE_PAGES, _MOST_PAGES)
        self._meters = 2 * first.total_count + _MORE_METERS

    def check(self, last: int, meters: int) -> None:
        """Raise IncompleteError when the list has implausibly many pages or meters."""
        if last > self._pages:
            raise IncompleteError(
                f"Polar's list of meters does not end: of {self._first.max_page} pages on the first, and now "
                f"of {last}, at most {self._pages} are read"
            )
        # A missing `total_count` also reads as 0, so 0 is not usable as a limit.
        if self._first.total_count and meters > self._meters:
            raise IncompleteError(
                f"Polar's list of meters does not end: it counted {self._first.total_count} meters, and "
                f"{meters} have come"
            )


class _Organization(BaseModel):
    id: UUID


class Organizations(BaseModel):
    """One page of the organizations that a token may see."""

    items: list[_Organization]
    pagination: Pagination


class _Quantities(BaseModel):
    """Quantities of a meter. Their buckets are not read."""

    total: float


def total_from(answer: Any) -> float:
    """Parse the total of a meter's quantities. Raises TransientError when the answer has none."""
    try:
        return _Quantities.model_validate(answer).total
    except ValidationError as error:
        message = "the response does not hold the quantities of a meter (truncated, or not from Polar)"
        raise TransientError(message) from error


class _Identity(BaseModel):
    """Fields that every meter must have in addition to its spec. Unknown fields are ignored."""

    id: UUID
    organization_id: UUID
    created_at: AwareDatetime
    archived_at: AwareDatetime | None = None


def page_from(answer: Any) -> Page:
    """Parse a page. Raises TransientError when the answer is not one."""
    try:
        return Page.model_validate(answer)
    except ValidationError as error:
        message = "the response is not a list of meters (truncated, or not from Polar)"
        raise TransientError(message) from error


def meter_from(answer: Any) -> LiveMeter:
    """Parse a meter.

    If this version cannot read the spec, `spec` is None, so that one meter of a future kind does not block
    all others. Raises TransientError when the answer is not a meter at all.
    """
    try:
        identity = _Identity.model_validate(answer)
        metadata = answer.get("metadata")
        marker = metadata.get(MARKER) if isinstance(metadata, dict) else None
        return LiveMeter(
            id=str(identity.id),
            organization_id=str(identity.organization_id),
            created_at=instant(identity.created_at),
            archived_at=None if identity.archived_at is None else instant(identity.archived_at),
            marker=None if marker is None else str(marker),
            spec=_spec(answer),
            label=str(answer.get("name", "")),
        )
    except (TypeError, AttributeError, ValueError, RecursionError, OverflowError) as error:
        raise TransientError("the response is not a meter (truncated, or not from Polar)") from error


def _spec(answer: Mapping[str, Any]) -> MeterSpec | None:
    try:
        if not is_known(answer["filter"], answer["aggregation"]):
            return None
        spec = MeterSpec.from_json(answer)
        _ = spec.fingerprint  # forces the canonical form, so wrong types inside raise here
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, OverflowError):
        return None
    return spec
