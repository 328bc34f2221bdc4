"""Checks that a token belongs to the organization that the manifest or the lockfile pins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polar_iac.errors import RefusedError
from polar_iac.meter.live import LiveMeter

if TYPE_CHECKING:  # an offline plan loads this module, and needs no HTTP client
    from polar_iac.polar.client import PolarClient


def confirm_organization(pinned: str | None, live: Sequence[LiveMeter], environment: str) -> str | None:
    """Return the organization that the token belongs to, as far as live meters show it.

    Raises RefusedError when it is not the pinned one.
    """
    ids = {meter.organization_id for meter in live}
    # Without a pinned organization, all meters must be of the same one.
    wrong = sorted(ids - {pinned}) if pinned else sorted(ids)[1:]
    if wrong:
        raise RefusedError(
            f"the token belongs to organization {wrong[0]}, but {environment} is pinned to {pinned} by the "
            "manifest or the lockfile: use a token of that organization"
        )
    return pinned or next(iter(ids), None)


def confirm_by_listing(client: PolarClient, pinned: str, environment: str) -> bool:
    """Check the pinned organization against the token's organizations. Return True if it is confirmed.

    For use when no live meter shows the organization. Returns False when a token with only meters scopes may
    not list organizations; the first create then shows it. Raises RefusedError when the pinned organization
    is not in the list.
    """
    ids = client.organization_ids()
    if ids is None:
        return False
    if pinned not in ids:
        others = " and ".join(sorted(ids)) or "none"
        raise RefusedError(
            f"the token belongs to another organization ({others}) than {pinned}, to which {environment} is "
            "pinned by the manifest or the lockfile: use a token of that organization"
        )
    return True
