"""Access to facts: which token reads what, in each environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx

from polar_iac.clock import Clock
from polar_iac.manifest.environments import variable
from polar_iac.polar.connection import Connection, check_base_url
from polar_iac.polar.environments import LOCAL_TOKEN, base_url, local_polar, may_be_token, token
from polar_iac.polar.facts import Access, FactsReader
from polar_iac.polar.facts_budget import Budget

FACTS_TOKEN = "POLAR_FACTS_TOKEN"  # noqa: S105  a variable, no secret
"""Start of the variable with an environment's token for facts, which has the scopes `events:read`,
`products:read` and `benefits:read`, or some of them."""


@dataclass(frozen=True)
class Place:
    """An environment, as `polar.environments.connect` takes it: where it is, and whose.

    `state_directory` is called for `local` only.
    """

    environment: str
    server: str
    organization_id: str | None
    state_directory: Callable[[], Path]
    allow_http: bool = False


@contextmanager
def open_facts(
    place: Place,
    variables: Mapping[str, str],
    requests: int,
    seconds: float,
    *,
    clock: Clock,
    now: Callable[[], datetime],
) -> Iterator[FactsReader]:
    """Open a reader of facts for an environment to which `connect` opened a client before.

    Usage is read with the plan's token, everything else with that of `POLAR_FACTS_TOKEN_<ENV>`. Without one
    the rest is a gap. The embedded Polar takes its own token for both. `variables` is the process
    environment. `requests` and `seconds` are the budget; `now` is the time by Polar's clock.
    """
    with ExitStack() as stack:

        def connection(address: str, text: str, transport: httpx.BaseTransport | None = None) -> Connection:
            opened = Connection(address, text, transport=transport, timeout=seconds)
            return stack.enter_context(closing(opened))

        if place.environment == "local":
            local = stack.enter_context(closing(local_polar(place.state_directory())))
            opened = connection("http://localhost", LOCAL_TOKEN, httpx.WSGITransport(app=local))
            own = facts = Access(opened, place.environment)
        else:
            address = check_base_url(
                base_url(place.environment, place.server, variables), allow_http=place.allow_http
            )
            pinned = place.organization_id is not None
            own = Access(
                connection(address, token(place.environment, variables, pinned=pinned)),
                variable("POLAR_ACCESS_TOKEN", place.environment),
            )
            facts = _facts_access(place, variables, lambda text: connection(address, text))
        limited = None if place.environment == "local" else place.server
        budget = Budget(requests, seconds, clock, limited)
        yield FactsReader(own, facts, budget, organization_id=place.organization_id, now=now)


def _facts_access(place: Place, variables: Mapping[str, str], connect: Callable[[str], Connection]) -> Access:
    """Return the way of the facts token, or why there is none."""
    name = variable(FACTS_TOKEN, place.environment)
    text = variables.get(name, "").strip()
    if not text:
        return Access(None, name, f"there is no token in {name}")
    if not may_be_token(text):
        return Access(None, name, f"the token in {name} holds characters no token has")
    return Access(connect(text), name)
