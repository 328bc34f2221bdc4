"""A stale plan as text: what differs from the reviewed one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from click import unstyle

from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, Difference
from polar_iac.report.filters import Part, as_written, field_value, filter_diff, filter_of
from polar_iac.report.layout import SIGNS, filter_lines
from polar_iac.report.text import MAX_INLINE_FILTER
from polar_iac.report.wording import MARKER, marker_or_none
from polar_iac.sanitize import printable


def stale_text(differences: Sequence[Difference]) -> str:
    """List the changes that were added, removed or altered since a plan was reviewed, and nothing else."""
    lines: list[str] = []
    for difference in differences:
        then, now = difference.reviewed, difference.fresh
        key = printable(difference.key)
        if now is not None and then is None:
            lines.append(f"  {SIGNS[now.action]} {key} is new in the plan: {_intent(now)}")
        elif then is not None and now is None:
            lines.append(f"  {SIGNS[then.action]} {key} is no longer in the plan (reviewed: {_intent(then)})")
        elif then is not None and now is not None:
            lines.append(f"  {SIGNS[now.action]} {key} is not what was reviewed:")
            lines += _altered(then, now)
    return "".join(f"{line}\n" for line in lines)


def _intent(change: Change) -> str:
    return "blocked" if change.action == "blocked" else f"to {change.action}"


def _altered(then: Change, now: Change) -> Iterator[str]:
    """Yield the differences of two changes of one key: action, meter, marker, values before and after."""
    if then.action != now.action:
        yield f"      reviewed: {_intent(then)}"
        yield f"      now:      {_intent(now)}" + (f", {printable(now.reason)}" if now.reason else "")
    if then.id != now.id:
        yield f"      reviewed: meter {then.id or 'none'}"
        yield f"      now:      meter {now.id or 'none'}"
    if then.marker != now.marker:
        yield f"      {MARKER}: reviewed {_marker(then)}, now {_marker(now)}"
    for specs, when in (((then.before, now.before), "at Polar"), ((then.after, now.after), "after apply")):
        reviewed, fresh = map(_by_path, specs)
        for path in sorted(reviewed.keys() | fresh.keys()):
            if canonical_json(reviewed.get(path)) != canonical_json(fresh.get(path)):
                shown = _filters(*specs) if path == "filter" else (reviewed.get(path), fresh.get(path))
                yield from _value(path, when, *shown)


def _filters(reviewed: MeterSpec | None, fresh: MeterSpec | None) -> tuple[Part | None, Part | None]:
    """Return the filters of two specs, with their clauses in the order in which the fresh one was written.

    A saved plan holds filters in canonical form: the order of its own manifest is not known.
    """
    then, now = (filter_of(spec) if spec else None for spec in (reviewed, fresh))
    return as_written(then, fresh.filter) if then and fresh else then, now


def _value(path: str, when: str, reviewed: Any, fresh: Any) -> Iterator[str]:
    """Yield one value of the reviewed and of the fresh plan. Long filters are compared clause by clause."""
    field = f"      {printable(path)} {when}"
    values = field_value(path, reviewed), field_value(path, fresh)
    if path == "filter" and reviewed and fresh and sum(map(len, values)) > MAX_INLINE_FILTER:
        yield f"{field}, reviewed (-) and now (+):"
        yield from map(unstyle, filter_lines(filter_diff(reviewed, fresh)))
    else:
        yield f"{field}: reviewed {values[0]}, now {values[1]}"


def _marker(change: Change) -> str:
    marker = change.marker
    if marker is None:
        return "not written"
    return f"{marker_or_none(marker.before, printable)} → {marker_or_none(marker.after, printable)}"


def _by_path(spec: MeterSpec | None) -> Mapping[str, Any]:
    return {**spec.by_path, "archived": spec.archived} if spec else {}
