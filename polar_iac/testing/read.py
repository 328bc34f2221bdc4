"""Reader of test files: YAML text to tests, with a position for everything that can be wrong."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from polar_iac.errors import Diagnostic, DiagnosticError, PolarIacError, SourceSpan
from polar_iac.files import open_file, read_file
from polar_iac.manifest.model import Manifest
from polar_iac.manifest.node_reader import NodeReader, describe, quotes_hint
from polar_iac.testing.doubts import doubtful_properties, place_of, properties, undeclared_properties
from polar_iac.testing.events import (
    MAX_TIMES,
    compile_event,
    customer_of,
    event_of,
    is_finite,
    merged,
    read_moment,
    refusals,
)
from polar_iac.testing.model import Expected, Given, Json, MeterTest, Reading
from polar_iac.testing.recorded import KEYS, read_lines
from polar_iac.yaml import tree
from polar_iac.yaml.messages import MAX_BYTES
from polar_iac.yaml.parse import parse
from polar_iac.yaml.scalars import nearest

_TOP = ("version", "defaults", "tests", "x-…")
_TEST = ("name", "meter", "given", "expect")
_EXPECT = ("units", "total", "events")
_KEYS = frozenset(KEYS)
_PLAIN = frozenset((str, int, bool))
"""Types of values with which nothing can be wrong."""
_TEXTS = frozenset(("name", "source", "customer"))
_NAMES = frozenset(("event_name", "event_type", "event", "type"))
_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(_NAMES, "write it as `name`"),
    **dict.fromkeys(("properties", "attributes", "data", "payload"), "write it as `metadata`"),
    **dict.fromkeys(
        ("customer_id", "external_customer_id", "external_id", "user", "user_id"), "write it as `customer`"
    ),
    **dict.fromkeys(("count", "repeat"), "write it as `times`"),
    **dict.fromkeys(("quantity", "quantities"), "write it as `units` or `total`"),
    **dict.fromkeys(("file",), "write `given: {file: events.jsonl}`"),
}
"""Advice for keys that other tools, or Polar's API, have."""


def read_tests(path: Path, manifest: Manifest) -> Reading:
    """Read a file of tests. Raises DiagnosticError with every problem, PolarIacError if it is unreadable."""
    try:
        with open_file(path) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PolarIacError(f"{path} not found") from None
    except OSError as error:
        raise PolarIacError(f"cannot read {path}: {error.strerror}") from None
    return load(data, str(path), manifest)


def load(text: bytes, file: str, manifest: Manifest) -> Reading:
    """Parse the tests in `text`; recorded events are read beside `file`. Raises what `read_tests` raises."""
    collecting = gc.isenabled()
    gc.disable()  # as the manifest's reader does: a tree has no cycles
    try:
        return _FileReader(NodeReader(parse(text, file), _ELSEWHERE), manifest).read()
    finally:
        if collecting:
            gc.enable()


