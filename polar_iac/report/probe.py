"""Answers to a probe as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from polar_iac.apply.probe import Left, Probed, Refused
from polar_iac.report.layout import display_width, wrapped
from polar_iac.report.wording import quantity
from polar_iac.sanitize import printable

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ProbeReport:
    """Everything that a probe of one environment found. `lockfile` and `manifest` are paths as given."""

    environment: str
    organization_id: str | None
    project: str
    manifest: str
    lockfile: str
    answers: Sequence[Probed | Refused]
    left: Sequence[Left]
    unasked: Sequence[str]
    """Keys that were not reached, since the probe ended early."""

    @property
    def probed(self) -> list[Probed]:
        return [answer for answer in self.answers if isinstance(answer, Probed)]

    @property
    def refused(self) -> Refused | None:
        return next((answer for answer in self.answers if isinstance(answer, Refused)), None)


def probe_text(report: ProbeReport, width: int) -> str:
    """Return a line for each meter, and a summary. Prose fits in `width` columns."""
    return "".join(f"{line}\n" for line in _lines(report, width))


def _lines(report: ProbeReport, width: int) -> Iterator[str]:
    organization = f" · organization {report.organization_id[:8]}" if report.organization_id else ""
    yield f"{printable(report.manifest)} → {report.environment}{organization}"
    yield ""
    column = max((display_width(printable(answer.key)) for answer in report.probed), default=0)
    for answer in report.probed:
        key = printable(answer.key) + " " * (column - display_width(printable(answer.key)))
        state = "frozen    " if answer.frozen else "not frozen"
        remark = _remark(answer)
        yield f"  {state}  {key}  {answer.id}{f'  {remark}' if remark else ''}"
    for entry in report.left:
        yield from wrapped(f"{printable(entry.key)}: {printable(entry.reason)}", "  not asked   ", width)
    if report.probed or report.left:
        yield ""
    for sentence in _summary(report):
        yield from wrapped(sentence, "", width)


def _remark(answer: Probed) -> str:
    """Say what the answer means for the lockfile, unless it says the same."""
    if answer.frozen:
        return "" if answer.was_frozen else "recorded now"
    return "the lockfile says frozen, and keeps it" if answer.was_frozen else ""


def _summary(report: ProbeReport) -> Iterator[str]:
    probed = report.probed
    if not (report.answers or report.left or report.unasked):
        yield "Nothing to ask: no declared meter is recorded."
        return
    frozen = sum(answer.frozen for answer in probed)
    new = sum(answer.frozen and not answer.was_frozen for answer in probed)
    learned = f" {quantity(new, 'meter')} newly recorded in {printable(report.lockfile)}." if new else ""
    total = quantity(len(report.answers) + len(report.unasked), "meter")
    ended_early = report.refused or report.unasked
    asked = (
        f"Ended early, with answers about {len(probed):,} of {total}"
        if ended_early
        else f"Asked about {total}"
    )
    yield f"{asked}: {frozen:,} frozen, {len(probed) - frozen:,} not.{learned}"
    if len(probed) > frozen:
        yield "Not frozen is true of this moment: Polar bills every 15 minutes, and that may freeze a meter."
    if any(answer.was_frozen and not answer.frozen for answer in probed):
        yield (
            "Nothing is known to end freezing. If Polar's answer is right, remove `frozen` from the meter's "
            "entry in the lockfile, and plan again."
        )


def probe_json(report: ProbeReport) -> str:
    """Return the answers as JSON, in ASCII."""
    refused = report.refused
    document = {
        "format_version": FORMAT_VERSION,
        "environment": report.environment,
        "organization_id": report.organization_id,
        "project": report.project,
        "manifest": report.manifest,
        "lockfile": report.lockfile,
        "meters": [
            {
                "key": answer.key,
                "id": answer.id,
                "name": answer.name,
                "frozen": answer.frozen,
                "was_frozen": answer.was_frozen,
                "as_of": answer.as_of,
            }
            for answer in report.probed
        ],
        "left": [{"key": entry.key, "id": entry.id, "reason": entry.reason} for entry in report.left],
        "unasked": list(report.unasked),
        "error": refused and {"key": refused.key, "id": refused.id, "message": refused.error},
    }
    return json.dumps(document, indent=2) + "\n"
