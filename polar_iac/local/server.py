"""HTTP/1.1 server for the embedded Polar, or any WSGI application, with a pool of threads."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.wsgi import Server

from polar_iac.errors import PolarIacError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

IDLE_SECONDS = 5
"""Seconds after which Polar closes an idle connection (observed)."""


class _Request(HTTPRequest):
    def __init__(self, server: Server, conn: HTTPConnection) -> None:
        # Without proxy mode, `//v1/meters/` is read as a URL of another host and never reaches the app.
        super().__init__(server, conn, proxy_mode=True)


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request

    def close(self) -> None:
        super().close()
        # Without this, the garbage collector tries again to send data to a client that left, and complains.
        with suppress(OSError, ValueError):
            self.wfile.close()


class _Server(Server):
    ConnectionClass = _Connection
    keep_alive_conn_limit = 1000
    expiration_interval = 0.1  # seconds between checks for idle connections, and for a stop


@contextmanager
def serving(
    app: WSGIApplication, port: int = 0, host: str = "127.0.0.1", *, threads: int = 10
) -> Iterator[str]:
    """Serve `app` in background threads and yield the base URL, without `/v1`. Port 0 picks a free port.

    Raises PolarIacError when the port is not available.
    """
    server = _Server((host, port), app, numthreads=threads, timeout=IDLE_SECONDS, request_queue_size=128)
    address = f"[{host}]" if ":" in host else host
    server.server_name = address  # the host in a redirect for a request without a Host header
    _check_port(host, port)
    server.prepare()
    thread = threading.Thread(target=server.serve, name="polar-iac-local", daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.bind_addr[1]}"
    finally:
        server.stop()
        thread.join()


def _check_port(host: str, port: int) -> None:
    """Raise PolarIacError if the port cannot be used.

    This runs before cheroot starts, because cheroot gives no reason and leaves its sockets open.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "choose another with --port, or --port 0 for any free one"
            raise PolarIacError(f"port {port} is in use: {hint}") from None
        raise PolarIacError(f"cannot serve on port {port}: {error.strerror}") from None
