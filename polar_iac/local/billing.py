"""Billing: which meters an event matches when it is ingested, and which meters that freezes.

Being born frozen is decided in SQL, being frozen by billing in Python, and the two disagree (observed). Both
come from `polar_iac.meter.meaning`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from polar_iac.local.answers import ServerError
from polar_iac.local.events import Events, StoredEvent, show_micros
from polar_iac.local.store import JsonObject, Store
from polar_iac.meter.meaning.aggregations import Measure, compile_aggregation
from polar_iac.meter.meaning.events import Event, QueryError
from polar_iac.meter.meaning.filters import Matcher, compile_filter


@dataclass(frozen=True)
class Engines:
    """A meter's filter and aggregation, compiled for both engines."""

    matcher: Matcher
    measure: Measure

    def bills(self, event: Event) -> bool:
        """Tell whether billing matches the event when it is ingested."""
        return self.matcher.billing(event) and self.measure.billing(event)

    def counts(self, event: Event) -> bool:
        """Tell whether `/quantities` counts the event. Raises QueryError."""
        return self.matcher.sql(event) and self.measure.sql(event)


def engines(meter: Mapping[str, Any]) -> Engines:
    """Compile the filter and aggregation of a meter's document, or take those that were compiled before."""
    return _compiled(json.dumps([meter["filter"], meter["aggregation"]], ensure_ascii=False))


@lru_cache(maxsize=10_000)
def _compiled(text: str) -> Engines:
    filter_, aggregation = json.loads(text)
    return Engines(compile_filter(_unstripped(filter_)), compile_aggregation(_unstripped(aggregation)))


def _unstripped(part: JsonObject) -> JsonObject:
    """Return a stored filter or aggregation as it could have been sent.

    A stored one has lost two leading `metadata.`, and compiling takes two off. So `metadata.x`, which is the
    rest of three and a path into an object, gets them back.
    """
    if "clauses" in part:
        return {**part, "clauses": [_unstripped(inner) for inner in part["clauses"]]}
    if not part.get("property", "").startswith("metadata."):
        return part
    return {**part, "property": f"metadata.metadata.{part['property']}"}


def as_event(event: StoredEvent) -> Event:
    """Return an event as the engines read it."""
    return Event(event.name, event.source, show_micros(event.micros), event.metadata)


def _credits(event: Event, meter_id: str) -> bool:
    return event.source == "system" and event.metadata.get("meter_id") == meter_id


class Billing:
    """The matches of one organization. Every method is called inside `Store.write`."""

    def __init__(self, store: Store, events: Events) -> None:
        self._store = store
        self._events = events

    def match(self, event_numbers: Sequence[int]) -> None:
        """Match new events to the meters that are not archived. A later filter matches nothing again.

        A credit matches the meter that it names, whatever the filter, and others by their filters (read).
        """
        if not event_numbers:
            return
        events = [(e.number, as_event(e)) for e in self._events.all(numbers=event_numbers)]
        meters = self._store.connection.execute(
            "SELECT number, document FROM meter WHERE archived_at IS NULL"
        )
        for meter_number, document in meters.fetchall():
            meter = json.loads(document)
            bills = engines(meter).bills
            matched = [number for number, event in events if _credits(event, meter["id"]) or bills(event)]
            self._events.match(meter_number, matched)

    def _number(self, meter_id: str) -> int:
        (number,) = self._store.connection.execute(
            "SELECT number FROM meter WHERE id = ?", (meter_id,)
        ).fetchone()
        return int(number)

    def begin(self, meter: JsonObject) -> None:
        """Start billing a new meter: it is frozen at once if `/quantities` would count an event.

        Its mark is the latest such event. The events that are there are matched too, in Python, which a job
        does on Polar (read). Raises ServerError when the query fails: nothing is stored then (observed).
        """
        compiled = engines(meter)
        if compiled.matcher.sql_fails:
            raise ServerError
        if not self._events.any():
            return
        seen = [(e.micros, e.number, as_event(e)) for e in self._events.all()]
        try:
            counted = [(micros, number) for micros, number, event in seen if compiled.counts(event)]
        except QueryError:
            raise ServerError from None
        db = self._store.connection
        meter_number = self._number(meter["id"])
        if counted:
            _, latest = max(counted)
            db.execute(
                "UPDATE meter SET frozen = 1, billed_event = ? WHERE number = ?", (latest, meter_number)
            )
        self._events.match(meter_number, [number for _, number, event in seen if compiled.bills(event)])

    def bill(self) -> None:
        """Run billing once: move the mark of each active meter to its newest matched event, and freeze it.

        A mark that moves changes `modified_at` (observed).
        """
        db = self._store.connection
        moved = db.execute(
            "SELECT number, document, readable, max(event_number)"
            " FROM meter JOIN matched ON meter_number = number"
            " WHERE archived_at IS NULL AND event_number > billed_event GROUP BY number"
        ).fetchall()
        for number, document, readable, newest in moved:
            meter = {**json.loads(document), "modified_at": self._store.now()}
            self._store.update(meter, readable=bool(readable))
            db.execute("UPDATE meter SET frozen = 1, billed_event = ? WHERE number = ?", (newest, number))
