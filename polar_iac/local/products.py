"""Products and their prices: `/v1/products/`. A live metered price keeps its meter from being archived."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from polar_iac.local import catalog_schemas as schemas
from polar_iac.local.answers import NotFoundError, ServerError
from polar_iac.local.benefits import benefits_of
from polar_iac.local.listing import (
    Pairs,
    SortKeys,
    has_metadata,
    has_text,
    ids_parameter,
    is_one_of,
    list_parameters,
    page_of,
    read_body,
    read_list,
    read_path_and_body,
)
from polar_iac.local.prices import PriceOwner, add_prices, check_prices, keep_prices, shown_prices
from polar_iac.local.query import Parameter
from polar_iac.local.request_errors import polar_error
from polar_iac.local.store import JsonObject, Store, new_id
from polar_iac.local.tokens import OrganizationFault
from polar_iac.local.validation import read_id


class ProductSortProperty(StrEnum):
    """Sort criteria of products, in the order in which an error lists them (read)."""

    created_at = "created_at"
    created_at_desc = "-created_at"
    product_name = "name"
    product_name_desc = "-name"
    price_type = "price_type"
    price_type_desc = "-price_type"
    price_amount_type = "price_amount_type"
    price_amount_type_desc = "-price_amount_type"
    price_amount = "price_amount"
    price_amount_desc = "-price_amount"


def _first_price(product: JsonObject) -> JsonObject:
    return next(iter(product["prices"]), {})


_SORT_KEYS: SortKeys = {
    "created_at": lambda product: product["created_at"],
    "name": lambda product: (product["name"].casefold(), product["name"]),
    "price_type": lambda product: _first_price(product).get("type"),
    "price_amount_type": lambda product: _first_price(product).get("amount_type"),
    "price_amount": lambda product: _first_price(product).get("price_amount"),
}


@cache
def _parameters() -> tuple[Parameter, ...]:
    newest_first = (ProductSortProperty.created_at_desc,)
    visibilities = schemas.Visibility | Sequence[schemas.Visibility]
    return list_parameters(
        ids_parameter("id"),
        Parameter("query", TypeAdapter(str | None)),
        Parameter("is_archived", TypeAdapter(bool | None)),
        Parameter("is_recurring", TypeAdapter(bool | None)),
        ids_parameter("benefit_id"),
        Parameter("visibility", TypeAdapter(visibilities | None), many=True),
        Parameter("sorting", TypeAdapter(list[ProductSortProperty]), newest_first, many=True),
    )


@dataclass(frozen=True)
class _Row:
    number: int
    document: JsonObject

    @property
    def owner(self) -> PriceOwner:
        return PriceOwner(self.number, self.document["id"], self.document["recurring_interval"])


class Products:
    """The products of one organization."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, pairs: Pairs) -> JsonObject:
        """Return a page of the products, archived ones too. Raises RequestError."""
        wanted = read_list(_parameters(), pairs)
        with self._store.read() as db:
            rows = db.execute("SELECT number, document FROM product ORDER BY number").fetchall()
            products = [self._shown(_Row(number, json.loads(document))) for number, document in rows]
        return page_of(
            (product for product in products if self._is_wanted(product, wanted)), wanted, _SORT_KEYS
        )

    def _is_wanted(self, product: JsonObject, wanted: Mapping[str, Any]) -> bool:
        benefits = {benefit["id"] for benefit in product["benefits"]}
        return (
            is_one_of(self._store.organization_id, wanted["organization_id"])
            and is_one_of(product["id"], wanted["id"])
            and has_text(product["name"], wanted["query"])
            and wanted["is_archived"] in (None, product["is_archived"])
            and wanted["is_recurring"] in (None, product["is_recurring"])
            and (wanted["benefit_id"] is None or not benefits.isdisjoint(map(str, wanted["benefit_id"])))
            and is_one_of(product["visibility"], wanted["visibility"])
            and has_metadata(product, wanted["metadata"])
        )

    def get(self, id_text: str) -> JsonObject:
        """Return a product. Raises RequestError and NotFoundError."""
        product_id = read_id(id_text)
        with self._store.read():
            return self._shown(self._find(product_id))

    def create(self, body: object, organization_fault: OrganizationFault) -> JsonObject:
        """Add a product and return it, its amounts as they were sent (observed). Raises RequestError."""
        create = read_body(schemas.product_create(), body)
        if fault := organization_fault(create.organization_id):
            loc = ["body", "organization_id"]
            raise polar_error({**fault, "loc": loc, "input": create.organization_id})
        with self._store.write() as db:
            check_prices(self._store, create.prices, create.recurring_interval)
            document = {
                "id": new_id(),
                "created_at": self._store.now(),
                "modified_at": None,
                "trial_interval": None,
                "trial_interval_count": None,
                **create.model_dump(
                    include={"name", "description", "visibility"},
                ),
                "recurring_interval": create.recurring_interval,
                "recurring_interval_count": create.recurring_interval_count,
                "meter_interval": None,
                "meter_interval_count": None,
                "is_recurring": create.recurring_interval is not None,
                "is_archived": False,
                "organization_id": self._store.organization_id,
                "metadata": create.metadata,
            }
            cursor = db.execute(
                "INSERT INTO product (id, is_archived, document) VALUES (?, 0, ?)",
                (document["id"], _text(document)),
            )
            row = _Row(cursor.lastrowid or 0, document)
            return self._shown(row, add_prices(self._store, row.owner, create.prices))

    def update(self, id_text: str, body: object) -> JsonObject:
        """Change a product and return it. Prices that are not sent again are archived, and no longer listed.

        `modified_at` moves only if a field of the product itself changes (observed). Raises RequestError and
        NotFoundError, and ServerError for null where Polar's columns do not allow it (assumed).
        """
        product_id, update = read_path_and_body(id_text, schemas.product_update(), body)
        changes = update.model_dump(exclude={"prices"}, exclude_unset=True)
        with self._store.write() as db:
            row = self._find(product_id)
            sent: Mapping[str, str] = {}
            if update.prices is not None:
                kept = [p for p in update.prices if isinstance(p, schemas.ExistingProductPrice)]
                check_prices(self._store, update.prices, row.owner.interval, row.owner)
                keep_prices(self._store, row.owner, {str(price.id) for price in kept})
                new = [p for p in update.prices if not isinstance(p, schemas.ExistingProductPrice)]
                sent = add_prices(self._store, row.owner, new)
            if any(changes.get(name, True) is None for name in ("name", "is_archived", "visibility")):
                raise ServerError
            document = {**row.document, **changes}
            if document != row.document:
                document["modified_at"] = self._store.now()
                db.execute(
                    "UPDATE product SET is_archived = ?, document = ? WHERE number = ?",
                    (document["is_archived"], _text(document), row.number),
                )
            return self._shown(_Row(row.number, document), sent)

    def set_benefits(self, id_text: str, body: object) -> JsonObject:
        """Give a product these benefits and no others. Raises RequestError and NotFoundError."""
        product_id, update = read_path_and_body(id_text, schemas.product_benefits_update(), body)
        with self._store.write() as db:
            row = self._find(product_id)
            numbers = list(_numbers_of_benefits(db, map(str, update.benefits)))
            db.execute("DELETE FROM product_benefit WHERE product_number = ?", (row.number,))
            db.executemany(
                "INSERT OR IGNORE INTO product_benefit VALUES (?, ?, ?)",
                [(row.number, number, position) for position, number in enumerate(numbers)],
            )
            return self._shown(row)

    def _find(self, product_id: str) -> _Row:
        row = self._store.connection.execute(
            "SELECT number, document FROM product WHERE id = ?", (product_id,)
        ).fetchone()
        if row is None:
            raise NotFoundError
        return _Row(row[0], json.loads(row[1]))

    def _shown(self, row: _Row, sent: Mapping[str, str] | None = None) -> JsonObject:
        """Return a product as Polar shows it. `sent` holds the amounts of new prices, by the prices' ids."""
        db = self._store.connection
        return {
            **row.document,
            "prices": shown_prices(db, row.number, sent or {}),
            "benefits": benefits_of(db, row.number),
            "medias": [],
            "attached_custom_fields": [],
        }


def _numbers_of_benefits(db: sqlite3.Connection, ids: Iterable[str]) -> Iterable[int]:
    for order, benefit_id in enumerate(ids):
        row = db.execute(
            "SELECT number FROM benefit WHERE id = ? AND NOT is_deleted", (benefit_id,)
        ).fetchone()
        if row is None:
            loc, message = ["body", "benefits", order], "Benefit does not exist."
            raise polar_error({"type": "value_error", "loc": loc, "msg": message, "input": benefit_id})
        yield row[0]


def _text(document: JsonObject) -> str:
    return json.dumps(document, ensure_ascii=False)
