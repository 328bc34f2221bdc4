"""Benefits: `/v1/benefits/`. One of the type `meter_credit` keeps its meter from being archived."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from enum import StrEnum
from functools import cache

from pydantic import TypeAdapter

from polar_iac.local.answers import NotFoundError
from polar_iac.local.catalog_schemas import BenefitMeterCreditCreate, BenefitType, benefit_create
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
)
from polar_iac.local.query import Parameter
from polar_iac.local.request_errors import polar_error
from polar_iac.local.store import JsonObject, Store, new_id
from polar_iac.local.tokens import OrganizationFault
from polar_iac.local.validation import read_id


class BenefitSortProperty(StrEnum):
    """Sort criteria of benefits. The error for an unknown one lists them in this order (observed)."""

    created_at = "created_at"
    created_at_desc = "-created_at"
    description = "description"
    description_desc = "-description"
    type = "type"
    type_desc = "-type"
    user_order = "user_order"
    user_order_desc = "-user_order"


_SORT_KEYS: SortKeys = {
    "created_at": lambda benefit: benefit["created_at"],
    "description": lambda benefit: benefit["description"].casefold(),
    "type": lambda benefit: benefit["type"],
    "user_order": lambda benefit: benefit["created_at"],  # benefits have no user order here
}


@cache
def _parameters() -> tuple[Parameter, ...]:
    newest_first = (BenefitSortProperty.created_at_desc,)
    return list_parameters(
        Parameter("type", TypeAdapter(BenefitType | Sequence[BenefitType] | None), many=True),
        ids_parameter("id"),
        ids_parameter("exclude_id"),
        Parameter("query", TypeAdapter(str | None)),
        Parameter("sorting", TypeAdapter(list[BenefitSortProperty]), newest_first, many=True),
    )


class Benefits:
    """The benefits of one organization."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, pairs: Pairs) -> JsonObject:
        """Return a page of the benefits that are not deleted. Raises RequestError."""
        wanted = read_list(_parameters(), pairs)
        with self._store.read() as db:
            rows = db.execute("SELECT document FROM benefit WHERE NOT is_deleted ORDER BY number").fetchall()
        documents = (json.loads(document) for (document,) in rows)
        excluded = set(map(str, wanted["exclude_id"] or ()))
        return page_of(
            (
                benefit
                for benefit in documents
                if is_one_of(self._store.organization_id, wanted["organization_id"])
                and is_one_of(benefit["id"], wanted["id"])
                and benefit["id"] not in excluded
                and is_one_of(benefit["type"], wanted["type"])
                and has_text(benefit["description"], wanted["query"])
                and has_metadata(benefit, wanted["metadata"])
            ),
            wanted,
            _SORT_KEYS,
        )

    def get(self, id_text: str) -> JsonObject:
        """Return a benefit that is not deleted. Raises RequestError and NotFoundError."""
        benefit_id = read_id(id_text)
        with self._store.read() as db:
            row = db.execute(
                "SELECT document FROM benefit WHERE id = ? AND NOT is_deleted", (benefit_id,)
            ).fetchone()
        if row is None:
            raise NotFoundError
        document: JsonObject = json.loads(row[0])
        return document

    def create(self, body: object, organization_fault: OrganizationFault) -> JsonObject:
        """Add a benefit and return it. Its meter may be archived (observed). Raises RequestError."""
        create = read_body(benefit_create(), body)
        if fault := organization_fault(create.organization_id):
            loc = ["body", "organization_id"]
            raise polar_error({**fault, "loc": loc, "input": create.organization_id})
        properties = create.properties.model_dump(mode="json")
        meter_id = properties.get("meter_id")
        with self._store.write() as db:
            if meter_id is not None and self._store.find(meter_id) is None:
                message = "This meter does not exist."
                loc = ["body", "properties", "meter_id"]
                raise polar_error({"type": "value_error", "loc": loc, "msg": message, "input": meter_id})
            document = {
                "id": new_id(),
                "created_at": self._store.now(),
                "modified_at": None,
                "type": create.type,
                "description": create.description,
                "selectable": True,
                "deletable": True,
                "is_deleted": False,
                "organization_id": self._store.organization_id,
                "metadata": create.metadata,
                "visibility": create.visibility or "public",
                "properties": properties,
                # Only a custom benefit says so (observed).
                **({} if isinstance(create, BenefitMeterCreditCreate) else {"is_tax_applicable": True}),
                "visibility_configurable": True,
            }
            db.execute(
                "INSERT INTO benefit (id, meter_id, document) VALUES (?, ?, ?)",
                (document["id"], meter_id, json.dumps(document, ensure_ascii=False)),
            )
        return document

    def delete(self, id_text: str) -> None:
        """Delete a benefit: it is no longer listed, and its meter can be archived (observed)."""
        benefit_id = read_id(id_text)
        with self._store.write() as db:
            deleted = db.execute(
                "UPDATE benefit SET is_deleted = 1 WHERE id = ? AND NOT is_deleted", (benefit_id,)
            )
            if not deleted.rowcount:
                raise NotFoundError


def benefits_of(db: sqlite3.Connection, product_number: int) -> list[JsonObject]:
    """Return the benefits of a product, whole and in their order, without deleted ones."""
    rows = db.execute(
        "SELECT document FROM benefit JOIN product_benefit ON benefit_number = benefit.number"
        " WHERE product_number = ? AND NOT is_deleted ORDER BY position",
        (product_number,),
    )
    return [json.loads(document) for (document,) in rows]
