"""Events of an apply: what happened to each meter."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from polar_iac.clock import utc_now
from polar_iac.errors import Diagnostic


@dataclass(frozen=True, kw_only=True)
class _Event:
    """Base of all events. Events are equal when they say the same, at whatever time."""

    at: datetime | None = field(default=None, compare=False)
    """When it was known."""


@dataclass(frozen=True)
class Applied(_Event):
    """The meter is as its change or bookkeeping says, and this is recorded."""

    key: str
    action: str
    id: str


@dataclass(frozen=True)
class Failed(_Event):
    """The meter could not be changed.

    `diagnostics` point at the manifest lines of fields that Polar named. `status` is the HTTP status of
    Polar's answer, if there was one. `id` is empty for a create. `unknown` means that the change was sent and
    no usable answer came: the next plan shows whether it was made.
    """

    key: str
    action: str
    message: str
    diagnostics: tuple[Diagnostic, ...] = ()
    id: str = field(default="", compare=False, kw_only=True)
    status: int | None = field(default=None, compare=False, kw_only=True)
    unknown: bool = field(default=False, compare=False, kw_only=True)


@dataclass(frozen=True)
class Unconfirmed(_Event):
    """A create was sent without an answer, and the meter cannot be found. It may still appear."""

    key: str
    action: str
    message: str


@dataclass(frozen=True)
class Skipped(_Event):
    """The meter was not touched: its change is blocked, or the run stopped before it.

    `diagnostics` point at the manifest lines of a declared key that is blocked. `id` is empty for a create.
    """

    key: str
    action: str
    reason: str
    diagnostics: tuple[Diagnostic, ...] = ()
    id: str = field(default="", compare=False, kw_only=True)


@dataclass(frozen=True)
class Unknown(_Event):
    """Something about the run as a whole is unknown. Everything that is known is recorded."""

    message: str


Event = Applied | Failed | Unconfirmed | Skipped | Unknown


def stamped(event: Event, meter_id: str = "") -> Event:
    """Return the event with the time of now, and with the id of its meter, where it lacks them."""
    if isinstance(event, Failed | Skipped):
        event = replace(event, id=event.id or meter_id)
    return event if event.at else replace(event, at=utc_now())
