"""Findings of a check, as Markdown for an issue."""

from __future__ import annotations

from collections.abc import Sequence

from polar_iac.plan.check import Check, Drifted
from polar_iac.report.check import first_names, line, not_checked
from polar_iac.report.comment.budget import Budget
from polar_iac.report.comment.document import hidden_line
from polar_iac.report.comment.drift import drift_markdown
from polar_iac.report.comment.escape import Links, clipped, code, linked, prose, short_code
from polar_iac.report.wording import listed, quantity

_LIMIT = 12_000
"""Most bytes of the findings. The drift below them has its own limit, and an issue holds both."""
_NAMES = 20
"""Most event names that are listed."""


def check_markdown(checks: Sequence[Check], *, manifest_file: str, links: Links | None = None) -> str:
    """Return what is wrong in all environments, and the whole of their drift. The last line is hidden.

    Findings that do not fit are counted.
    """
    drifts = [check.drift for check in checks]
    environments = {drift.environment for drift in drifts}
    marker = hidden_line({drift.project for drift in drifts}, environments)
    count = sum(len(check.findings) for check in checks)
    names = prose(listed([c.drift.environment for c in checks if c.findings or not count]))
    budget = Budget(_LIMIT)
    title = f"### Polar meters: {quantity(count, 'thing') if count else 'nothing'} wrong · {names}"
    blocks = [title]
    left_out = 0
    for check in checks:
        found, left = _findings(check, manifest_file, links, budget)
        blocks += found
        left_out += left
    if left_out:
        blocks.append(
            f"and {quantity(left_out, 'more finding')}: `polar-iac check --format json` has them all"
        )
    if any(drift.meters for drift in drifts):
        whole = "which `polar-iac drift` shows"
        drift = drift_markdown(drifts, manifest_file=manifest_file, links=links, whole=whole)
        return "\n\n".join([*blocks, drift])
    return "\n\n".join([*blocks, marker]) + "\n"


def _findings(check: Check, manifest_file: str, links: Links | None, budget: Budget) -> tuple[list[str], int]:
    """Return the blocks of one environment, and the number of findings left out. Drift is not in them."""
    shown, left_out = first_names(check.findings, _NAMES)
    items = []
    for one in shown:
        if isinstance(one, Drifted):
            continue
        said = line(one, check.as_of[:10], check.drift.environment, short_code)
        item = f"- **{said.subject}** {said.text} {said.remark}".rstrip()
        if budget.take(item):
            items.append(item)
        else:
            left_out += 1
    blocks = []
    if items:
        blocks += [_heading(check, manifest_file, links), "\n".join(items)]
    if check.gaps:
        place = prose(check.drift.environment)
        blocks.append(f"Not checked in {place}: {not_checked(check.gaps, _quoted)}.")
    return blocks, left_out


def _heading(check: Check, manifest_file: str, links: Links | None) -> str:
    drift = check.drift
    url = links.file(manifest_file) if links else None
    organization = f" (organization {code(drift.organization_id[:8])})" if drift.organization_id else ""
    return f"**{prose(drift.environment)}**{organization}, {linked(clipped(manifest_file), url)}:"


def _quoted(text: str) -> str:
    """Escape a key, or one of our sentences about why something could not be read."""
    return prose(clipped(text, 300))
