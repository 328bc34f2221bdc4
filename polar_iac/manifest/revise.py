"""One value of a meter in the manifest's text, replaced by another: as little of the text as can be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from polar_iac.errors import DiagnosticError
from polar_iac.manifest.write import plain_filter
from polar_iac.meter.canonical import canonical_property, canonical_value
from polar_iac.meter.filter import Aggregation, Filter
from polar_iac.yaml.edit import Editor, same

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class _Step:
    """One edit: set a value, remove it, or append items to a list."""

    action: str
    path: Path
    value: Any = None

    @property
    def size(self) -> int:
        return len(json.dumps(self.value))


def revised(source: bytes, file: str, key: str, path: Path, value: Any) -> bytes:
    """Return the manifest's text with another value at `path` of a meter. None takes the value out.

    Raises DiagnosticError where it cannot be edited without changing something else.
    """
    whole: Path = ("meters", key, *path)
    # Nobody writes `archived: false`, unless to override what a merge key brings.
    if value is None or (path == ("archived",) and not value):
        return _without(source, file, whole, value)
    if not isinstance(value, Filter | Aggregation):
        return _edited(source, file, _Step("set", whole, value))
    old = Editor(source, file).data["meters"][key].get(path[0])
    # Whichever form takes the smaller edits: as Polar has it, or without the groups that say nothing.
    forms = [plain_filter(value).wire(), value.wire()] if isinstance(value, Filter) else [value.wire()]
    steps = min(
        ([*_steps(whole, old, form)] for form in forms), key=lambda steps: sum(step.size for step in steps)
    )
    edited = source
    try:
        for step in steps:
            edited = _edited(edited, file, step)
    except DiagnosticError:
        return _edited(source, file, _Step("set", whole, forms[0]))
    return edited


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
    else:
        yield _Step("set", path, new)


def _equal(name: str | int, old: Any, new: Any) -> bool:
    """Tell whether two values are the same to Polar. Example: the properties `metadata.a` and `a`."""
    if name == "property" and isinstance(old, str):
        return bool(canonical_property(old) == new)
    return bool(same(canonical_value(old), new))


def _edited(source: bytes, file: str, step: _Step) -> bytes:
    editor = Editor(source, file)
    if step.action == "append":
        editor.append(step.path, step.value)
    elif step.action == "remove":
        editor.remove(step.path)
    else:
        editor.set(step.path, step.value)
    return editor.finish()


def _without(source: bytes, file: str, path: Path, value: Any) -> bytes:
    editor = Editor(source, file)
    # Metadata may hold no null. A field that a merge key brings is overridden.
    if path[2] == "metadata" or editor.is_own(path):
        editor.remove(path)
    else:
        editor.set(path, value)
    return editor.finish()
