"""Variables that the HTTP client reads by itself: which of them cannot be used, and why."""

from __future__ import annotations

import importlib.util
import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx

from polar_iac.errors import PolarIacError

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_SOCKS = ("socks5", "socks5h")
_PROXY_SCHEMES = ("http", "https", *_SOCKS)


def unusable_variable(variables: Mapping[str, str], error: Exception) -> PolarIacError:
    """Return the error for an HTTP client that could not be made: it names the variable to correct.

    No value of a proxy's variable is shown, because it may contain a password.
    """
    checks = (
        *((name, _proxy_problem) for name in _PROXIES),
        ("NO_PROXY", _no_proxy_problem),
        ("SSL_CERT_FILE", _certificates_problem),
        ("SSLKEYLOGFILE", _key_log_problem),
    )
    for upper, problem_of in checks:
        for name in (upper.lower(), upper):
            problem = problem_of(variables[name].strip()) if variables.get(name) else None
            if problem:
                return PolarIacError(f"{name} {problem}")
    return PolarIacError(f"the HTTP client cannot be used ({error}): check the variables *_PROXY and SSL_*")


def _proxy_problem(value: str) -> str | None:
    try:
        url = httpx.URL(value if "://" in value else f"http://{value}")
    except (httpx.InvalidURL, ValueError):
        return "is not an address of a proxy, such as http://proxy.example.com:3128"
    if url.scheme not in _PROXY_SCHEMES:
        return f"names a proxy of the unknown scheme {url.scheme}: use one of {', '.join(_PROXY_SCHEMES)}"
    if url.scheme in _SOCKS and importlib.util.find_spec("socksio") is None:
        return "names a SOCKS proxy: install polar-iac with the extra `socks` (polar-iac[socks])"
    return None


def _no_proxy_problem(value: str) -> str | None:
    """Find an entry that httpx would not understand. It reads `::1`, and neither `[::1]` nor `fe80::/10`."""
    for entry in filter(None, (part.strip() for part in value.split(","))):
        if "://" in entry:
            continue
        if "[" in entry:
            return f"holds `{entry}`: write an IPv6 address without brackets"
        if "/" in entry and ":" in entry:
            return f"holds `{entry}`: ranges of IPv6 addresses are not supported, name each address"
        try:
            httpx.URL(f"all://*{entry}" if ":" not in entry else f"all://[{entry}]")
        except (httpx.InvalidURL, ValueError):
            if entry.count(":") != 1:  # a host with a port is understood
                return f"holds `{entry}`, which is neither a host nor an address"
    return None


def _certificates_problem(value: str) -> str | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=value)
    except ssl.SSLError:
        return f"names {value}, which holds no certificates in PEM form"
    except OSError as error:
        return f"names {value}, which cannot be read: {error.strerror}"
    return None


def _key_log_problem(value: str) -> str | None:
    try:
        with Path(value).open("a", encoding="utf-8"):
            return None
    except OSError as error:
        return f"names {value}, which cannot be written: {error.strerror}"
