"""Reading of the events that the impact of changes needs, with the requests left in a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polar_iac.facts.model import EventName, EventsRead, Gap
from polar_iac.facts.names import reaches
from polar_iac.facts.period import Period
from polar_iac.facts.reading import EventPage, Want, read_events
from polar_iac.plan.model import Change

if TYPE_CHECKING:
    from polar_iac.polar.facts import FactsReader


def read_matched(
    changes: Sequence[Change], names: Sequence[EventName], reader: FactsReader
) -> tuple[Mapping[str, EventsRead], Sequence[Gap]]:
    """Read the events of every name that matters for the changes, and say what could not be read."""
    as_of = reader.as_of()
    period = Period.before_time(as_of)
    reach = {
        change.key: reaches(names, change.before, change.after, period)
        for change in changes
        if change.after is not None
    }
    failed: list[Gap] = []

    def read_page(name: str, start: str, end: str, page: int, size: int) -> EventPage | None:
        answer = reader.events_page(name, start, end, page, size)
        if isinstance(answer, Gap):
            failed.append(answer)
            return None
        return answer

    wants = [Want(key, tuple(name.name for name in named)) for key, named in reach.items()]
    events = read_events(read_page, wants, period, as_of, reader.left)
    keys = tuple(
        key for key, named in reach.items() if any(name.differs and name.name not in events for name in named)
    )
    if failed:
        return events, [Gap("events", failed[0].lack, failed[0].text, keys)]
    if keys:
        text = "the events that the impact needs would take more requests than are left"
        return events, [Gap("events", "budget", text, keys)]
    return events, []
