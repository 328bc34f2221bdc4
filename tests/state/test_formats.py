"""Lockfiles and journals of earlier versions: each is read, means the same, and is written as it was.

The files in `formats/` were written by the version before the packages were named after concepts: a lockfile
with every kind of record, the journal of a run that was killed, and the lockfile and journal that a finished
run left. They are never written again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from polar_iac.meter.filter import Aggregation, Clause, Filter
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.state import journal, lockfile
from polar_iac.state.journal import Journal
from polar_iac.state.journal_state import Intent, JournalState
from polar_iac.state.lockfile import Lockfile

FORMATS = Path(__file__).parent / "formats"

LOCKFILES = {
    "sandbox": Lockfile(
        environment="sandbox",
        organization_id="1dbfc517-0bbf-4301-9ba8-555ca42b9737",
        project="acme",
        meters={
            "calls": Record(
                id="00000001-0000-4000-8000-000000000000",
                spec=MeterSpec(
                    "API calls",
                    Filter("and", (Clause("name", "eq", "call"),)),
                    Aggregation("count"),
                    metadata={"big": 100000000000000000000, "on": True, "ratio": 1.5, "tier": 2},
                ),
                ignored=frozenset({"metadata.owner", "name", "unit"}),
            ),
            "found": Record(id="00000004-0000-4000-8000-000000000000", spec=None, frozen=True),
            "old": Record(
                id="00000003-0000-4000-8000-000000000000",
                spec=MeterSpec(
                    "Old", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count"), archived=True
                ),
                extra={"later": {"x": [1, None]}},
            ),
            "tokens": Record(
                id="00000002-0000-4000-8000-000000000000",
                spec=MeterSpec(
                    "Tokéns 🚀",
                    Filter(
                        "and",
                        (
                            Clause("tokens", "gte", 10),
                            Filter(
                                "or",
                                (
                                    Clause("done", "eq", True),
                                    Clause("model", "like", "gpt"),
                                ),
                            ),
                        ),
                    ),
                    Aggregation("sum", "tokens"),
                    unit="custom",
                    custom_label="token",
                    custom_multiplier=1000,
                ),
                frozen=True,
            ),
        },
        extra={"generator": "later"},
    ),
    "production": Lockfile(
        environment="production",
        organization_id="1dbfc517-0bbf-4301-9ba8-555ca42b9737",
        project="acme",
        meters={
            "new": Record(
                id="0000001e-0000-4000-8000-000000000000",
                spec=MeterSpec("New", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
            )
        },
    ),
}

KILLED = JournalState(
    organization_id="1dbfc517-0bbf-4301-9ba8-555ca42b9737",
    meters={
        "calls": Record(
            id="00000001-0000-4000-8000-000000000000",
            spec=MeterSpec(
                "API calls",
                Filter("and", (Clause("name", "eq", "call"),)),
                Aggregation("count"),
                metadata={"big": 100000000000000000000, "on": True, "ratio": 1.5, "tier": 2},
            ),
            ignored=frozenset({"metadata.owner", "name", "unit"}),
        ),
        "found": Record(id="00000004-0000-4000-8000-000000000000", spec=None, frozen=True),
        "new": Record(
            id="00000014-0000-4000-8000-000000000000",
            spec=MeterSpec("New", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
        ),
        "seen": Record(
            id="00000015-0000-4000-8000-000000000000",
            spec=MeterSpec("Seen", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
        ),
        "renamed": Record(
            id="00000003-0000-4000-8000-000000000000",
            spec=MeterSpec("Renamed", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
            ignored=frozenset({"unit"}),
            extra={"later": {"x": [1, None]}},
        ),
        "late": Record(
            id="00000016-0000-4000-8000-000000000000",
            spec=MeterSpec("Late 🚀", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
        ),
    },
    intents={
        "twice": [
            Intent(
                marker="acme/twice",
                spec=MeterSpec("Twice", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
                at="2026-01-02T00:00:02.000000Z",
            ),
            Intent(
                marker="acme/twice",
                spec=MeterSpec("Twice", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
                at="2026-01-02T00:01:02.000000Z",
            ),
        ]
    },
    created={"00000016-0000-4000-8000-000000000000": "late"},
)

FINISHED = JournalState(
    organization_id="1dbfc517-0bbf-4301-9ba8-555ca42b9737",
    meters={
        "new": Record(
            id="0000001e-0000-4000-8000-000000000000",
            spec=MeterSpec("New", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
        )
    },
    intents={
        "calls": [
            Intent(
                marker="acme/calls",
                spec=MeterSpec(
                    "API calls", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")
                ),
                at="2026-01-02T00:00:00.000000Z",
            )
        ]
    },
    created={"0000001e-0000-4000-8000-000000000000": "new"},
)


JOURNALS = {"sandbox": KILLED, "production": FINISHED}


def lockfile_path(environment: str) -> Path:
    return FORMATS / f"meters.{environment}.lock.json"


def journal_path(environment: str) -> Path:
    return FORMATS / f"meters.{environment}.journal"


@pytest.mark.parametrize("environment", LOCKFILES)
def test_a_lockfile_is_read_and_written_as_it_was(environment: str) -> None:
    state = lockfile.read(lockfile_path(environment), environment, "acme")
    assert state == LOCKFILES[environment]
    text = lockfile_path(environment).read_text(encoding="utf-8")
    assert lockfile.dumps(state) == lockfile.dumps(LOCKFILES[environment]) == text


@pytest.mark.parametrize("environment", JOURNALS)
def test_a_journal_is_read_with_the_same_meaning(environment: str) -> None:
    assert journal.read(journal_path(environment), LOCKFILES[environment]) == JOURNALS[environment]


@pytest.mark.parametrize("environment", JOURNALS)
def test_a_run_goes_on_with_a_journal_as_it_is(environment: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(journal_path(environment), tmp_path))
    with Journal(path, LOCKFILES[environment]) as opened:
        assert opened.meters == JOURNALS[environment].meters
        assert opened.created == JOURNALS[environment].created
    assert path.read_bytes() == journal_path(environment).read_bytes()
