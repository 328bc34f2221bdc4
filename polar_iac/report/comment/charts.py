"""Usage by day as charts in the summary of a run, in Mermaid, which GitHub draws.

A chart holds only numbers, days and a plain noun. Names stand above it, escaped as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date

from polar_iac.plan.model import Change, Plan
from polar_iac.report.comment.escape import MARKUP, clipped, strong
from polar_iac.report.evidence import Impact, evidence
from polar_iac.report.risks import RISKS, risk
from polar_iac.report.usage import difference, matched, span
from polar_iac.report.wording import labels, production_first, quantity

MOST_CHARTS = 10
_MOST_DAYS = 31
_COLORS = '%%{init: {"themeVariables": {"xyChart": {"plotColorPalette": "#57606a, #cf222e"}}}}%%'
"""Dark bars, and a line that stands out from them. Mermaid's own bars are too pale on some pages."""
_PLAIN = re.compile("[a-z]+( [A-Za-z]+)?")
_TITLE = "#### Matched usage by day"
_LEGEND = (
    "Bars: counted by the meter as it is. Line: counted after this change. Usage is not what was billed: an "
    "event bills only through a subscription with a price, after trials, credits, caps and discounts."
)


def charts_markdown(plans: Sequence[Plan]) -> str:
    """Return a chart for each change whose usage by day is known, the worst first, or an empty string.

    Only the first ten changes get one.
    """
    plans = production_first(plans)
    names = labels(plans)
    found = [
        (change, impact, name if len(plans) > 1 else "")
        for plan, name in zip(plans, names, strict=True)
        for change in plan.changes
        if (impact := evidence(change).impact) and _has_usage(impact) and change.action != "blocked"
    ]
    if not found:
        return ""
    found.sort(key=lambda one: RISKS.index(kind) if (kind := risk(one[0])) else len(RISKS))
    shown = found[:MOST_CHARTS]
    rest = len(found) - len(shown)
    more = [f"… and {quantity(rest, 'more meter')} without a chart"] if rest else []
    blocks = [_TITLE, _LEGEND, *(_chart(*one) for one in shown), *more]
    return "\n\n".join(blocks) + "\n"


def _has_usage(impact: Impact) -> bool:
    return any(one.before or one.after for one in impact.daily)


def _chart(change: Change, impact: Impact, name: str) -> str:
    spec = change.after or change.before
    noun = f": {matched(spec, MARKUP)}{difference(impact, MARKUP)}" if spec else ""
    where = f" · {strong(clipped(name))}" if name else ""
    title = f"{strong(clipped(change.key))}{where}{noun} a day, {span(impact)}"
    unit = matched(spec, MARKUP) if spec else ""
    unit = unit if _PLAIN.fullmatch(unit) else "matched"
    return "\n".join([title, "", "```mermaid", _COLORS, "xychart-beta", *_lines(impact, unit), "```"])


def _lines(impact: Impact, unit: str) -> Iterator[str]:
    """Yield the axes, and the numbers before and after. A new meter has only the numbers after, as bars."""
    daily = impact.daily[-_MOST_DAYS:]
    yield f'    x-axis "days, UTC" [{", ".join(_labels([one.day for one in daily]))}]'
    before, after = [one.before for one in daily], [one.after for one in daily]
    highest = max(*before, *after, 0.0)
    lowest = min(*before, *after, 0.0)
    yield f'    y-axis "{unit} per day" {_number(lowest)} --> {_number(highest or 1)}'
    if impact.before is not None:
        yield f"    bar [{', '.join(map(_number, before))}]"
        yield f"    line [{', '.join(map(_number, after))}]"
    else:
        yield f"    bar [{', '.join(map(_number, after))}]"


def _labels(days: Sequence[date]) -> Iterator[str]:
    """Yield a different label for each day: days with equal labels would share one place on the axis.

    Thirty labels would not fit with the month in each. Example: from Feb 10 the last ones of thirty days are
    `8`, `9`, `10'` and `11'`.
    """
    seen = set[int]()
    for one in days:
        yield f'"{one.day}\'"' if one.day in seen else str(one.day)
        seen.add(one.day)


def _number(number: float) -> str:
    """Return a number without an exponent, which a chart cannot read."""
    text = f"{number:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
