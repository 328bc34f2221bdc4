"""Claims about filters that hold for every event there is, and examples against them.

`True` and `False` are proven; None means that the search stayed open. An event may be anything that the
recordings hold: of a user or of the system, at any time, with any JSON in its metadata. All claims are about
what billing matches, if they do not say otherwise. Numbers beyond a double are left out for `/quantities`,
where they fail the query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.filter import Filter
from polar_iac.meter.meaning.comparing import Engine
from polar_iac.meter.meaning.events import Event, QueryError, bare
from polar_iac.meter.meaning.filters import Matcher, compile_filter
from polar_iac.meter.meaning.formula import Formula, Joined, Vocabulary
from polar_iac.meter.meaning.search import OPEN, SIZE, Finding, Json, Search, Space

FilterJson = Mapping[str, Any]


def find(
    matched: FilterJson | None,
    missed: FilterJson | None = None,
    *,
    engine: Engine = "billing",
    plausible: bool = True,
) -> Finding:
    """Search for an event that one filter matches and the other one does not. None stands for no condition.

    With `plausible` an event that ingestion accepts is looked for first. Raises KeyError when an argument is
    no filter. For `quantities` both filters must be ones that the database does not refuse.
    """
    question = _question(matched, missed, engine)
    if question is None:
        return OPEN
    if plausible and (finding := question.among_ingestible()).status == "found":
        return finding
    return question.among_all()


@dataclass(frozen=True)
class _Question:
    """Aim of a search: a formula over the domains of its properties, and the check of what is found."""

    space: Space
    formula: Formula
    holds: Callable[[Json], bool]

    def among_ingestible(self) -> Finding:
        return Search(self.space, self.holds, ingestible=True).run(self.formula)

    def among_all(self) -> Finding:
        return Search(self.space, self.holds, ingestible=False).run(self.formula)


def _question(matched: FilterJson | None, missed: FilterJson | None, engine: Engine) -> _Question | None:
    """Return a question; None if it is too large to be asked."""
    vocabulary = Vocabulary(engine)
    wanted = [
        (compile_filter(filter_), vocabulary.formula(filter_, matches=matches), matches)
        for filter_, matches in ((matched, True), (missed, False))
        if filter_ is not None
    ]
    if vocabulary.size > SIZE:
        return None

    def holds(event: Json) -> bool:
        read = Event.from_json(event)
        return all(_matches(matcher, engine, read) is matches for matcher, _, matches in wanted)

    return _Question(Space(vocabulary), Joined(True, tuple(part for _, part, _ in wanted)), holds)


def _matches(matcher: Matcher, engine: Engine, event: Event) -> bool | None:
    """Return what an engine matches; None if the query fails."""
    if engine == "billing":
        return matcher.billing(event)
    try:
        return matcher.sql(event)
    except QueryError:
        return None


def _same_form(one: FilterJson, other: FilterJson) -> bool:
    """Tell whether two filters have the same normal form, and so the same meaning.

    The form strips any number of leading `metadata.`. Polar strips two, and looks up what is left as a path.
    """
    texts = [canonical_json(Filter.from_json(filter_).canonical()) for filter_ in (one, other)]
    return texts[0] == texts[1] and not any(map(_has_long_prefix, (one, other)))


def _has_long_prefix(part: FilterJson) -> bool:
    if "clauses" in part:
        return any(map(_has_long_prefix, part["clauses"]))
    return bare(part["property"]).startswith("metadata.")


def _both(first: bool | None, second: Callable[[], bool | None]) -> bool | None:
    """Return whether two things are so. The second is asked only where it matters."""
    if first is False:
        return False
    also = second()
    return also if also is False or first is True else None


def ingestible_witness(filter_: FilterJson) -> Finding:
    """Search for an event that a filter matches among those that ingestion accepts.

    "none" means that the filter matches no event of any user, ever: `usage.tokens > 5` matches system events
    at most.
    """
    return ingestible_difference(filter_, None)


def ingestible_difference(matched: FilterJson, missed: FilterJson | None) -> Finding:
    """Search like `find`, for billing, among the events that ingestion accepts alone."""
    question = _question(matched, missed, "billing")
    return OPEN if question is None else question.among_ingestible()


def _is_none(finding: Finding) -> bool | None:
    return None if finding.status == "open" else finding.status == "none"


def witness(filter_: FilterJson) -> Json | None:
    """Return an event that a filter matches, one that could be ingested where possible."""
    return find(filter_).event


def difference(one: FilterJson, other: FilterJson) -> Json | None:
    """Return an event that one filter matches and the other one does not, ingestible where possible."""
    return find(one, other).event


def never(filter_: FilterJson) -> bool | None:
    """Tell whether a filter matches no event at all."""
    return _is_none(find(filter_, plausible=False))


def always(filter_: FilterJson) -> bool | None:
    """Tell whether a filter matches every event."""
    return _is_none(find(None, filter_, plausible=False))


def implies(one: FilterJson, other: FilterJson) -> bool | None:
    """Tell whether every event that one filter matches is matched by the other one, too."""
    return _is_none(find(one, other, plausible=False))


def overlap(one: FilterJson, other: FilterJson) -> bool | None:
    """Tell whether some event is matched by both filters."""
    apart = never({"conjunction": "and", "clauses": [one, other]})
    return None if apart is None else not apart


def equivalent(one: FilterJson, other: FilterJson) -> bool | None:
    """Tell whether two filters match the same events, both when they are billed and in `/quantities`."""
    fails = [compile_filter(filter_).sql_fails for filter_ in (one, other)]
    if fails[0] is not fails[1]:
        return False
    if _same_form(one, other):
        return True
    return _both(bill_alike(one, other), lambda: count_alike(one, other))


def bill_alike(one: FilterJson, other: FilterJson) -> bool | None:
    """Tell whether two filters match the same events when they are billed."""
    return _both(implies(one, other), lambda: implies(other, one))


def count_alike(one: FilterJson, other: FilterJson) -> bool | None:
    """Tell whether two filters match the same events in `/quantities`.

    The order of texts depends on the database's collation there. What this proves holds for any.
    """
    fails = [compile_filter(filter_).sql_fails for filter_ in (one, other)]
    if any(fails):
        return all(fails)
    first = _is_none(find(one, other, engine="quantities", plausible=False))
    return _both(first, lambda: _is_none(find(other, one, engine="quantities", plausible=False)))
