"""Requests, as WSGI gives them: path, query, token and body."""

from __future__ import annotations

import re
from email.message import Message
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

from polar_iac.local.answers import AnswerError, answer_json
from polar_iac.local.validation import read_json

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_ORIGIN = re.compile(r"\Ahttps?://[^/]*", re.IGNORECASE)


class Request:
    """One request, as WSGI gives it."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path = _path(environ)
        self.query: str = environ.get("QUERY_STRING", "")

    def header(self, name: str) -> str:
        """Return a header, or the empty text."""
        return str(self.environ.get("HTTP_" + name.upper().replace("-", "_"), ""))

    @property
    def content_length(self) -> int | None:
        """The length of the body in bytes, or None when none is given."""
        text = self.environ.get("CONTENT_LENGTH", "")
        return int(text) if text.isdecimal() else None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The parameters of the query, in order."""
        return parse_qsl(self.query, keep_blank_values=True)

    @property
    def token(self) -> str | None:
        """Return the bearer token, or None. Another scheme counts as no token (read)."""
        scheme, _, token = self.header("authorization").partition(" ")
        token = token.strip()
        return token if scheme.lower() == "bearer" and token and token.isascii() else None

    def read_body(self) -> object:
        """Read the body: JSON data if its content type says so, otherwise bytes. None when empty."""
        data: bytes = self.environ["wsgi.input"].read(self.content_length or 0)
        media = Message()
        media["content-type"] = self.environ.get("CONTENT_TYPE", "")
        subtype = media.get_content_subtype()
        if media.get_content_maintype() != "application" or not (
            subtype == "json" or subtype.endswith("+json")
        ):
            return data or None
        try:
            return read_json(data)
        except (ValueError, RecursionError):
            raise AnswerError(answer_json(400, {"detail": "There was an error parsing the body"})) from None

    def url(self, path: str) -> str:
        """Return the absolute URL of a path on this host, as Starlette writes it for a redirect (read)."""
        host = self.header("host") or f"{self.environ['SERVER_NAME']}:{self.environ['SERVER_PORT']}"
        url = f"{self.environ['wsgi.url_scheme']}://{host}{path}" + (f"?{self.query}" if self.query else "")
        return quote(url, safe=":/%#?=@[]!$&'()*+,;")

    def drain(self) -> None:
        """Read a chunked body to its end, so that the connection can be reused."""
        if self.environ.get("wsgi.input_terminated"):
            while self.environ["wsgi.input"].read(65536):
                pass


def _path(environ: WSGIEnvironment) -> str:
    # Prefer the raw path: servers differ in what they decode, and in PATH_INFO `a%2Fb` has become `a/b`.
    if raw := environ.get("REQUEST_URI"):
        # A client of a proxy sends the whole URL. `//v1` is a path, not a host.
        return unquote(_ORIGIN.sub("", raw.partition("?")[0])) or "/"
    path: str = environ["PATH_INFO"]
    try:
        return path.encode("latin-1").decode()
    except UnicodeError:
        return path  # already decoded, for example by httpx
