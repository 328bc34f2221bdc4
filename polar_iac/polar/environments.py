"""Connection settings of an environment: its address, its token, and its organization."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from polar_iac import ENVIRONMENTS
from polar_iac.clock import Clock
from polar_iac.errors import PolarIacError
from polar_iac.manifest.environments import variable
from polar_iac.polar.client import BASE_URLS, ORGANIZATION_TOKEN, PolarClient
from polar_iac.polar.connection import check_base_url
from polar_iac.polar.network_variables import unusable_variable

if TYPE_CHECKING:
    from polar_iac.local import LocalPolar

LOCAL_TOKEN = "polar_oat_local"  # noqa: S105  opens the embedded Polar, which guards nothing
LOCAL_DATABASE = "local.sqlite"


@contextmanager
def connect(
    environment: str,
    server: str,
    variables: Mapping[str, str],
    organization_id: str | None,
    state_directory: Callable[[], Path],
    *,
    clock: Clock,
    on_wait: Callable[[float], None],
    on_retry: Callable[[str], None] = lambda _: None,
    timeout: float = 30.0,
    allow_http: bool = False,
) -> Iterator[PolarClient]:
    """Open a client for the environment. `variables` is the process environment, the only source of tokens.

    `server` is the one of Polar's that the environment is on, unless a variable gives another address.
    `organization_id` is the pinned organization. `local` is the embedded Polar; only for it
    `state_directory` is called, which creates the directory of its database. `timeout` is the limit of one
    request, in seconds.
    """
    if environment == "local":
        with closing(local_polar(state_directory())) as local:
            transport = httpx.WSGITransport(app=local)
            with PolarClient("http://localhost", LOCAL_TOKEN, transport=transport, clock=clock) as client:
                yield client
        return
    own_token = token(environment, variables, pinned=organization_id is not None)
    if not own_token.startswith(ORGANIZATION_TOKEN) and organization_id is None:
        raise PolarIacError(
            f"this is not an organization access token ({ORGANIZATION_TOKEN}…). With a personal token, which "
            "may see several organizations, say in the manifest which one is meant: "
            f"environments: {{{environment}: {{organization_id: …}}}}"
        )
    address = check_base_url(base_url(environment, server, variables), allow_http=allow_http)
    try:
        client = PolarClient(
            address,
            own_token,
            organization_id=organization_id,
            clock=clock,
            on_wait=on_wait,
            on_retry=on_retry,
            timeout=timeout,
        )
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        raise unusable_variable(variables, error) from error
    with client:
        yield client


def local_polar(directory: Path) -> LocalPolar:
    """Open the embedded Polar whose database is in this directory."""
    # Here, so that no other environment waits for it.
    from polar_iac.local import LocalPolar

    return LocalPolar(directory / LOCAL_DATABASE)


def _setting(
    name: str, environment: str, variables: Mapping[str, str], *, may_be_general: bool
) -> str | None:
    """Return a variable's value.

    The environment's own variable wins over the general one; empty means unset.
    """
    general = variables.get(name) if may_be_general else None
    value = variables.get(variable(name, environment)) or general or ""
    return value.strip() or None


def base_url(environment: str, server: str, variables: Mapping[str, str]) -> str:
    """Return the address of an environment: its server's, or what a variable says.

    The general variable does not move what the manifest defines, which may be in several places.
    """
    other = _setting("POLAR_BASE_URL", environment, variables, may_be_general=environment in ENVIRONMENTS)
    return other or BASE_URLS[server]


def token(environment: str, variables: Mapping[str, str], *, pinned: bool) -> str:
    """Return the token of an environment. Raises PolarIacError when there is none, or a damaged one.

    The general variable may be another organization's. An environment that the manifest defines uses it only
    if a pinned organization shows whose it must be.
    """
    name, own = "POLAR_ACCESS_TOKEN", variable("POLAR_ACCESS_TOKEN", environment)
    may_be_general = pinned or environment in ENVIRONMENTS
    text = _setting(name, environment, variables, may_be_general=may_be_general)
    if not text:
        either = f" (or {name})" if may_be_general else ""
        why = (
            f". {name} is not used, since {environment} has no `organization_id` that shows whose it must be"
            if variables.get(name)
            else ""
        )
        raise PolarIacError(
            f"no token for {environment}: set {own}{either} to an organization access "
            f"token with the scope meters:read to plan, meters:write to apply{why}"
        )
    if not may_be_token(text):
        raise PolarIacError(f"the token in {own} or {name} holds characters no token has")
    return text


def may_be_token(text: str) -> bool:
    """Tell whether a text holds only characters that a token may have."""
    return text.isascii() and text.isprintable() and " " not in text
