"""Storage of the embedded Polar's meters: one SQLite file that threads and processes share.

A meter is one JSON document, exactly as a GET returns it, so a read only copies it. The values that a list
filters or sorts by are also in columns.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from polar_iac.errors import PolarIacError
from polar_iac.local.layout import bring_up

JsonObject = dict[str, Any]

_BUSY_SECONDS = 30.0

_ORDER = {
    "name": "name_key, name",
    "-name": "name_key DESC, name DESC",
    "created_at": "created_at",
    "-created_at": "created_at DESC",
}


_HAS_PRODUCT = (
    "EXISTS (SELECT 1 FROM price JOIN product ON product.number = product_number"
    " WHERE meter_id = meter.id AND NOT price.is_archived AND NOT product.is_archived)"
)
_HAS_BENEFIT = "EXISTS (SELECT 1 FROM benefit WHERE meter_id = meter.id AND NOT is_deleted)"


@dataclass(frozen=True)
class StoredMeter:
    """A meter's document, and facts that are not in it."""

    document: JsonObject
    frozen: bool
    has_product: bool
    """True if an active product has a live price by the meter."""
    has_benefit: bool
    """True if a benefit that is not deleted grants units of the meter."""


@dataclass(frozen=True)
class Page:
    """One page of a list: the documents as JSON texts. `readable` is false if Polar fails on any of them."""

    documents: list[str]
    total: int
    readable: bool