class _FileReader:
    """Reader of one file. `recorded_faults` are those of the files of recorded events."""

    def __init__(self, reader: NodeReader, manifest: Manifest) -> None:
        self.reader = reader
        self.manifest = manifest
        self.defaults: Json = {}
        self.default_node: tree.Node = reader.document.root
        self.recorded_faults: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        # Once for each meter: many tests are of the same one.
        self.known = cache(lambda key: properties(manifest.meters[key].spec))

    def read(self) -> Reading:
        tests = tuple(self._tests())
        try:
            self.reader.finish()
        except DiagnosticError as error:
            raise DiagnosticError([*error.diagnostics, *self.recorded_faults]) from None
        if self.recorded_faults:
            raise DiagnosticError(self.recorded_faults[: tree.MAX_PROBLEMS])
        return Reading(tests, tuple(self.warnings), bool(self.defaults))

    def _tests(self) -> Iterator[MeterTest]:
        reader, root = self.reader, self.reader.document.root
        if not isinstance(root, tree.Map):
            got = "nothing" if isinstance(root, tree.Scalar) and root.value is None else describe(root)
            reader.fault(root, f"a file of tests is a map that begins with `version: 1`, got {got}")
            return
        reader.keys(root, _TOP, ("version", "tests"), root)
        version = root.entries.get("version")
        # `type() is`, because `True == 1` in Python.
        if version is not None and (type(_scalar(version)) is not int or _scalar(version) != 1):
            hint = quotes_hint(version, int)
            reader.fault(version, f"version must be the number 1, got {describe(version)}{hint}")
        if "defaults" in root.entries:
            self.default_node = root.entries["defaults"]
            self.defaults = self._said(self.default_node, "defaults")
        names: set[str] = set()
        example = "[{name: …, meter: …, given: […], expect: {total: 3}}]"
        for node in reader.list(root.entries["tests"], "tests", example) if "tests" in root.entries else ():
            fields = reader.map(node, "a test", "{name: …, meter: …, given: […], expect: {total: 3}}")
            if fields is not None:
                yield self._test(fields, names)

    def _test(self, node: tree.Map, names: set[str]) -> MeterTest:
        reader, entries = self.reader, node.entries
        reader.keys(node, _TEST, ("name", "meter", "given"), node)
        name = (reader.text(entries["name"], "name") or "") if "name" in entries else ""
        if "name" in entries:
            if name in names:
                reader.fault(
                    entries["name"], f"the name of a test is unique in its file: `{name}` is there twice"
                )
            elif not name.strip():
                reader.fault(entries["name"], "name is empty: write what the test shows")
            names.add(name)
        meter = self._meter(entries["meter"]) if "meter" in entries else ""
        given = tuple(self._given(entries["given"])) if "given" in entries else ()
        units, total, events = self._expect(entries["expect"]) if "expect" in entries else ({}, None, None)
        has_expectation = "expect" in entries or any(event.counted is not None for event in given)
        if not has_expectation and "given" in entries:
            message = "this test expects nothing: write `expect: {total: …}`, or `counted: true` in an event"
            reader.fault(node, message)
        if sum(event.times for event in given) > MAX_TIMES:
            reader.fault(node.place("given"), f"the events of a test happen at most {MAX_TIMES:,} times")
        test = MeterTest(name, meter, given, units, total, events, reader.document.span_of(node))
        if meter in self.manifest.meters:
            listed = entries.get("given", node)
            known = self.known(meter)
            self.warnings += doubtful_properties(reader.document, listed, test, self.manifest, known)
            self.warnings += undeclared_properties(reader.document, listed, test, self.manifest)
        return test

    def _meter(self, node: tree.Node) -> str:
        key = self.reader.text(node, "meter") or ""
        if key and key not in self.manifest.meters:
            guess = nearest(key, tuple(self.manifest.meters))
            hint = f": did you mean `{guess}`?" if guess else ""
            self.reader.fault(node, f"{self.manifest.file} has no meter `{key}`{hint}")
        return key

    # --- Events ---

    def _given(self, node: tree.Node) -> Iterator[Given]:
        if isinstance(node, tree.Map):
            yield from self._recorded(node)
            return
        example = "[{name: api.request, metadata: {status: 200}}]"
        for number, item in enumerate(self.reader.list(node, "given", example)):
            own = self._said(item, "an event")
            said = merged(self.defaults, own) if self.defaults else own
            event = event_of(said, number)
            for key, message in refusals(event):
                path = ("name",) if key is None else ("metadata", key)
                self.reader.fault(place_of(item, path) or place_of(self.default_node, path) or item, message)
            yield Given(
                f"given[{number}]",
                compile_event(event),
                event,
                customer_of(own, self.defaults),
                said.get("times", 1),
                said.get("counted"),
                partial(self.reader.document.span_of, item),
            )

    def _said(self, node: tree.Node, what: str) -> dict[str, Any]:
        """Return what an event, or `defaults`, says."""
        reader = self.reader
        fields = reader.map(node, what, "{name: api.request, metadata: {status: 200}}")
        said: dict[str, Any] = {}
        if fields is None:
            return said
        if not ("name" in fields.entries and fields.entries.keys() <= _KEYS):
            is_named = what == "defaults" or "name" in self.defaults or bool(fields.entries.keys() & _NAMES)
            reader.keys(fields, KEYS, () if is_named else ("name",), fields)
        for name, value in fields.entries.items():
            if name in _TEXTS:
                said[name] = reader.text(value, name) or ""
            elif name == "metadata":
                said[name] = self._metadata(value)
            elif name == "timestamp":
                said[name] = self._moment(value)
            elif name == "times":
                said[name] = self._times(value)
            elif name == "counted":
                said[name] = reader.boolean(value, "counted")
        return said

    def _metadata(self, node: tree.Node) -> dict[str, Any]:
        fields = self.reader.map(node, "metadata", "{status: 200}")
        if fields is None:
            return {}
        return {
            name: data
            if type(value) is tree.Scalar and type(data := value.value) in _PLAIN
            else self._json(value)
            for name, value in fields.entries.items()
        }

    def _json(self, node: tree.Node) -> Any:
        """Return any value as JSON has it."""
        if type(node) is tree.Scalar and type(value := node.value) in _PLAIN:
            return value
        return self.reader.json(node)

    def _moment(self, node: tree.Node) -> str:
        text = node.value if isinstance(node, tree.Scalar) else None
        # A date without quotes is doubtful elsewhere; here nothing but a time can be meant.
        found = read_moment(text) if isinstance(text, str) else None
        if found is None:
            example = '"2026-01-01T00:00:00Z"'
            self.reader.fault(
                node, f"timestamp is a time with a zone such as {example}, got {describe(node)}"
            )
        return found or ""

    def _times(self, node: tree.Node) -> int:
        value = _scalar(node)
        if type(value) is int and 1 <= value <= MAX_TIMES:
            return value
        limits = f"a whole number from 1 to {MAX_TIMES:,}"
        self.reader.fault(node, f"times must be {limits}, got {describe(node)}{quotes_hint(node, int)}")
        return 1

    def _recorded(self, node: tree.Map) -> Iterator[Given]:
        """Yield the events of a file that stands beside this one."""
        if "name" in node.entries and "file" not in node.entries:
            self.reader.fault(node, "given is a list of events: write `- {name: …}`, also for one")
            return
        self.reader.keys(node, ("file",), ("file",), node)
        name = self.reader.text(node.entries["file"], "file") if "file" in node.entries else None
        if not name:
            return
        path = Path(self.reader.document.file).parent / name
        try:
            text = read_file(path).decode()
        except UnicodeDecodeError:
            self.reader.fault(node.entries["file"], f"{path} is not text in UTF-8")
            return
        except OSError as error:
            self.reader.fault(node.entries["file"], f"cannot read {path}: {error.strerror}")
            return
        except PolarIacError as error:
            self.reader.fault(node.entries["file"], str(error))
            return
        for number, line in enumerate(read_lines(text, str(path), self.recorded_faults)):
            said = merged(self.defaults, line.said)
            event = event_of(said, number)
            problems = [message for _, message in refusals(event)]
            if "name" not in said:
                problems.append("`name` is missing")
            self.recorded_faults += [Diagnostic(line.span, message) for message in problems]
            yield Given(
                f"{name}:{line.span.line}",
                compile_event(event),
                event,
                customer_of(line.said, self.defaults),
                said.get("times", 1),
                said.get("counted"),
                partial(_known, line.span),
            )

    # --- Expectations ---

    def _expect(self, node: tree.Node) -> tuple[dict[str, Expected], Expected | None, Expected | None]:
        units: dict[str, Expected] = {}
        fields = self.reader.map(node, "expect", "{units: {alice: 300}, total: 305, events: 3}")
        if fields is None:
            return units, None, None
        self.reader.keys(fields, _EXPECT, (), fields)
        if "units" in fields.entries:
            customers = self.reader.map(fields.entries["units"], "units", "{alice: 300}")
            for customer, number in customers.entries.items() if customers else ():
                units[customer] = self._number(number, f"the units of {customer}")
        total = self._number(fields.entries["total"], "total") if "total" in fields.entries else None
        events = self._number(fields.entries["events"], "events") if "events" in fields.entries else None
        if events and (events.value < 0 or events.value != int(events.value)):
            self.reader.fault(fields.entries["events"], "events is how many events count: a whole number")
        if fields.entries.keys() <= {*_EXPECT} and not (units or total or events or fields.blamed):
            self.reader.fault(node, "expect is empty: write units, total or events")
        return units, total, events

    def _number(self, node: tree.Node, what: str) -> Expected:
        value = _scalar(node)
        if isinstance(value, bool) or not isinstance(value, int | float) or not is_finite(value):
            hint = quotes_hint(node, int) or quotes_hint(node, float)
            self.reader.fault(node, f"{what} must be a number, got {describe(node)}{hint}")
            value = 0
        return Expected(value, self.reader.document.span_of(node))


def _known(span: SourceSpan) -> SourceSpan:
    return span


def _scalar(node: tree.Node) -> Any:
    return node.value if isinstance(node, tree.Scalar) else None
