"""One value of a meter in the manifest's text, replaced by another: as little of the text as can be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polar_iac.manifest.write import plain_filter
from polar_iac.meter.canonical import canonical_property, canonical_value
from polar_iac.meter.filter import Aggregation, Filter
from polar_iac.yaml.data import same
from polar_iac.yaml.edit import Editor

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class _Step:
    """One edit: set a value, remove a member of a collection, or append items to a list."""

    action: str
    path: Path
    value: Any = None

    @property
    def size(self) -> int:
        return len(json.dumps(self.value))

    def carry_out(self, editor: Editor) -> None:
        if self.action == "append":
            editor.append(self.path, self.value)
        elif self.action == "remove":
            editor.remove(self.path)
        else:
            editor.set(self.path, self.value)


def revise(editor: Editor, key: str, path: Path, value: Any, *, whole: bool = False) -> None:
    """Edit the value at `path` of a meter. None takes it out.

    With `whole`, a filter is written anew as a whole, not only where it differs.
    """
    place: Path = ("meters", key, *path)
    # Nobody writes `archived: false`, unless to override what a merge key brings.
    if value is None or (path == ("archived",) and not value):
        # Metadata may hold no null. Another field that a merge key brings is overridden.
        if path[0] == "metadata" or editor.is_own(place):
            editor.remove(place)
        else:
            editor.set(place, value)
    elif isinstance(value, Filter | Aggregation):
        for step in _smallest(place, editor.data["meters"][key].get(path[0]), value, whole=whole):
            step.carry_out(editor)
    else:
        editor.set(place, value)


def _smallest(place: Path, old: Any, value: Filter | Aggregation, *, whole: bool) -> Sequence[_Step]:
    """Return the fewest edits: to the form that Polar has, or to that without groups that say nothing."""
    forms = [plain_filter(value).wire(), value.wire()] if isinstance(value, Filter) else [value.wire()]
    if whole:
        return [_Step("set", place, forms[0])]
    found = [[*_steps(place, old, form)] for form in forms]
    return min(found, key=lambda steps: sum(step.size for step in steps))


def _steps(path: Path, old: Any, new: Any) -> Iterator[_Step]:
    """Yield the edits that make one value of another. What stays equal is not touched."""
    if _equal(path[-1], old, new):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping) and old.keys() & new.keys():
        for name in new:
            if name in old:
                yield from _steps((*path, name), old[name], new[name])
            else:
                yield _Step("set", (*path, name), new[name])
        for name in old.keys() - new.keys():
            yield _Step("remove", (*path, name))
    elif isinstance(old, list) and isinstance(new, list) and 0 < len(old) <= len(new):
        for number, item in enumerate(old):
            yield from _steps((*path, number), item, new[number])
        if more := new[len(old) :]:
            yield _Step("append", path, more)
    elif isinstance(old, list) and isinstance(new, list) and (gone := _gone(old, new)):
        for number in reversed(gone):
            yield _Step("remove", (*path, number))
    else:
        yield _Step("set", path, new)


def _gone(old: Sequence[Any], new: Sequence[Any]) -> list[int]:
    """Return which items of a list are gone, or an empty list if others changed too, or none are left."""
    gone, kept = list[int](), 0
    for number, item in enumerate(old):
        if kept < len(new) and _is_same(item, new[kept]):
            kept += 1
        else:
            gone.append(number)
    return gone if kept == len(new) > 0 else []


def _is_same(old: Any, new: Any) -> bool:
    return not [*_steps(("",), old, new)]


def _equal(name: str | int, old: Any, new: Any) -> bool:
    """Tell whether two values are the same to Polar. Example: the properties `metadata.a` and `a`."""
    if name == "property" and isinstance(old, str):
        return bool(canonical_property(old) == new)
    return bool(same(canonical_value(old), new))