class Store:
    """One organization's meters in one SQLite database."""

    organization_id: str

    def __init__(self, path: Path | str, organization_id: str | None) -> None:
        self._lock = threading.RLock()
        self._writing = False
        for file in (Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")):
            if file.is_symlink():  # a cloned repository may hold a link that leads out of it
                raise PolarIacError(f"{file} is a symbolic link: remove it, the local Polar follows none")
        # All threads share one connection: ":memory:" requires it, and a request takes about a millisecond.
        try:
            with ExitStack() as undo:
                self._db = sqlite3.connect(
                    path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
                )
                undo.callback(self._db.close)
                self.organization_id = self._open(organization_id)
                undo.pop_all()
        except (sqlite3.Error, ValueError) as e:
            raise PolarIacError(f"{path}: cannot open the local Polar: {e}") from e

    def _open(self, organization_id: str | None) -> str:
        self._db.create_function("ilike", 2, ilike, deterministic=True)
        self._db.create_function("holds", 2, _holds, deterministic=True)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        with self.write() as db:
            if bring_up(db):
                new_id = organization_id or str(uuid.uuid4())
                db.execute("INSERT INTO state VALUES (1, ?, '')", (new_id,))
            (stored_id,) = db.execute("SELECT organization_id FROM state").fetchone()
        if organization_id not in (None, stored_id):
            raise ValueError(f"the database belongs to the organization {stored_id}")
        return str(stored_id)

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection that all threads share. Use it inside `write` or `read` only."""
        return self._db

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Open a write transaction; inside another one, join it. It is rolled back when the block raises."""
        with self._lock:
            if self._writing:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            self._writing = True
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            else:
                self._db.execute("COMMIT")
            finally:
                self._writing = False

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Open a read transaction, in which all statements see the same data; inside another one, join it."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                self._db.execute("ROLLBACK")

    def now(self) -> str:
        """Return the time, later than every time returned before in any process. Call inside `write` only."""
        time = format_time(datetime.now(UTC))
        (last,) = self._db.execute("SELECT last_time FROM state").fetchone()
        if time <= last:  # the texts have equal length, so they sort like times
            time = format_time(datetime.fromisoformat(last) + timedelta(microseconds=1))
        self._db.execute("UPDATE state SET last_time = ?", (time,))
        return time

    def insert(self, document: JsonObject, *, readable: bool) -> None:
        """Add a meter. Call inside `write` only."""
        cursor = self._db.execute(
            "INSERT INTO meter (id, document, readable, name, name_key, created_at, archived_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (document["id"], *_columns(document, readable), document["created_at"], document["archived_at"]),
        )
        self._insert_metadata(cursor.lastrowid, document["metadata"])

    def update(self, document: JsonObject, *, readable: bool) -> None:
        """Replace a meter. Call inside `write` only."""
        (number,) = self._db.execute("SELECT number FROM meter WHERE id = ?", (document["id"],)).fetchone()
        self._db.execute(
            "UPDATE meter SET document = ?, readable = ?, name = ?, name_key = ?, archived_at = ?"
            " WHERE number = ?",
            (*_columns(document, readable), document["archived_at"], number),
        )
        self._db.execute("DELETE FROM metadata WHERE meter_number = ?", (number,))
        self._insert_metadata(number, document["metadata"])

    def _insert_metadata(self, number: int | None, metadata: Mapping[str, Any]) -> None:
        self._db.executemany(
            "INSERT INTO metadata VALUES (?, ?, ?)",
            [(number, key, as_text(value)) for key, value in metadata.items()],
        )

    def find(self, meter_id: str) -> StoredMeter | None:
        with self._lock:
            row = self._db.execute(
                f"SELECT document, frozen, {_HAS_PRODUCT}, {_HAS_BENEFIT} FROM meter WHERE id = ?",
                (meter_id,),
            ).fetchone()
        return row and StoredMeter(json.loads(row[0]), *map(bool, row[1:]))

    def meters(self) -> Sequence[JsonObject]:
        """Return all meters, archived ones too, in the order in which they were made."""
        with self.read() as db:
            rows = db.execute("SELECT document FROM meter ORDER BY number").fetchall()
        return [json.loads(document) for (document,) in rows]

    def find_text(self, meter_id: str) -> Page:
        """Return the meter with that id as a page of one document, or of none."""
        return self._page("id = ?", [meter_id], "number", limit=1, offset=0)

    def list(
        self,
        *,
        metadata: Mapping[str, Sequence[str]],
        query: str | None,
        is_archived: bool | None,
        sorting: Sequence[str],
        limit: int,
        offset: int,
    ) -> Page:
        conditions: list[str] = ["TRUE"]
        values: list[str] = []
        if query is not None:
            conditions.append("ilike(?, name)")
            values.append(query)
        if is_archived is not None:
            conditions.append("archived_at IS NOT NULL" if is_archived else "archived_at IS NULL")
        if metadata:
            held = "SELECT json_group_object(key, text) FROM metadata WHERE meter_number = number"
            conditions.append(f"holds(?, ({held}))")
            values.append(json.dumps(metadata))
        # On Polar, rows that sort as equal have no fixed order: across pages, some repeat and some are lost
        # (observed). To imitate this, each page orders them differently; page 1 uses the creation order.
        tie = f"number % {offset // limit + 1}, number"
        order = ", ".join([*(_ORDER[criterion] for criterion in sorting), tie])
        return self._page(" AND ".join(conditions), values, order, limit=limit, offset=offset)

    def _page(self, condition: str, values: Sequence[str], order: str, *, limit: int, offset: int) -> Page:
        with self.read() as db:
            rows = db.execute(
                f"SELECT document, readable FROM meter WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?",
                (*values, limit, offset),
            ).fetchall()
            (total,) = db.execute(f"SELECT count(*) FROM meter WHERE {condition}", values).fetchone()
        return Page([document for document, _ in rows], total, all(readable for _, readable in rows))

    def freeze(self, meter_id: str) -> None:
        """Mark a meter as frozen. Raises LookupError when there is no such meter."""
        with self.write() as db:
            if not db.execute("UPDATE meter SET frozen = 1 WHERE id = ?", (meter_id,)).rowcount:
                raise LookupError(f"no meter {meter_id}")

    def clear(self) -> None:
        """Delete everything but the organization and its clock."""
        with self.write() as db:
            for table in ("meter", "event", "customer", "product", "benefit", "seed"):
                db.execute(f"DELETE FROM {table}")

    def close(self) -> None:
        with self._lock:
            self._db.close()


def _columns(document: JsonObject, readable: bool) -> tuple[str, bool, str, str]:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    # PostgreSQL sorts names by the database's collation, which ignores case unless names tie (assumed).
    return text, readable, document["name"], document["name"].casefold()


def new_id() -> str:
    """Return a random id."""
    return str(uuid.uuid4())


def format_time(time: datetime) -> str:
    """Return a time in UTC as the database keeps it. Such texts sort like times."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def as_text(value: str | int | float) -> str:
    """Return a JSON value as PostgreSQL's `->>` does: `true`, `false`, and numbers without an exponent."""
    if isinstance(value, str):
        return value
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else json.dumps(value)


@lru_cache(maxsize=64)
def _like(query: str) -> tuple[list[re.Pattern[str]], re.Pattern[str], int]:
    r"""Compile PostgreSQL's ILIKE '%query%': the parts between `%`, the final part, and its length.

    `_` is a wildcard too. `\` escapes the next character, even the final `%` that is added here.
    """
    parts: list[list[str]] = [[]]
    characters = iter(f"{query}%".lower())
    for character in characters:
        if character == "%":
            parts.append([])
        elif character == "\\":
            parts[-1].append(re.escape(next(characters, "")))
        else:
            parts[-1].append("." if character == "_" else re.escape(character))
    *inner, last = (re.compile("".join(part), re.DOTALL) for part in parts)
    return inner, last, len(parts[-1])


def ilike(query: str, name: str) -> bool:
    """Tell whether PostgreSQL's ILIKE finds the query anywhere in the name.

    Match each part at its first fit. Backtracking never helps, and could take forever.
    """
    inner, last, length = _like(query)
    name, at = name.lower(), 0
    for part in inner:
        found = part.search(name, at)
        if found is None:
            return False
        at = found.end()
    return len(name) - at >= length and last.match(name, len(name) - length) is not None


@lru_cache(maxsize=8)
def _wanted(conditions: str) -> list[tuple[str, set[str]]]:
    return [(key, set(texts)) for key, texts in json.loads(conditions).items()]


def _holds(conditions: str, metadata: str) -> bool:
    """Tell whether metadata has one of the texts for each key.

    This is not SQL, because SQLite limits the depth of expressions.
    """
    held = json.loads(metadata)
    return all(held.get(key) in texts for key, texts in _wanted(conditions))
