"""A Polar that misbehaves: the embedded one behind real sockets, with faults by rule or at random rates.

A fault is named for what the client sees of it and for what becomes of the request: `reset-before` is never
processed, `reset-after` is processed and its answer lost, `reset-late` is processed a while after the client
saw that its connection is gone.
"""

from __future__ import annotations

import io
import json
import math
import random
import re
import select
import socket
import socketserver
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from wsgiref.util import setup_testing_defaults

from polar_iac.local import LocalPolar
from polar_iac.meter.marker import MARKER
from tests.support.command import HANG_SECONDS

_LOOP = "/v1/loop/"
"""The target of a redirect loop; every request there is answered by the same redirect."""


@dataclass(frozen=True)
class Request:
    """One request as the faults are chosen by it.

    `nth` counts the requests of its method, from 1. `subject` is what it is about, said so that it is the
    same in two runs (no id that the server drew by lot), and `again` counts the requests of its method about
    the same subject.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    nth: int
    subject: str
    again: int

    @property
    def lists(self) -> bool:
        return self.method == "GET" and self.path.endswith("/meters/")

    @property
    def page(self) -> int:
        match = re.search(r"\bpage=(\d+)", self.query)
        return int(match[1]) if match else 1


Choose = Callable[[Request], str | None]
"""A choice of the fault that a request meets, if any."""


def no_fault(_: Request) -> str | None:
    return None


def by_rule(kind: str, method: str, *nths: int, when: Callable[[Request], bool] = lambda _: True) -> Choose:
    """The fault for these requests of a method, counting those that `when` holds for; no numbers: all."""
    count = 0
    lock = threading.Lock()

    def choose(request: Request) -> str | None:
        nonlocal count
        if request.method != method or not when(request):
            return None
        with lock:
            count += 1
            return kind if not nths or count in nths else None

    return choose


def at_random(seed: int, rates: Mapping[str, float], kinds: Sequence[str] | None = None) -> Choose:
    """Faults at a rate for each method, all `kinds` alike often.

    What a request meets hangs on the seed and its subject alone, not on how threads were scheduled.
    """
    kinds = kinds or sorted(set(FAULTS) - COSTLY - FINAL)

    def choose(request: Request) -> str | None:
        rng = random.Random(f"{seed} {request.method} {request.subject} {request.again}")
        return rng.choice(kinds) if rng.random() < rates.get(request.method, 0.0) else None

    return choose


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def wire(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    wire_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, tuple({"content-length": str(len(body)), **wire_headers}.items()), body)


class Exchange:
    """A request, and what can be done to it and to its connection."""

    def __init__(self, faulty: Faulty, handler: _Handler, request: Request) -> None:
        self.faulty, self._handler, self.request = faulty, handler, request
        self.late = faulty.late

    def process(self, query: str | None = None) -> Answer:
        """Let the embedded Polar answer; `query` asks something else instead."""
        return self.faulty.process(self.request, self.request.query if query is None else query)

    def send(self, data: bytes | Answer) -> None:
        self._handler.connection.sendall(data.wire if isinstance(data, Answer) else data)

    def close(self) -> None:
        """End the connection in order."""
        self._handler.close_connection = True
        with suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End the connection by a RST, now."""
        self._handler.close_connection = True
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.rfile.close()  # it shares the socket, which is closed with its last user
        self._handler.connection.close()

    def hang(self) -> None:
        """Wait until the client has given up."""
        self._handler.close_connection = True
        select.select([self._handler.connection], [], [], HANG_SECONDS)


Fault = Callable[[Exchange], None]

FAULTS: dict[str, Fault] = {}

COSTLY = frozenset({"429-wait", "429-date"})
"""Faults that cost a second of real time each, left out of random choices."""

REFUSED, ELSEWHERE = "refused", "elsewhere"
FINAL = frozenset({REFUSED, ELSEWHERE})
"""Answers that are final, and so not faults that an apply could get over; by rule only."""

_HTML = b"<html><head><title>Bad gateway</title></head><body><h1>cloud says no</h1></body></html>\n"


