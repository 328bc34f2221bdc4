"""Real HTTP servers on loopback for the tests: scripted answers, and the embedded Polar with a tape."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from polar_iac.local import LocalPolar, serving


@dataclass
class Exchange:
    """One request as the server saw it, and the status of its answer."""

    method: str
    path: str
    query: str
    body: Any
    headers: dict[str, str]
    status: int


@dataclass
class Tape:
    """Every exchange with a server, in order."""

    exchanges: list[Exchange] = field(default_factory=list)

    def sent(self, method: str) -> list[Any]:
        """The bodies of all requests of a method."""
        return [e.body for e in self.exchanges if e.method == method]

    def count(self, method: str) -> int:
        return sum(e.method == method for e in self.exchanges)

    def writes(self, since: int = 0) -> list[str]:
        """The requests other than GET, from the exchange of this number on."""
        return [f"{e.method} {e.path}" for e in self.exchanges[since:] if e.method != "GET"]

    def clear(self) -> None:
        self.exchanges.clear()


class Recording:
    """A WSGI application that puts on tape what it passes on."""

    def __init__(self, app: Any, tape: Tape) -> None:
        self._app, self._tape = app, tape
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        import io

        length = int(environ.get("CONTENT_LENGTH") or 0)
        data = environ["wsgi.input"].read(length) if length else b""
        environ["wsgi.input"] = io.BytesIO(data)

        def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            try:
                body = json.loads(data) if data else None
            except ValueError:
                body = data
            sent = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
            exchange = Exchange(
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                environ.get("QUERY_STRING", ""),
                body,
                sent,
                int(status.split()[0]),
            )
            with self._lock:
                self._tape.exchanges.append(exchange)
            return start_response(status, headers, *rest)

        return self._app(environ, started)  # type: ignore[no-any-return]


@dataclass
class Served:
    """An embedded Polar on loopback, and what it was asked."""

    url: str
    polar: LocalPolar
    tape: Tape

    def environ(self, token: str = "polar_oat_test") -> dict[str, str]:
        return {"POLAR_BASE_URL": self.url, "POLAR_ACCESS_TOKEN": token}


@contextmanager
def served_polar(polar: LocalPolar | None = None) -> Iterator[Served]:
    polar = polar or LocalPolar()
    tape = Tape()
    try:
        with serving(Recording(polar, tape)) as url:
            yield Served(url, polar, tape)
    finally:
        polar.close()


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def scripted(answer: Callable[[str, str, bytes], Answer]) -> Iterator[tuple[str, Tape]]:
    """A server that answers as `answer(method, path, body)` says: status, headers, body."""
    tape = Tape()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, headers, payload = answer(self.command, self.path, body)
            path, _, query = self.path.partition("?")
            parsed = json.loads(body) if body else None
            sent = {k.lower(): v for k, v in self.headers.items()}
            tape.exchanges.append(Exchange(self.command, path, query, parsed, sent, status))
            self.send_response(status)
            for name, value in {"content-length": str(len(payload)), **headers}.items():
                self.send_header(name, value)
            with suppress(BrokenPipeError, ConnectionResetError):  # the client gave up
                self.end_headers()
                self.wfile.write(payload)

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", tape
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


JSON = {"content-type": "application/json", "polar-version": "2026-04"}


def answer_json(status: int, data: Any, **headers: str) -> Answer:
    return status, {**JSON, **headers}, json.dumps(data).encode()


@contextmanager
def connections(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server of bare connections: `serve` has each to itself in a thread, and it is closed afterwards.

    Yields the URL. `serve` reads requests with `read_request`, and may do what no HTTP server does.
    """

    def run(connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the client gave up
            serve(connection)

    def accept() -> None:
        with suppress(OSError):  # the end
            while True:
                connection, _ = listening.accept()
                threads.append(threading.Thread(target=run, args=[connection], daemon=True))
                threads[-1].start()

    threads = list[threading.Thread]()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        acceptor.join(10)
    for thread in threads:
        thread.join(10)


def read_request(connection: socket.socket) -> bytes:
    """The head and body of the next request; empty when the client closed the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = (line.lower().partition(b":") for line in head.split(b"\r\n"))
    length = next((int(value) for name, _, value in lines if name == b"content-length"), 0)
    while len(body) < length and (more := connection.recv(65536)):
        body += more
    return head + b"\r\n\r\n" + body


def wire(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer as it is sent, of content type JSON where no other is given."""
    fields = {"content_type": "application/json", "content_length": str(len(body)), **headers}
    lines = [f"HTTP/1.1 {status} Any", *(f"{k.replace('_', '-')}: {v}" for k, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
