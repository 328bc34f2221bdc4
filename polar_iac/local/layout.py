"""Tables of the embedded Polar's database, and how an older database gains what it lacks."""

from __future__ import annotations

import sqlite3

LAYOUT = 3

_METERS = """
CREATE TABLE state (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    organization_id TEXT NOT NULL,
    last_time TEXT NOT NULL
);
CREATE TABLE meter (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL,
    readable INTEGER NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    created_at TEXT NOT NULL,
    archived_at TEXT,
    frozen INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX meter_created_at ON meter (created_at);
CREATE TABLE metadata (
    meter_number INTEGER NOT NULL REFERENCES meter (number) ON DELETE CASCADE,
    key TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (meter_number, key)
) WITHOUT ROWID;
"""

_EVENTS = """
ALTER TABLE meter ADD COLUMN billed_event INTEGER NOT NULL DEFAULT 0;
CREATE TABLE event (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    external_id TEXT UNIQUE,
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    micros INTEGER NOT NULL,
    millis INTEGER NOT NULL,
    customer_id TEXT,
    external_customer_id TEXT,
    member_id TEXT,
    external_member_id TEXT,
    parent_id TEXT,
    awaited_parent TEXT,
    metadata TEXT NOT NULL
);
CREATE INDEX event_millis ON event (millis);
CREATE INDEX event_parent ON event (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX event_awaited ON event (awaited_parent) WHERE awaited_parent IS NOT NULL;
CREATE TABLE matched (
    meter_number INTEGER NOT NULL REFERENCES meter (number) ON DELETE CASCADE,
    event_number INTEGER NOT NULL REFERENCES event (number) ON DELETE CASCADE,
    PRIMARY KEY (meter_number, event_number)
) WITHOUT ROWID;
CREATE INDEX matched_event ON matched (event_number);
CREATE TABLE customer (
    id TEXT PRIMARY KEY,
    external_id TEXT UNIQUE,
    document TEXT NOT NULL
);
"""

_CATALOG = """
CREATE TABLE product (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    is_archived INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE TABLE price (
    number INTEGER PRIMARY KEY,
    product_number INTEGER NOT NULL REFERENCES product (number) ON DELETE CASCADE,
    meter_id TEXT,
    is_archived INTEGER NOT NULL DEFAULT 0,
    document TEXT NOT NULL
);
CREATE INDEX price_product ON price (product_number);
CREATE INDEX price_meter ON price (meter_id) WHERE meter_id IS NOT NULL;
CREATE TABLE benefit (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    meter_id TEXT,
    is_deleted INTEGER NOT NULL DEFAULT 0,
    document TEXT NOT NULL
);
CREATE TABLE product_benefit (
    product_number INTEGER NOT NULL REFERENCES product (number) ON DELETE CASCADE,
    benefit_number INTEGER NOT NULL REFERENCES benefit (number) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    PRIMARY KEY (product_number, benefit_number)
) WITHOUT ROWID;
CREATE INDEX event_customer ON event (customer_id, source, micros) WHERE customer_id IS NOT NULL;
CREATE INDEX event_external_customer ON event (external_customer_id, source, micros)
    WHERE external_customer_id IS NOT NULL;
CREATE TABLE seed (
    digest TEXT PRIMARY KEY
)
"""

_STEPS = (_METERS, _EVENTS, _CATALOG)
"""Statements that each layout adds to the one before it."""


def bring_up(db: sqlite3.Connection) -> bool:
    """Create what the database lacks, and tell whether it was empty. Call inside a transaction.

    Raises ValueError when a newer version wrote the database.
    """
    (layout,) = db.execute("PRAGMA user_version").fetchone()
    if layout > LAYOUT:
        raise ValueError(f"the database has layout {layout}, this version knows {LAYOUT}")
    for step in _STEPS[layout:]:
        for statement in step.strip().split(";"):
            db.execute(statement)
    if layout < LAYOUT:
        db.execute(f"PRAGMA user_version = {LAYOUT}")
    return bool(layout == 0)