def _losses() -> Iterator[tuple[str, Fault, Fault | None]]:
    """Ways to lose an answer, and how it is lost where the request is processed afterwards all the same:
    never when Polar itself has answered.
    """
    yield "reset", Exchange.reset, Exchange.reset
    yield "close", Exchange.close, Exchange.close
    yield "hang", Exchange.hang, Exchange.hang
    oops = b'{"error":"Oops","detail":"?"}'
    for name, error in {
        "500": answer(500, b"Internal Server Error", content_type="text/plain; charset=utf-8"),
        "500-json": answer(500, oops, content_type="application/json", polar_version="2026-04"),
        "502": answer(502, _HTML, content_type="text/html"),
        "503": answer(503, b"upstream connect error", content_type="text/plain"),
        "504": answer(504, _HTML, content_type="text/html; charset=utf-8"),
    }.items():
        # The connection is closed then: a client that does not know would lose its next request, too.
        last = Answer(error.status, (*error.headers, ("connection", "close")), error.body)
        late = None if error.status == 500 else partial(Exchange.send, data=last)
        yield name, partial(Exchange.send, data=error), late
    yield "redirect", partial(Exchange.send, data=answer(307, location=_LOOP)), None
    yield "see-other", partial(Exchange.send, data=answer(303, location=_LOOP)), None


def _register_losses() -> None:
    def after(lose: Fault) -> Fault:
        def fault(exchange: Exchange) -> None:
            exchange.process()
            lose(exchange)

        return fault

    def late(lose: Fault) -> Fault:
        def fault(exchange: Exchange) -> None:
            lose(exchange)
            # The next request of this client is not to wait for this thread.
            exchange.close()
            time.sleep(exchange.late)
            exchange.process()

        return fault

    for name, lose, lose_late in _losses():
        FAULTS[f"{name}-before"] = lose
        FAULTS[f"{name}-after"] = after(lose)
        if lose_late is not None:
            FAULTS[f"{name}-late"] = late(lose_late)


def _fault(name: str) -> Callable[[Fault], Fault]:
    def register(fault: Fault) -> Fault:
        FAULTS[name] = fault
        return fault

    return register


_register_losses()
FAULTS[ELSEWHERE] = lambda x: x.send(answer(307, location="javascript:x"))
FAULTS[REFUSED] = lambda x: x.send(answer(418, b"no", content_type="text/plain"))
FAULTS["429"] = lambda x: x.send(answer(429, retry_after="0"))
FAULTS["429-typed"] = lambda x: x.send(answer(429, retry_after="0", content_type="text/html"))
FAULTS["429-wait"] = lambda x: x.send(answer(429, retry_after="1"))
FAULTS["429-date"] = lambda x: x.send(answer(429, retry_after=formatdate(time.time() + 1, usegmt=True)))


