"""Serves the embedded Polar, or any WSGI application, over HTTP/1.1 from a pool of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.wsgi import Server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

IDLE_SECONDS = 5
"""After which Polar closes a connection that nobody uses (observed)."""


class _Request(HTTPRequest):
    def __init__(self, server: Server, conn: HTTPConnection) -> None:
        # Otherwise `//v1/meters/` is taken for a URL of another host, and refused before the app sees it.
        super().__init__(server, conn, proxy_mode=True)


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request


class _Server(Server):
    ConnectionClass = _Connection
    keep_alive_conn_limit = 1000
    expiration_interval = 0.1  # seconds between looks for idle connections, and so until a stop is seen


@contextmanager
def serving(
    app: WSGIApplication, port: int = 0, host: str = "127.0.0.1", *, threads: int = 10
) -> Iterator[str]:
    """Serve `app` in background threads; yields the base URL, without `/v1`. Port 0 takes any free one."""
    server = _Server((host, port), app, numthreads=threads, timeout=IDLE_SECONDS, request_queue_size=128)
    server.prepare()
    thread = threading.Thread(target=server.serve, name="polar-iac-local", daemon=True)
    thread.start()
    try:
        address = f"[{host}]" if ":" in host else host
        yield f"http://{address}:{server.bind_addr[1]}"
    finally:
        server.stop()
        thread.join()
