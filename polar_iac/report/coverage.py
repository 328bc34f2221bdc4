"""Coverage of clauses and aggregations by tests, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polar_iac.meter.meaning.events import bare
from polar_iac.report.filters import aggregation, clause
from polar_iac.report.layout import warning
from polar_iac.report.wording import listed
from polar_iac.sanitize import printable
from polar_iac.testing.coverage import Coverage, PartCoverage, Unnoticed
from polar_iac.testing.events import given_of
from polar_iac.testing.model import Json
from polar_iac.testing.mutants import Mutant
from polar_iac.yaml.write import flow


def coverage_text(coverage: Coverage) -> str:
    """Return what no test notices, at its line in the manifest, what is undecided, and a summary."""
    lines: list[str] = []
    for part in coverage.parts:
        if not part.held:
            lines += _unheld(part)
        if part.undecided:
            changes = listed(list(map(_change, part.undecided)))
            lines.append(f"{_head(part, 'undecided')}: nobody knows whether a test could notice it {changes}")
    return "".join(f"{line}\n" for line in [*lines, f"{coverage_summary(coverage)}."])


def coverage_summary(coverage: Coverage) -> str:
    """Return the share in words: `Tests hold 15 of 20 clauses and aggregations (75%)`."""
    return (
        f"Tests hold {coverage.held:,} of {len(coverage.parts):,} clauses and aggregations"
        f" ({percent_text(coverage.percent)})"
    )


def percent_text(percent: float) -> str:
    """Return a share, rounded down: only what is whole is called 100%."""
    return f"{math.floor(percent * 10) / 10:.1f}".removesuffix(".0") + "%"


def _head(part: PartCoverage, word: str) -> str:
    place = f"{printable(part.span.file)}:{part.span.line}:{part.span.column}"
    return f"{place}: {warning(word)}: {printable(part.meter)}: {part_text(part.part.data)}"


def part_text(data: Json) -> str:
    """Return a clause or an aggregation in words."""
    if "func" in data:
        shown = {**data, "property": bare(data["property"])} if "property" in data else data
        return aggregation(shown)
    return clause({**data, "property": bare(data["property"])})


def _change(mutant: Mutant) -> str:
    return "removed" if mutant.instead is None else f"as {part_text(mutant.instead)}"


def _unheld(part: PartCoverage) -> Iterator[str]:
    yield f"{_head(part, 'not held')}: no test notices it {_changes(part)}"
    examples = [shown for unnoticed in part.unnoticed if (shown := _example(unnoticed))]
    for text in list(dict.fromkeys(examples))[:2]:
        yield f"  {text}"


def _example(unnoticed: Unnoticed) -> str:
    """Return an event that would show a mutant. Two different sums of the same events have none."""
    if unnoticed.event is None:
        return ""
    counted = "true" if unnoticed.counted else "false"
    given = flow(given_of(unnoticed.event))
    return f"a test that would: {printable(given[:-1])}, counted: {counted}}}"


def coverage_json(coverage: Coverage) -> Mapping[str, Any]:
    """Return the coverage as part of the JSON of results: see docs/formats.md."""
    return {
        "held": coverage.held,
        "total": len(coverage.parts),
        "percent": coverage.percent,
        "parts": [
            {
                "meter": part.meter,
                "kind": "aggregation" if part.part.is_aggregation else "clause",
                "value": part.part.data,
                "held": part.held,
                "unnoticed": [unnoticed.mutant.instead for unnoticed in part.unnoticed],
                "undecided": [mutant.instead for mutant in part.undecided],
                "source": part.span.json,
            }
            for part in coverage.parts
        ],
    }


def unheld_messages(coverage: Coverage) -> Sequence[tuple[PartCoverage, str]]:
    """Return each clause and aggregation that tests do not hold, with why, for annotations."""
    return [
        (part, f"{part.meter}: {part_text(part.part.data)}: no test notices it {_changes(part)}")
        for part in coverage.parts
        if not part.held
    ]


def _changes(part: PartCoverage) -> str:
    return listed([_change(unnoticed.mutant) for unnoticed in part.unnoticed])
