"""Events of an apply: what happened to each meter."""

from __future__ import annotations

from dataclasses import dataclass

from polar_iac.errors import Diagnostic


@dataclass(frozen=True)
class Applied:
    """The meter is as its change or bookkeeping says, and this is recorded."""

    key: str
    action: str
    id: str


@dataclass(frozen=True)
class Failed:
    """The meter could not be changed.

    `diagnostics` point at the manifest lines of fields that Polar named.
    """

    key: str
    action: str
    message: str
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True)
class Unconfirmed:
    """A create was sent without an answer, and the meter cannot be found. It may still appear."""

    key: str
    action: str
    message: str


@dataclass(frozen=True)
class Skipped:
    """The meter was not touched: its change is blocked, or the run stopped before it.

    `diagnostics` point at the manifest lines of a declared key that is blocked.
    """

    key: str
    action: str
    reason: str
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True)
class Unknown:
    """Something about the run as a whole is unknown. Everything that is known is recorded."""

    message: str


Event = Applied | Failed | Unconfirmed | Skipped | Unknown
