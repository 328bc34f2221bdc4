"""Rules for reading and changing meters, applied to requests that are already validated.

Polar fails with a 500 in some cases, and so does this module: ServerError stands for that 500.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from polar_iac.local import schemas
from polar_iac.local.answers import NotFoundError, ServerError
from polar_iac.local.request_errors import polar_error
from polar_iac.local.schemas import JsonObject
from polar_iac.local.store import Page, Store, StoredMeter
from polar_iac.local.validation import MeterListQuery

MAX_READABLE_DEPTH = 127  # levels of filters that Polar can write as JSON, clauses included (observed)
MAX_SEARCHABLE_CLAUSES = 19_999  # 20,000 fail, 5,000 work (observed); the exact limit is unknown
INT64_MAX = 2**63 - 1

# An escaped NUL in JSON text: `\u0000`, but not `\\u0000`, which is a backslash and plain text.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class Meters:
    """The meters of one organization. Reads return JSON text; writes return the answer as data."""

    def __init__(self, store: Store, begin_billing: Callable[[JsonObject], None]) -> None:
        """Take what starts to bill a new meter. It is called inside the transaction that stores the meter."""
        self._store = store
        self._begin_billing = begin_billing

    def list(self, wanted: MeterListQuery, metadata: Mapping[str, list[str]]) -> str:
        offset = wanted.limit * (wanted.page - 1)
        texts = [wanted.query or "", *metadata, *(text for values in metadata.values() for text in values)]
        # PostgreSQL rejects an offset beyond 64 bits (observed) and NUL in any text (read).
        if offset > INT64_MAX or any("\0" in text for text in texts):
            raise ServerError
        if wanted.organization_ids is not None and self._store.organization_id not in wanted.organization_ids:
            page = Page([], 0, readable=True)
        else:
            page = self._store.list(
                metadata=metadata,
                query=wanted.query,
                is_archived=wanted.is_archived,
                sorting=wanted.sorting,
                limit=wanted.limit,
                offset=offset,
            )
        if not page.readable:
            raise ServerError
        pagination = {"total_count": page.total, "max_page": math.ceil(page.total / wanted.limit)}
        return f'{{"items":[{",".join(page.documents)}],"pagination":{json.dumps(pagination)}}}'

    def get(self, meter_id: str) -> str:
        page = self._store.find_text(meter_id)
        if not page.documents:
            raise NotFoundError
        if not page.readable:
            raise ServerError
        return page.documents[0]

    def all(self) -> Sequence[JsonObject]:
        """Return all meters, archived ones too, in the order in which they were made."""
        return self._store.meters()

    def create(self, create: schemas.MeterCreate) -> JsonObject:
        sent = schemas.written(create)
        if _is_too_wide(sent["filter"]):
            raise ServerError
        with self._store.write():
            created_at = self._store.now()
            times = {"created_at": created_at, "modified_at": self._store.now(), "archived_at": None}
            ids = {"id": str(uuid.uuid4()), "organization_id": self._store.organization_id}
            written = {**sent, **ids, **times}
            readable = _check_storable(written)
            as_read = _as_read(written)
            self._store.insert(as_read, readable=readable)
            self._begin_billing(as_read)
        return _answerable(written, readable)

    def update(self, meter_id: str, update: schemas.MeterUpdate) -> JsonObject:
        with self._store.write():
            stored = self._store.find(meter_id)
            if stored is None:
                raise NotFoundError
            if stored.frozen:
                _check_frozen(update)
            if update.is_archived:
                _check_archivable(stored)
            changes = _changes(update)
            if update.is_archived is not None:
                changes["archived_at"] = self._store.now() if update.is_archived else None
            written = {**stored.document, **changes}
            readable = _check_storable(written)
            if changes:
                written["modified_at"] = self._store.now()
                # Store the changes as the database returns them, but answer with them as sent (observed).
                # Example: the number 1e+16 is answered once as sent, and later as 10000000000000000.
                self._store.update({**written, **_as_read(changes)}, readable=readable)
        return _answerable(written, readable)


def _answerable(meter: JsonObject, readable: bool) -> JsonObject:
    """Return the meter that was written, or raise ServerError if Polar cannot write it as JSON.

    Polar fails only after the meter is stored (observed).
    """
    if not readable:
        raise ServerError
    return meter


def _check_frozen(update: schemas.MeterUpdate) -> None:
    message = "This field can't be updated because the meter is already aggregating events."
    entries = [
        {"type": "forbidden", "loc": ["body", name], "msg": message, "input": getattr(update, name)}
        for name in ("aggregation", "filter")
        if name in update.model_fields_set
    ]
    if entries:
        raise polar_error(*entries)


def _check_archivable(meter: StoredMeter) -> None:
    if meter.has_product:
        reason = "attached to active products"
    elif meter.has_benefit:
        reason = "referenced by active benefits"
    else:
        return
    message = f"Cannot archive meter that is still {reason}"
    raise polar_error({"type": "value_error", "loc": ["body", "is_archived"], "msg": message, "input": True})


def _changes(update: schemas.MeterUpdate) -> JsonObject:
    """Return the fields that a PATCH writes: all that were sent, except a null filter or aggregation.

    A field that was sent with its current value counts too, null or not. Raises ServerError for a null name
    or unit.
    """
    changes = schemas.written(update)
    for name in ("filter", "aggregation"):
        if name in changes and changes[name] is None:
            del changes[name]
    if any(name in changes and changes[name] is None for name in ("name", "unit")):
        raise ServerError  # the columns do not allow null (observed)
    return changes


def _check_storable(meter: JsonObject) -> bool:
    """Tell whether Polar can return the meter once it is stored.

    Raises ServerError when the meter cannot be stored at all: PostgreSQL refuses NUL, lone surrogates, NaN,
    infinities and integers out of its range (observed).
    """
    try:
        text = json.dumps(meter, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError):
        raise ServerError from None
    if _NUL.search(text) or (meter["custom_multiplier"] or 0) > INT64_MAX:
        raise ServerError
    return _depth(meter["filter"]) <= MAX_READABLE_DEPTH


def _depth(clause: JsonObject) -> int:
    """Count the levels of a filter. A clause is one level, and so is a filter without clauses."""
    depth, level = 0, [clause]
    while level:
        depth += 1
        level = [inner for c in level for inner in c.get("clauses", ())]
    return depth


def _is_too_wide(filter_: JsonObject) -> bool:
    """Tell whether a POST's search for matching events fails in PostgreSQL, because of too many clauses."""
    clauses = [filter_]
    for c in clauses:
        clauses += c.get("clauses", ())
    return len(clauses) > MAX_SEARCHABLE_CLAUSES


def _as_read(meter: JsonObject) -> JsonObject:
    """Return the fields of a meter as they come back from the database.

    PostgreSQL's jsonb keeps numbers as decimals, and Polar strips one more `metadata.` (observed).
    """
    read = dict(meter)
    if "filter" in meter:
        read["filter"] = _strip_clause(meter["filter"])
    if "aggregation" in meter:
        read["aggregation"] = _strip_clause(meter["aggregation"])
    if "metadata" in meter:
        read["metadata"] = {key: _jsonb(value) for key, value in meter["metadata"].items()}
    return read


def _strip_clause(clause: Mapping[str, Any]) -> JsonObject:
    if "clauses" in clause:
        return {**clause, "clauses": [_strip_clause(inner) for inner in clause["clauses"]]}
    if "property" in clause:
        return {**clause, "property": schemas.strip_prefix(clause["property"])}
    return dict(clause)


def _jsonb(value: str | float) -> str | float:
    if not isinstance(value, float):
        return value
    exact = Decimal(repr(value))
    # A number without decimals becomes a JSON integer: `1e+16` has none, `1.0` has one.
    # Adding 0.0 turns -0.0 into 0.0.
    return value + 0.0 if "." in format(exact, "f") else int(exact)