@_fault("reset-within")
def _(exchange: Exchange) -> None:
    wire = exchange.process().wire
    exchange.send(wire[: len(wire) // 2])
    exchange.reset()


@_fault("truncated")
def _(exchange: Exchange) -> None:
    """Less than the content length promises."""
    exchange.send(exchange.process().wire[:-7])
    exchange.close()


@_fault("cut")
def _(exchange: Exchange) -> None:
    """JSON that ends in its middle, and a content length that agrees with it."""
    whole = exchange.process()
    exchange.send(_instead(whole, whole.body[: len(whole.body) // 2]))


@_fault("garbage")
def _(exchange: Exchange) -> None:
    exchange.send(_instead(exchange.process(), b"\x00\xff{]<garbage>"))


@_fault("nonsense")
def _(exchange: Exchange) -> None:
    """JSON, but none of Polar's."""
    exchange.send(_instead(exchange.process(), b'{"status":"ok","items":null}'))


@_fault("empty")
def _(exchange: Exchange) -> None:
    exchange.send(_instead(exchange.process(), b""))


@_fault("bad-gzip")
def _(exchange: Exchange) -> None:
    """The answer of a proxy that compresses answers and breaks them."""
    whole = _instead(exchange.process(), b"\x1f\x8b\x08 no gzip")
    exchange.send(Answer(whole.status, (*whole.headers, ("content-encoding", "gzip")), whole.body))


@_fault("no-http")
def _(exchange: Exchange) -> None:
    exchange.process()
    exchange.send(b"\x15\x03\x01\x00\x02\x02\x50 this is no HTTP\r\n\r\n")
    exchange.close()


@_fault("slow")
def _(exchange: Exchange) -> None:
    """Send some bytes at a time, for longer than a client waits for any of them."""
    wire = exchange.process().wire
    step = max(len(wire) // 8, 1)
    for start in range(0, len(wire), step):
        exchange.send(wire[start : start + step])
        time.sleep(exchange.faulty.drip)


@_fault("repeated-items")
def _(exchange: Exchange) -> None:
    """A page that begins with the items of the page before."""
    whole = exchange.process()
    page = json.loads(whole.body)
    page["items"][:0] = json.loads(exchange.process(_page_before(exchange.request)).body)["items"]
    exchange.send(_instead(whole, json.dumps(page).encode()))


@_fault("repeated-page")
def _(exchange: Exchange) -> None:
    """The page before, instead of the one that was asked for."""
    exchange.send(exchange.process(_page_before(exchange.request)))


_PAGED = frozenset({"repeated-items", "repeated-page"})
"""Faults that only a second page of a list can have."""


def _page_before(request: Request) -> str:
    return re.sub(r"\bpage=\d+", f"page={request.page - 1}", request.query)


def _instead(whole: Answer, body: bytes) -> Answer:
    headers = dict(whole.headers) | {"content-length": str(len(body))}
    return Answer(whole.status, tuple(headers.items()), body)


class _Replica:
    """The embedded Polar as it was some seconds ago: whole states, one after the other, never backwards."""

    def __init__(self, primary: LocalPolar) -> None:
        self._primary = primary._store
        self._polar = LocalPolar(organization_id=primary.organization_id)
        self._lock = threading.Lock()
        self._changes = -1
        self._states: deque[tuple[float, bytes]] = deque()
        self._shown: bytes | None = None
        self.note()
        self._states[0] = (float("-inf"), self._states[0][1])

    def note(self) -> None:
        """Keep the state that the primary is in, if it is a new one."""
        with self._primary._lock, self._lock:
            if self._changes != self._primary._db.total_changes:
                self._changes = self._primary._db.total_changes
                self._states.append((time.monotonic(), self._primary._db.serialize()))

    def answer(self, lag: float, ask: Callable[[LocalPolar], Answer]) -> tuple[Answer, bool]:
        """The answer from the state of `lag` seconds ago, and whether there is a newer one."""
        with self._lock:
            while len(self._states) > 1 and self._states[1][0] <= time.monotonic() - lag:
                self._states.popleft()
            if self._shown is not self._states[0][1]:
                self._shown = self._states[0][1]
                self._polar._store._db.deserialize(self._shown)
            return ask(self._polar), len(self._states) > 1

    def catch_up(self) -> None:
        """Forget all states but the one that the primary is in."""
        self.note()
        with self._lock:
            while len(self._states) > 1:
                self._states.popleft()

    def close(self) -> None:
        self._polar.close()


class Faulty:
    """A served embedded Polar with faults. `polar` is the truth behind it.

    `lag` is by how many seconds reads are behind, `late` how long after its loss a late request is processed,
    `drip` the seconds between two pieces of a slow answer; `page_size` bounds the pages of a list, so that
    few meters have several. All may be changed while it serves.
    """

    def __init__(
        self, polar: LocalPolar, choose: Choose, *, lag: float, late: float, drip: float, page_size: int
    ) -> None:
        self.polar, self.choose = polar, choose
        self.lag, self.late, self.drip, self.page_size = lag, late, drip, page_size
        self.served: Counter[str] = Counter()
        """Count of served faults by kind, such as `POST reset-after`; `GET lag` counts reads that
        were answered from an older state than the newest."""
        self.requests: Counter[str] = Counter()
        self._replica = _Replica(polar)
        self._held = 0
        self._about: Counter[tuple[str, str]] = Counter()
        self._numbers: dict[str, str] = {}
        self._counting = threading.Lock()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def process(self, request: Request, query: str) -> Answer:
        """The embedded Polar's own answer; a read comes from the replica."""
        query = re.sub(r"\blimit=(\d+)", lambda m: f"limit={min(int(m[1]), self.page_size)}", query)

        def ask(polar: LocalPolar) -> Answer:
            return _ask(polar, request, query)

        self._replica.note()
        if request.method == "GET" and self.lag > 0:
            whole, behind = self._replica.answer(self.lag, ask)
            self._count("GET lag" if behind else None)
            self._let_go()
            return whole
        whole = ask(self.polar)
        self._replica.note()
        return whole

    def hold(self, reads: int) -> None:
        """Answer the next `reads` reads from the state of now, however long they take to come."""
        self._replica.catch_up()
        self.lag, self._held = math.inf, reads

    def _let_go(self) -> None:
        with self._counting:
            if self._held:
                self._held -= 1
                self.lag = self.lag if self._held else 0.0

    def behave(self) -> None:
        """No faults and no lag from now on, and nothing still under way that could change the state."""
        self.choose, self.lag = no_fault, 0.0
        self.settle()

    def settle(self, seconds: float = HANG_SECONDS) -> None:
        """Wait until each request that came in is done with, late ones too."""
        with self._server.idle:
            assert self._server.idle.wait_for(lambda: not self._server.busy, seconds), "a request hangs"

    def part(self, seconds: float = 10.0) -> None:
        """Wait until each client that has ended is gone, with whatever it sent before."""
        with self._server.idle:
            assert self._server.idle.wait_for(lambda: not self._server.is_open, seconds), "a client stays"

    def kind(self, request: Request) -> str | None:
        """The fault that is to be served, counted."""
        kind = self.choose(request)
        if kind in _PAGED and not (request.lists and request.page > 1):
            return None
        self._count(kind and f"{request.method} {kind}")
        return kind

    def request(self, handler: _Handler, body: bytes) -> Request:
        path, _, query = handler.path.partition("?")
        headers = {name.lower(): value for name, value in handler.headers.items()}
        subject = self._subject(handler.command, path, query, body)
        with self._counting:
            self.requests[handler.command] += 1
            self._about[handler.command, subject] += 1
            nth, again = self.requests[handler.command], self._about[handler.command, subject]
        return Request(handler.command, path, query, headers, body, nth, subject, again)

    def _subject(self, method: str, path: str, query: str, body: bytes) -> str:
        if method == "POST":
            with suppress(ValueError, KeyError, TypeError):
                return str(json.loads(body)["metadata"][MARKER])
        meter_id = path.rpartition("/")[2]
        if not meter_id:
            return f"{path}?{query}"
        with self._counting:
            if meter_id not in self._numbers:
                with self.polar._store._lock:
                    row = self.polar._store._db.execute(
                        "SELECT number FROM meter WHERE id = ?", (meter_id,)
                    ).fetchone()
                self._numbers[meter_id] = str(row and row[0])
            return self._numbers[meter_id]

    def _count(self, kind: str | None) -> None:
        if kind:
            with self._counting:
                self.served[kind] += 1

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
        self._replica.close()


@contextmanager
def faulty_polar(
    polar: LocalPolar | None = None,
    choose: Choose = no_fault,
    *,
    lag: float = 0.0,
    late: float = 0.05,
    drip: float = 0.05,
    page_size: int = 100,
) -> Iterator[Faulty]:
    """Serve `polar`, or a new one, with faults. One that was given is left open."""
    own = polar or LocalPolar()
    try:
        faulty = Faulty(own, choose, lag=lag, late=late, drip=drip, page_size=page_size)
        faulty.start()
        try:
            yield faulty
        finally:
            faulty.stop()
    finally:
        if polar is None:
            own.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    connection: socket.socket

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client gave up
            super().handle()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with self.server.at_work():
            if self.path.startswith(_LOOP):
                self.connection.sendall(answer(307, location=_LOOP).wire)
                return
            faulty = self.server.faulty
            request = faulty.request(self, body)
            exchange = Exchange(faulty, self, request)
            kind = faulty.kind(request)
            if kind is None:
                exchange.send(exchange.process())
            else:
                FAULTS[kind](exchange)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


class _Server(socketserver.ThreadingTCPServer):
    """A thread for each connection. What it starts, it waits for in the end."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, faulty: Faulty) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faulty = faulty
        self.busy = 0
        self.idle = threading.Condition()
        self._open: set[socket.socket] = set()
        self._acceptor = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="faulty-polar", daemon=True
        )

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with self.idle:
            self.busy += 1
        try:
            yield
        finally:
            with self.idle:
                self.busy -= 1
                self.idle.notify_all()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.idle:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self.idle:
                self._open.discard(request)
                self.idle.notify_all()

    def start(self) -> None:
        self._acceptor.start()

    def stop(self) -> None:
        self.shutdown()
        self._acceptor.join()
        self.server_close()
        with self.idle:
            for connection in self._open:
                with suppress(OSError):  # it may be closed already
                    connection.shutdown(socket.SHUT_RDWR)
            assert self.idle.wait_for(lambda: not self._open, 10.0), "a connection does not end"


def _ask(polar: LocalPolar, request: Request, query: str) -> Answer:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "REQUEST_URI": request.path,
        "PATH_INFO": request.path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": request.headers.get("content-length", ""),
        "wsgi.input": io.BytesIO(request.body),
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()},
    }
    setup_testing_defaults(environ)
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], Any]:
        started.append((status, headers))
        return io.BytesIO().write

    parts: Iterable[bytes] = polar(environ, start_response)
    body = b"".join(parts)
    status, headers = started[0]
    return Answer(int(status.split()[0]), tuple(headers), body)
