"""Drift as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from click import style

from polar_iac.plan.drift import ARCHIVED, MARKER, Drift, FieldDrift, MeterDrift
from polar_iac.report.layout import in_columns, labeled, wrapped
from polar_iac.report.text import field_lines
from polar_iac.report.wording import TERMS, agree, quantity, value
from polar_iac.sanitize import printable

FORMAT_VERSION = 1
DIRECTION = "recorded → at Polar"
DECLARED = "in the manifest by now"
"""Remark on a field of which the manifest says by now what Polar has."""


def drift_text(drift: Drift, manifest_file: str, width: int) -> str:
    """Return the drift of one environment and its summary. Prose fits in `width` columns."""
    return "".join(f"{line}\n" for line in _lines(drift, manifest_file, width))


def _lines(drift: Drift, manifest_file: str, width: int) -> Iterator[str]:
    organization = f" · organization {drift.organization_id[:8]}" if drift.organization_id else ""
    yield f"{printable(manifest_file)} → {drift.environment}{organization}"
    if drift.meters:
        yield style(DIRECTION, bold=True)
    yield ""
    for meter in drift.meters:
        yield from _meter(meter, width)
        yield ""
    if used := impacts(drift.meters):
        for term in used:
            yield from wrapped(TERMS[term], f"  {term}: ", width)
        yield ""
    yield summary(drift)
    for sentence in next_steps(drift.meters):
        yield from wrapped(sentence, "", width)


def _meter(meter: MeterDrift, width: int) -> Iterator[str]:
    action = "blocked" if meter.reason else "update"
    sign = "!" if meter.reason else "~"
    place = [f"{printable(meter.source.file)}:{meter.source.line}"] if meter.source else []
    remarks = place if meter.listed else ["gone from the manifest"]
    yield in_columns(f'  {sign} {printable(meter.key)} "{printable(meter.name)}"', remarks, width, action)
    for field in meter.fields:
        yield from _field(field, width)
    if meter.reason:
        yield from wrapped(printable(meter.reason), "      ", width)


def _field(field: FieldDrift, width: int) -> Iterator[str]:
    remarks = [*filter(None, [field.impact, DECLARED if field.declared else ""])]
    if field.path in (ARCHIVED, MARKER):
        values = f"{value(field.recorded)} → {value(field.live)}"
        yield in_columns(labeled(field.path, values), remarks or [apart(field)], width)
    else:
        yield from field_lines(field.path, field.recorded, field.live, remarks, width)


def apart(field: FieldDrift) -> str:
    """Say what a difference means that is none of a field."""
    if field.path == MARKER:
        return "the ownership marker was removed"
    return "counts nothing any more" if field.live else "counts again"


def impacts(meters: Sequence[MeterDrift]) -> list[str]:
    """Return those of `TERMS` that the report of these meters uses."""
    used = {field.impact for meter in meters for field in meter.fields}
    return [term for term in TERMS if term in used]


def summary(drift: Drift) -> str:
    """Sum up the drift in one line."""
    recorded = quantity(drift.compared, "recorded meter")
    if not drift.meters:
        return f"No drift. {recorded} {agree(drift.compared, 'is as it was', 'are as they were')} applied."
    verb = agree(len(drift.meters), "is not as it was", "are not as they were")
    return f"Drift: {len(drift.meters):,} of {recorded} {verb} applied."


def next_steps(meters: Sequence[MeterDrift]) -> list[str]:
    """Say what to do next about drift, and who does it. Each sentence is said once."""
    fields = [(meter, field) for meter in meters for field in meter.fields]
    steps = []
    if any(meter.listed and not field.declared for meter, field in fields):
        steps.append(
            "Next: whoever knows of the change takes it into the manifest by a pull request, or runs `apply` "
            "to put back what the manifest says."
        )
    if any(field.declared for _, field in fields):
        steps.append(
            f"What is {DECLARED} needs no change there: the next apply records it. (So it is, too, where an "
            "apply could not record what it did.)"
        )
    if any(not meter.listed for meter, _ in fields):
        steps.append("What is gone from the manifest, `plan` archives or forgets: it says which.")
    if any(meter.reason for meter in meters):
        steps.append("Where a reason is given, it says what to do: an apply leaves that meter as it is.")
    return steps


def drift_json(drifts: Sequence[Drift]) -> str:
    """Return the documented JSON: pure ASCII, one entry for each environment that could be read."""
    document = {"format_version": FORMAT_VERSION, "drift": [_document(drift) for drift in drifts]}
    return json.dumps(document, indent=2) + "\n"


def _document(drift: Drift) -> dict[str, Any]:
    return {
        "environment": drift.environment,
        "organization_id": drift.organization_id,
        "project": drift.project,
        "manifest": drift.manifest,
        "lockfile": drift.lockfile,
        "compared": drift.compared,
        "meters": [_meter_document(meter) for meter in drift.meters],
    }


def _meter_document(meter: MeterDrift) -> dict[str, Any]:
    source = meter.source
    return {
        "key": meter.key,
        "id": meter.id,
        "name": meter.name,
        "listed": meter.listed,
        "fields": [dataclasses.asdict(field) for field in meter.fields],
        "cause": meter.cause,
        "reason": meter.reason,
        "meters": [dataclasses.asdict(reference) for reference in meter.meters],
        "source": source and source.json,
    }
