"""Mutated manifests, lockfiles, journals and API answers: a clear error or none, never a traceback."""

from __future__ import annotations

import json
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from polar_iac.errors import Diagnostic, DiagnosticError, PolarIacError
from polar_iac.manifest import read as manifest
from polar_iac.manifest.model import Manifest
from polar_iac.meter.record import Record
from polar_iac.plan.decide import make_plan
from polar_iac.plan.document import plan_json
from polar_iac.polar.client import PolarClient
from polar_iac.polar.errors import ApiError
from polar_iac.polar.retry import RetryPolicy
from polar_iac.report.diagnostics import diagnostics_text
from polar_iac.report.text import plan_text
from polar_iac.state import journal, lockfile
from polar_iac.state.journal import Journal
from polar_iac.state.lockfile import Lockfile
from tests.support.build import NOW, ORGANIZATION, PROJECT, desired, identifier, meter, spec

SECONDS = 5
"""The longest that one input may take."""

_TOKENS = [
    *(b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\t", b"'", b'"', b"{", b"}", b"[", b"]", b": ", b"- "),
    *(b"&a ", b"*a", b"<<: *a", b"!!python/object:x ", b"---\n", b"...", b"|\n", b">", b"%YAML 9.9\n", b"#"),
    *(b"null", b"true", b"NaN", b"1e999", b"-0.0", b"9" * 30, b"9" * 5000, b"1.5", b"2024-01-01", b"0x7f"),
    *(b"\\u0000", b"\\ud800", "🚀".encode(), "\u202e".encode(), b"\x1b[2J", b"metadata.", b"polar_iac"),
    *(b"archived: true\n", b"id", b'"clauses":[]', b"<<<<<<< HEAD\n", b"version", b"[" * 400, b'{"a":' * 200),
]

MANIFEST = (Path(__file__).parents[2] / "meters.yaml").read_bytes()
LOCKFILE = lockfile.dumps(
    Lockfile("sandbox", ORGANIZATION, PROJECT, {f"k{n}": Record(identifier(n), spec()) for n in range(3)})
).encode()
ANSWER = json.dumps(
    {
        "items": [
            {
                **meter(metadata={"polar_iac": f"{PROJECT}/k", "tier": 2}),
                "id": identifier(1),
                "organization_id": ORGANIZATION,
                "created_at": "2026-01-01T00:00:00.000001Z",
                "modified_at": None,
                "unit": "scalar",
                "custom_label": None,
                "custom_multiplier": None,
                "archived_at": None,
            }
        ],
        "pagination": {"total_count": 1, "max_page": 1},
    }
).encode()


def _journal() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "journal"
        with Journal(path, Lockfile("sandbox", None, PROJECT)) as written:
            written.learn_organization(ORGANIZATION)
            written.intend("a", f"{PROJECT}/a", spec(), NOW)
            written.record("a", Record(identifier(1), spec()), answer="created")
            written.intend("b", f"{PROJECT}/b", spec(), NOW)
            written.record("c", Record(identifier(2), None, frozen=True), was="a")
            written.not_created("b")
            written.forget("c", identifier(2))
            written.duplicates_settled()
            return path.read_bytes()


JOURNAL = _journal()


def mutated(rng: random.Random, data: bytes) -> bytes:
    """`data` with bytes flipped, parts cut, doubled or moved, and words that mean something put in."""
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice([1, 1, 4, 20, 200]))
        match rng.randrange(7):
            case 0 if data:
                at = rng.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
            case 1:
                data = data[:start] + data[end:]
            case 2:
                data = data[:end] + data[start:end] * rng.choice([1, 2, 30]) + data[end:]
            case 3:
                data = data[:start] + rng.choice(_TOKENS) + data[end:]
            case 4:
                lines = data.split(b"\n")
                one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[one], lines[two] = lines[two], lines[one]
                data = b"\n".join(lines)
            case 5:
                data = data[:start]
            case _:
                data = data[:start] + rng.choice(_TOKENS) + data[start:]
    return data


def load_manifest(data: bytes) -> None:
    try:
        loaded = manifest.load(data, "meters.yaml")
    except DiagnosticError as error:
        _printed(error.diagnostics)
    else:
        _planned(loaded, [], {})


def load_lockfile(data: bytes) -> None:
    try:
        loaded = lockfile.loads(data.decode("utf-8", "replace"), "lock.json", "sandbox", PROJECT)
    except DiagnosticError as error:
        _printed(error.diagnostics)
    else:
        text = lockfile.dumps(loaded)
        assert lockfile.dumps(lockfile.loads(text, "lock.json", "sandbox", PROJECT)) == text
        _planned(desired({"k1": meter(name="New")}), None, loaded.meters)


def read_journal(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "journal"
        path.write_bytes(data)
        try:
            state = journal.read(path, Lockfile("sandbox", None, PROJECT))
        except PolarIacError:
            return
        with Journal(path, Lockfile("sandbox", None, PROJECT)) as again:
            assert again.meters == state.meters
            again.forget("x", identifier(9))
        lockfile.dumps(Lockfile("sandbox", state.organization_id, PROJECT, state.meters))


def read_answers(data: bytes) -> None:
    status = 200 + (data[0] if data else 0) % 2 * 222
    transport = httpx.MockTransport(
        lambda _: httpx.Response(status, content=data, headers={"polar-version": "2026-04"})
    )
    with PolarClient(
        "http://localhost", "polar_oat_x", transport=transport, retry=RetryPolicy(first_wait=1e-9)
    ) as client:
        live = []
        with suppress(ApiError):
            live = client.list_meters()
        with suppress(ApiError):
            client.create_meter(meter())
    _planned(desired({"k": meter(name="New")}), live, {})


def _printed(diagnostics: tuple[Diagnostic, ...]) -> None:
    assert diagnostics
    for line in diagnostics_text(diagnostics).split("\n"):
        assert line.isprintable() or "\x1b[" in line or "\u200d" in line, repr(line)


def _planned(loaded: Manifest, live: Any, recorded: Any) -> None:
    made = make_plan(loaded, recorded, live, environment="sandbox", organization_id=ORGANIZATION)
    assert plan_text(made, "meters.yaml")
    assert json.loads(plan_json(made))["digest"] == made.digest


TARGETS: dict[str, tuple[bytes, Callable[[bytes], None]]] = {
    "manifest": (MANIFEST, load_manifest),
    "lockfile": (LOCKFILE, load_lockfile),
    "journal": (JOURNAL, read_journal),
    "answers": (ANSWER, read_answers),
}


@contextmanager
def _bounded() -> Iterator[None]:
    """Nothing hangs: an input that takes too long is interrupted, and fails."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(name: str, seeds: range) -> None:
    """Feed one mutated input per seed to a target; raises AssertionError with the seed of one that fails."""
    origin, target = TARGETS[name]
    for seed in seeds:
        data = mutated(random.Random(f"{name}-{seed}"), origin)
        try:
            with _bounded():
                target(data)
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}: {type(error).__name__}: {error}") from error
