"""Drift as the text of an issue, for someone who has never seen this tool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polar_iac.plan.drift import ARCHIVED, MARKER, Drift, FieldDrift, MeterDrift
from polar_iac.report.comment.budget import Budget
from polar_iac.report.comment.context import BLOCKED_SIGN
from polar_iac.report.comment.document import hidden_line
from polar_iac.report.comment.escape import Links, clipped, code, linked, prose, short_code
from polar_iac.report.comment.fields import filter_diff_block, label, value_code
from polar_iac.report.drift import DECLARED, DIRECTION, apart, impacts, next_steps
from polar_iac.report.wording import TERMS, agree, listed, quantity, value

_LIMIT = 50_000
"""Most bytes of the text. GitHub takes 65,536 characters, and the action adds a paragraph."""
_FILTER = 8_000
"""Most bytes of one filter's diff."""


def drift_markdown(
    drifts: Sequence[Drift],
    *,
    manifest_file: str,
    links: Links | None = None,
    whole: str = "in the log of the run",
) -> str:
    """Return the drift of all environments in at most 50,000 bytes. The last line is hidden.

    Meters that do not fit are counted, and `whole` says where to find them.
    """
    drifted = [drift for drift in drifts if drift.meters]
    count = sum(len(drift.meters) for drift in drifted)
    marker = hidden_line({drift.project for drift in drifts}, {drift.environment for drift in drifts})
    names = listed([drift.environment for drift in drifted or drifts])
    if not drifted:
        return f"### Polar meters: no drift · {prose(names)}\n\n{marker}\n"
    title = f"### Polar meters: drift of {quantity(count, 'meter')} · {prose(names)}"
    url = links.file(manifest_file) if links else None
    steps = [prose(step) for step in next_steps([meter for drift in drifted for meter in drift.meters])]
    terms = impacts([meter for drift in drifted for meter in drift.meters])
    foot = [*steps, "\n".join(f"- **{term}**: {TERMS[term]}." for term in terms)] if terms else steps
    intro = f"Not as {linked(clipped(manifest_file), url)} was applied last: {prose(DIRECTION)}."
    budget = Budget(_LIMIT)
    budget.reserve(title, intro, *foot, marker, "and 1,000,000 more meters")
    blocks = [title, intro]
    left_out = 0
    for drift in drifted:
        heading = _heading(drift)
        budget.reserve(heading)
        blocks.append(heading)
        for meter in drift.meters:
            block = "\n\n".join(_meter(meter, links))
            if budget.take(block):
                blocks.append(block)
            else:
                left_out += 1
    more = [f"and {quantity(left_out, 'more meter')}, {whole}"] if left_out else []
    return "\n\n".join([*blocks, *more, *foot, marker]) + "\n"


def _heading(drift: Drift) -> str:
    organization = f" (organization {code(drift.organization_id[:8])})" if drift.organization_id else ""
    return (
        f"**{prose(drift.environment)}**{organization}: {len(drift.meters):,} of "
        f"{quantity(drift.compared, 'recorded meter')} {agree(len(drift.meters), 'differs', 'differ')}"
    )


def _meter(meter: MeterDrift, links: Links | None) -> Iterator[str]:
    """Yield the title of a meter, its filters, and the list of its other fields."""
    source = meter.source
    place = ""
    if source:
        url = links.file(source.file, source.line) if links else None
        place = f" · {linked(f'{clipped(source.file)}:{source.line}', url)}"
    gone = "" if meter.listed else " · gone from the manifest"
    word = "Not compared" if meter.reason else "Changed"
    yield f"**{word}** {short_code(meter.key)} {short_code(value(meter.name))}{place}{gone}"
    items = []
    for field in meter.fields:
        if field.path == "filter":
            yield f"filter · {_remarks(field)}"
            yield filter_diff_block(field.recorded, field.live).markdown(_FILTER, "the log of the run")
        else:
            items.append(_item(field))
    if meter.reason:
        items.append(f"- {BLOCKED_SIGN} {prose(meter.reason)}")
    if items:
        yield "\n".join(items)


def _item(field: FieldDrift) -> str:
    if field.path in (ARCHIVED, MARKER):
        values = f"{_plain(field.recorded)} → {_plain(field.live)}"
        return f"- {field.path}: {values} · {_remarks(field)}"
    values = f"{value_code(field.path, field.recorded)} → {value_code(field.path, field.live)}"
    return f"- {label(field.path)}: {values} · {_remarks(field)}"


def _plain(data: object) -> str:
    return "none" if data is None else code(value(data))


def _remarks(field: FieldDrift) -> str:
    impact = "**billing**" if field.impact == "billing" else prose(field.impact or "")
    remarks = [impact or prose(apart(field)), prose(DECLARED) if field.declared else ""]
    return " · ".join(filter(None, remarks))
