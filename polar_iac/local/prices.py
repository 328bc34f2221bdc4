"""Prices of products: what Polar checks of them, how they are stored, and how they are shown."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from polar_iac.local.catalog_schemas import (
    ExistingProductPrice,
    PriceCreate,
    ProductPriceMeteredUnitCreate,
    RecurringInterval,
)
from polar_iac.local.request_errors import ErrorEntry, polar_error
from polar_iac.local.store import JsonObject, Store, new_id

_SINGLE = ("fixed", "custom")
"""Types with at most one price per currency in a product (read)."""


@dataclass(frozen=True)
class PriceOwner:
    """The product that prices belong to, with its number in the database."""

    number: int
    id: str
    interval: RecurringInterval | str | None


def check_prices(
    store: Store,
    prices: Sequence[ExistingProductPrice | PriceCreate],
    interval: RecurringInterval | str | None,
    owner: PriceOwner | None = None,
) -> None:
    """Raise RequestError with every fault of a product's prices together (read; the texts observed)."""
    errors = list[ErrorEntry]()
    known = list[tuple[int, JsonObject]]()
    for index, price in enumerate(prices):
        if isinstance(price, ExistingProductPrice):
            document = None if owner is None else _find_price(store.connection, owner, str(price.id))
            fault = None if document else _fault(index, "Price does not exist.", price.id)
        else:
            document, fault = price.model_dump(mode="json"), _fault_of_new(store, index, price, interval)
        if fault:
            errors.append(fault)
        elif document:
            known.append((index, document))
    if not known:
        message = "At least one price is required."
        errors.append({"type": "too_short", "loc": ["body", "prices"], "msg": message, "input": list(prices)})
    errors += _faults_together(known, prices)
    if errors:
        raise polar_error(*errors)


def _fault(index: int, message: str, given: object, *within: str) -> ErrorEntry:
    return {"type": "value_error", "loc": ["body", "prices", index, *within], "msg": message, "input": given}


def _fault_of_new(
    store: Store, index: int, price: PriceCreate, interval: RecurringInterval | str | None
) -> ErrorEntry | None:
    """Return what is wrong with a metered price, or None. Its meter may be archived (observed)."""
    if not isinstance(price, ProductPriceMeteredUnitCreate):
        return None
    if interval is None:
        return _fault(index, "Metered pricing is not supported on one-time products.", price)
    if store.find(str(price.meter_id)) is None:
        return _fault(index, "Meter does not exist.", price.meter_id, "meter_id")
    return None


def _faults_together(
    known: Sequence[tuple[int, JsonObject]], prices: Sequence[ExistingProductPrice | PriceCreate]
) -> list[ErrorEntry]:
    errors = list[ErrorEntry]()
    by_currency: dict[str, list[tuple[int, JsonObject]]] = defaultdict(list)
    for index, price in known:
        by_currency[price["price_currency"]].append((index, price))
    for of_currency in by_currency.values():
        types = [price["amount_type"] for _, price in of_currency]
        for name in _SINGLE:
            if types.count(name) > 1:
                message = f"Only one {name} price is allowed."
                loc = ["body", "prices"]
                errors.append({"type": "value_error", "loc": loc, "msg": message, "input": list(prices)})
        meters = set[str]()
        for index, price in of_currency:
            meter_id = price.get("meter_id")
            if meter_id in meters:
                errors.append(_fault(index, "Meter is already used for another price.", meter_id, "meter_id"))
            elif meter_id is not None:
                meters.add(meter_id)
    return errors


def add_prices(store: Store, owner: PriceOwner, prices: Sequence[PriceCreate]) -> Mapping[str, str]:
    """Store new prices. Return the amounts per unit as they were sent, by the prices' ids.

    Call inside `Store.write`.
    """
    sent: dict[str, str] = {}
    for price in prices:
        kind = "one_time" if owner.interval is None else "recurring"
        own = price.model_dump(mode="json")
        document = {
            "created_at": store.now(),
            "modified_at": None,
            "id": new_id(),
            "source": "catalog",
            "amount_type": own.pop("amount_type"),
            "price_currency": own.pop("price_currency"),
            "tax_behavior": own.pop("tax_behavior"),
            "is_archived": False,
            "product_id": owner.id,
            "type": kind,
            "recurring_interval": owner.interval,
            **own,
        }
        meter_id = None
        if isinstance(price, ProductPriceMeteredUnitCreate):
            meter_id = document.pop("meter_id")  # the meter's id goes last (observed)
            sent[document["id"]] = str(price.unit_amount)
            document |= {"unit_amount": f"{price.unit_amount:.12f}", "meter_id": meter_id}
        store.connection.execute(
            "INSERT INTO price (product_number, meter_id, document) VALUES (?, ?, ?)",
            (owner.number, meter_id, json.dumps(document)),
        )
    return sent


def keep_prices(store: Store, owner: PriceOwner, ids: Collection[str]) -> None:
    """Archive the live prices of a product, except these. Call inside `Store.write`."""
    store.connection.execute(
        "UPDATE price SET is_archived = 1 WHERE product_number = ?"
        " AND json_extract(document, '$.id') NOT IN (SELECT value FROM json_each(?))",
        (owner.number, json.dumps(list(ids))),
    )


def shown_prices(db: sqlite3.Connection, product_number: int, sent: Mapping[str, str]) -> list[JsonObject]:
    """Return the live prices of a product as Polar shows them, each metered one with its meter's name.

    An amount per unit has twelve decimals. For a price that this request made it is as sent (observed).
    """
    rows = db.execute(
        "SELECT price.document, meter.document FROM price LEFT JOIN meter ON meter.id = meter_id"
        " WHERE product_number = ? AND NOT is_archived ORDER BY price.number",
        (product_number,),
    )
    return [_shown(json.loads(price), meter and json.loads(meter), sent) for price, meter in rows]


def _shown(price: JsonObject, meter: JsonObject | None, sent: Mapping[str, str]) -> JsonObject:
    if meter is None:
        return price
    shown = {name: meter[name] for name in ("id", "name", "unit", "custom_label", "custom_multiplier")}
    amount = sent.get(price["id"], price["unit_amount"])
    return {**price, "unit_amount": amount, "meter": shown}


def _find_price(db: sqlite3.Connection, owner: PriceOwner, price_id: str) -> JsonObject | None:
    row = db.execute(
        "SELECT document FROM price WHERE product_number = ? AND NOT is_archived"
        " AND json_extract(document, '$.id') = ?",
        (owner.number, price_id),
    ).fetchone()
    return None if row is None else dict(json.loads(row[0]))
