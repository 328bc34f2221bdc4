"""Storage of events, the customers that they name, and which meters matched them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from polar_iac.local.store import JsonObject, Store

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SYSTEM_LABELS = {"meter.credited": "Meter Credited"}
"""Labels of Polar's own events (assumed). A user's event is labeled by its name (observed)."""


@dataclass(frozen=True)
class NewEvent:
    """An event as it is stored. `metadata` is as it comes back from the database."""

    id: str
    name: str
    timestamp: datetime
    metadata: JsonObject
    source: str = "user"
    external_id: str | None = None
    customer_id: str | None = None
    external_customer_id: str | None = None
    member_id: str | None = None
    external_member_id: str | None = None
    parent: str | None = None
    """The id or the external id of another event, which may be unknown yet."""


@dataclass(frozen=True)
class StoredEvent:
    """An event of the database, as the engines read it."""

    number: int
    name: str
    source: str
    micros: int
    customer_id: str | None
    external_customer_id: str | None
    metadata: JsonObject

    @property
    def moment(self) -> datetime:
        """The timestamp in UTC."""
        return EPOCH + timedelta(microseconds=self.micros)


@dataclass(frozen=True)
class Customers:
    """A selection of customers, by id or by external id. None selects everybody (observed)."""

    ids: tuple[str, ...] | None = None
    external_ids: tuple[str, ...] | None = None

    def condition(self) -> tuple[str, list[str]]:
        """Return the SQL of an event's customer being one of them, and its values.

        A customer who is known is found by both ids, whichever of the two the event has. With both parameters
        an event of either is taken (observed).
        """
        parts, values = list[str](), list[str]()
        if self.ids is not None:
            known = "SELECT external_id FROM customer WHERE id IN (SELECT value FROM json_each(?))"
            parts.append(
                f"customer_id IN (SELECT value FROM json_each(?)) OR external_customer_id IN ({known})"
            )
            values += [json.dumps(self.ids)] * 2
        if self.external_ids is not None:
            known = "SELECT id FROM customer WHERE external_id IN (SELECT value FROM json_each(?))"
            parts.append(
                f"external_customer_id IN (SELECT value FROM json_each(?)) OR customer_id IN ({known})"
            )
            values += [json.dumps(self.external_ids)] * 2
        return f"({' OR '.join(parts)})" if parts else "TRUE", values


EVERYBODY = Customers()


class Events:
    """The events of one organization. Methods that write are called inside `Store.write` only."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def insert(self, events: Sequence[NewEvent]) -> list[int]:
        """Add events and return the numbers of those that are no repeats of an external id, in order."""
        db = self._store.connection
        numbers = list[int]()
        for event in events:
            micros = (event.timestamp - EPOCH) // timedelta(microseconds=1)
            cursor = db.execute(
                "INSERT INTO event (id, external_id, name, source, micros, millis, customer_id,"
                " external_customer_id, member_id, external_member_id, awaited_parent, metadata)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (external_id) DO NOTHING",
                (
                    event.id,
                    event.external_id,
                    event.name,
                    event.source,
                    micros,
                    micros // 1000,
                    event.customer_id,
                    event.external_customer_id,
                    event.member_id,
                    event.external_member_id,
                    event.parent,
                    json.dumps(event.metadata, ensure_ascii=False),
                ),
            )
            if cursor.rowcount and cursor.lastrowid is not None:
                numbers.append(cursor.lastrowid)
        self._find_parents()
        return numbers

    def _find_parents(self) -> None:
        """Link events to parents that have arrived, before or after them."""
        awaited = "event.awaited_parent"
        found = f"SELECT p.id FROM event p WHERE p.id = {awaited} OR p.external_id = {awaited}"
        self._store.connection.execute(
            f"UPDATE event SET parent_id = ({found}), awaited_parent = NULL"
            f" WHERE awaited_parent IS NOT NULL AND EXISTS ({found})"
        )

    def any(self) -> bool:
        """Tell whether there is any event."""
        return self._store.connection.execute("SELECT 1 FROM event LIMIT 1").fetchone() is not None

    def all(
        self, customers: Customers = EVERYBODY, *, numbers: Iterable[int] | None = None
    ) -> list[StoredEvent]:
        """Return the events of customers, in the order in which they came; of these numbers, if given."""
        condition, values = customers.condition()
        if numbers is not None:
            condition += " AND number IN (SELECT value FROM json_each(?))"
            values.append(json.dumps(list(numbers)))
        with self._store.read() as db:
            rows = db.execute(
                "SELECT number, name, source, micros, customer_id, external_customer_id, metadata FROM event"
                f" WHERE {condition} ORDER BY number",
                values,
            ).fetchall()
        return [
            StoredEvent(number, name, source, micros, customer_id, external_id, json.loads(metadata))
            for number, name, source, micros, customer_id, external_id, metadata in rows
        ]

    def match(self, meter_number: int, event_numbers: Iterable[int]) -> None:
        """Record that billing matched the events to a meter."""
        self._store.connection.executemany(
            "INSERT OR IGNORE INTO matched VALUES (?, ?)", ((meter_number, event) for event in event_numbers)
        )

    def add_customer(self, document: JsonObject) -> None:
        """Add a customer. Raises ValueError when another one has the external id."""
        same = "SELECT 1 FROM customer WHERE external_id = ?"
        if self._store.connection.execute(same, (document["external_id"],)).fetchone():
            raise ValueError(f"a customer has the external id {document['external_id']!r} already")
        self._store.connection.execute(
            "INSERT INTO customer VALUES (?, ?, ?)",
            (document["id"], document["external_id"], json.dumps(document, ensure_ascii=False)),
        )

    def customers(self) -> list[JsonObject]:
        """Return all customers as Polar shows them, the oldest first."""
        rows = self._store.connection.execute("SELECT id, external_id FROM customer ORDER BY rowid")
        shown = [self._customer(customer_id, external_id) for customer_id, external_id in rows.fetchall()]
        return [customer for customer in shown if customer is not None]

    def unknown_customers(self, ids: Iterable[str]) -> set[str]:
        """Return those of the ids that no customer has."""
        wanted = set(ids)
        rows = self._store.connection.execute(
            "SELECT id FROM customer WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(wanted)),),
        )
        return wanted - {row[0] for row in rows}

    def page(
        self,
        condition: str,
        values: Sequence[Any],
        *,
        descending: bool,
        limit: int,
        offset: int,
    ) -> tuple[list[JsonObject], int]:
        """Return one page of events as Polar shows them, and how many there are in all.

        An event whose parent has not arrived is not listed (observed).
        """
        condition = f"awaited_parent IS NULL AND {condition}"
        direction = "DESC" if descending else "ASC"
        with self._store.read() as db:
            rows = db.execute(
                f"SELECT {_SHOWN} FROM event WHERE {condition}"
                f" ORDER BY millis {direction}, number LIMIT ? OFFSET ?",
                (*values, limit, offset),
            ).fetchall()
            (total,) = db.execute(f"SELECT count(*) FROM event WHERE {condition}", values).fetchone()
            documents = [self._document(row) for row in rows]
        return documents, total

    def get(self, event_id: str) -> JsonObject | None:
        """Return one event as Polar shows it. Its `child_count` is 0 there (observed)."""
        with self._store.read() as db:
            row = db.execute(f"SELECT {_SHOWN} FROM event WHERE id = ?", (event_id,)).fetchone()
            return row and {**self._document(row), "child_count": 0}

    def names(
        self, condition: str, values: Sequence[Any], order: str, *, limit: int, offset: int
    ) -> tuple[list[JsonObject], int]:
        """Return one page of event names with how often and when they were seen, and how many there are.

        Times are in milliseconds, as the analytics store keeps them (assumed).
        """
        groups = (
            "SELECT name, source, count(*) AS occurrences, min(millis) AS first_seen,"
            " max(millis) AS last_seen"
            f" FROM event WHERE awaited_parent IS NULL AND {condition} GROUP BY name, source"
        )
        with self._store.read() as db:
            rows = db.execute(
                f"{groups} ORDER BY {order} LIMIT ? OFFSET ?", (*values, limit, offset)
            ).fetchall()
            (total,) = db.execute(f"SELECT count(*) FROM ({groups})", values).fetchone()
        return [
            {
                "name": name,
                "label": _label(name, source),
                "source": source,
                "occurrences": occurrences,
                "first_seen": show_micros(first * 1000),
                "last_seen": show_micros(last * 1000),
            }
            for name, source, occurrences, first, last in rows
        ], total

    def _document(self, row: Sequence[Any]) -> JsonObject:
        event_id, name, source, micros, customer_id, external_customer_id, *rest = row
        member_id, external_member_id, parent_id, metadata, children = rest
        return {
            "id": event_id,
            "timestamp": show_micros(micros),
            "organization_id": self._store.organization_id,
            "customer_id": customer_id,
            "customer": self._customer(customer_id, external_customer_id),
            "external_customer_id": external_customer_id,
            "member_id": member_id,
            "external_member_id": external_member_id,
            "child_count": children,
            "parent_id": parent_id,
            "label": _label(name, source),
            "name": name,
            "source": source,
            "metadata": _shown_metadata(json.loads(metadata)),
        }

    def _customer(self, customer_id: str | None, external_id: str | None) -> JsonObject | None:
        row = self._store.connection.execute(
            "SELECT id, external_id, document FROM customer WHERE id = ? OR external_id = ?",
            (customer_id, external_id),
        ).fetchone()
        if row is None:
            return None
        (first,) = self._store.connection.execute(
            "SELECT min(micros) FROM event WHERE source = 'user'"
            " AND (customer_id = ? OR external_customer_id = ?)",
            (row[0], row[1]),
        ).fetchone()
        seen = None if first is None else show_micros(first)
        return {**json.loads(row[2]), "first_user_event_at": seen}


_SHOWN = (
    "id, name, source, micros, customer_id, external_customer_id, member_id, external_member_id,"
    " parent_id, metadata, (SELECT count(*) FROM event child WHERE child.parent_id = event.id)"
)


def show_time(moment: datetime) -> str:
    """Return a time as Polar writes it: in UTC, without a fraction of zero (observed)."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def show_micros(micros: int) -> str:
    """Return microseconds since 1970 as Polar writes a time."""
    return show_time(EPOCH + timedelta(microseconds=micros))


def _label(name: str, source: str) -> str:
    return name if source == "user" else SYSTEM_LABELS.get(name, name)


def _shown_metadata(metadata: JsonObject) -> JsonObject:
    """Return metadata as Polar shows it: the amount of a cost, stored as a number, is text (observed)."""
    cost = metadata.get("_cost")
    if not isinstance(cost, dict):
        return metadata
    return {**metadata, "_cost": {**cost, "amount": str(Decimal(str(cost["amount"])))}}
