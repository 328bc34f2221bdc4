"""Connection settings: addresses, tokens, and organizations of `production`, `sandbox`, and `local`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from polar_iac.clock import Clock
from polar_iac.errors import PolarIacError
from polar_iac.polar.client import BASE_URLS, ORGANIZATION_TOKEN, PolarClient
from polar_iac.polar.connection import check_base_url
from polar_iac.polar.network_variables import unusable_variable

LOCAL_TOKEN = "polar_oat_local"  # noqa: S105  opens the embedded Polar, which guards nothing
LOCAL_DATABASE = "local.sqlite"


@contextmanager
def connect(
    environment: str,
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

    `organization_id` is the pinned organization. `local` is the embedded Polar; only for it
    `state_directory` is called, which creates the directory of its database. `timeout` is the limit of one
    request, in seconds.
    """
    if environment == "local":
        from polar_iac.local import LocalPolar

        server = LocalPolar(state_directory() / LOCAL_DATABASE)
        try:
            transport = httpx.WSGITransport(app=server)
            with PolarClient("http://localhost", LOCAL_TOKEN, transport=transport, clock=clock) as client:
                yield client
        finally:
            server.close()
        return
    token = _token(environment, variables)
    if not token.startswith(ORGANIZATION_TOKEN) and organization_id is None:
        raise PolarIacError(
            f"this is not an organization access token ({ORGANIZATION_TOKEN}…). With a personal token, which "
            "may see several organizations, say in the manifest which one is meant: "
            f"environments: {{{environment}: {{organization_id: …}}}}"
        )
    base_url = check_base_url(
        _setting("POLAR_BASE_URL", environment, variables) or BASE_URLS[environment], allow_http=allow_http
    )
    try:
        client = PolarClient(
            base_url,
            token,
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


def _setting(name: str, environment: str, variables: Mapping[str, str]) -> str | None:
    """Return a variable's value.

    The environment-specific name wins over the general one; empty means unset.
    """
    value = variables.get(f"{name}_{environment.upper()}") or variables.get(name) or ""
    return value.strip() or None


def _token(environment: str, variables: Mapping[str, str]) -> str:
    token = _setting("POLAR_ACCESS_TOKEN", environment, variables)
    suffixed = f"POLAR_ACCESS_TOKEN_{environment.upper()}"
    if not token:
        raise PolarIacError(
            f"no token for {environment}: set {suffixed} (or POLAR_ACCESS_TOKEN) to an organization access "
            "token with the scope meters:read to plan, meters:write to apply"
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise PolarIacError(f"the token in {suffixed} or POLAR_ACCESS_TOKEN holds characters no token has")
    return token
