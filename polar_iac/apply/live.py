"""Reading of all live meters, repeated while a read replica may lag."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from polar_iac.clock import Clock, poll_until
from polar_iac.meter.live import LiveMeter

if TYPE_CHECKING:
    from polar_iac.polar.client import OnPage, PolarClient

LOOKUP_TIMEOUT = 10.0
"""Seconds during which a lookup is repeated. Polar may read from a replica that lags (read)."""


def read_live(
    client: PolarClient,
    awaited: Collection[str],
    lookup_timeout: float,
    clock: Clock,
    *,
    is_settled: Callable[[Sequence[LiveMeter]], bool] = lambda _live: True,
    on_page: OnPage = lambda _done, _of: None,
) -> list[LiveMeter]:
    """List every meter, and retry for `lookup_timeout` seconds until the list is complete.

    It is complete when all `awaited` ids are in it and it `is_settled`, which may raise when the list can
    never be used. Example: the live meters belong to another organization.
    """
    ids, live = set(awaited), list[LiveMeter]()

    def is_complete() -> bool:
        live[:] = client.list_meters(on_page)
        settled = is_settled(live)
        return settled and ids <= {meter.id for meter in live}

    poll_until(is_complete, lookup_timeout, clock)
    return live
