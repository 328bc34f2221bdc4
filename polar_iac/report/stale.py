"""A stale plan as text: what differs from the reviewed one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from click import unstyle

from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, Difference
from polar_iac.report.filters import aggregation, expression, filter_diff
from polar_iac.report.layout import SIGNS, outlined_lines
from polar_iac.report.text import MAX_INLINE_FILTER, owner
from polar_iac.report.wording import value
from polar_iac.sanitize import printable


def stale_text(found: Sequence[Difference]) -> str:
    """List the changes that were added, removed or altered since a plan was reviewed, and nothing else."""
    lines: list[str] = []
    for difference in found:
        then, now = difference.reviewed, difference.fresh
        key = printable(difference.key)
        if then is None and now is not None:
            lines.append(f"  {SIGNS[now.action]} {key} is new in the plan: {_intent(now)}")
        elif now is None and then is not None:
            lines.append(f"  {SIGNS[then.action]} {key} is not in the plan any more: it was {_intent(then)}")
        elif then is not None and now is not None:
            lines.append(f"  {SIGNS[now.action]} {key} is not what was reviewed:")
            lines += _drifted(then, now)
    return "".join(f"{line}\n" for line in lines)


def _intent(change: Change) -> str:
    return "blocked" if change.action == "blocked" else f"to {change.action}"


def _drifted(then: Change, now: Change) -> Iterator[str]:
    """Yield the differences of two changes of one key: action, meter, marker, values before and after."""
    if then.action != now.action:
        yield f"      reviewed: {_intent(then)}"
        yield f"      now:      {_intent(now)}" + (f", {printable(now.reason)}" if now.reason else "")
    if then.id != now.id:
        yield f"      reviewed: meter {then.id or 'none'}"
        yield f"      now:      meter {now.id or 'none'}"
    if then.marker != now.marker:
        yield f"      marker: reviewed {_marked(then)}, now {_marked(now)}"
    for side in ("before", "after"):
        one, other = (_by_path(getattr(change, side)) for change in (then, now))
        for path in sorted(one.keys() | other.keys()):
            was, is_ = one.get(path), other.get(path)
            if canonical_json(was) == canonical_json(is_):
                continue
            what = f"{printable(path)}, {'as it is at Polar' if side == 'before' else 'as it would be'}"
            if (
                path == "filter"
                and was
                and is_
                and len(expression(was)) + len(expression(is_)) > MAX_INLINE_FILTER
            ):
                yield f"      {what}, reviewed (-) and now (+):"
                yield from map(unstyle, outlined_lines(filter_diff(was, is_)))
            else:
                yield f"      {what}: reviewed {_said(path, was)}, now {_said(path, is_)}"


def _marked(change: Change) -> str:
    marker = change.marker
    return f"{owner(marker.before)} → {owner(marker.after)}" if marker else "not written"


def _by_path(spec: MeterSpec | None) -> Mapping[str, Any]:
    return {**spec.by_path, "archived": spec.archived} if spec else {}


def _said(path: str, data: Any) -> str:
    if data is None:
        return "none"
    if path == "filter":
        return expression(data)
    return aggregation(data) if path == "aggregation" else value(data)
