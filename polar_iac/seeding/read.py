"""Reader of seed files: YAML text to a seed, with a position for everything that can be wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from polar_iac.errors import PolarIacError
from polar_iac.files import open_file
from polar_iac.manifest.meters import MeterReader
from polar_iac.manifest.node_reader import NodeReader, describe, quotes_hint
from polar_iac.seeding.events import MAX_EVENTS
from polar_iac.seeding.model import ANYBODY, Entry, EventSeries, Seed, SeedMeter
from polar_iac.seeding.moments import Moment, read_duration, read_moment
from polar_iac.testing.doubts import place_of
from polar_iac.testing.events import event_of, refusals
from polar_iac.yaml import tree
from polar_iac.yaml.messages import MAX_BYTES
from polar_iac.yaml.parse import parse

_TOP = ("version", "meters", "customers", "benefits", "products", "events", "credits", "x-…")
_EVENT = ("name", "customer", "metadata", "at", "from", "to", "every", "times")
_CUSTOMER = ("external_id", "name", "email")
_BENEFIT = ("description", "meter", "units", "rollover")
_PRODUCT = ("name", "description", "recurring_interval", "prices", "benefits", "archived", "metadata")
_PRICE = ("meter", "unit_amount", "cap_amount", "price_amount", "price_currency")
_CREDIT = ("customer", "meter", "units")
_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("event_name", "event_type", "event"), "write it as `name`"),
    **dict.fromkeys(("properties", "attributes", "data", "payload"), "write it as `metadata`"),
    **dict.fromkeys(
        ("customer_id", "external_customer_id", "user", "user_id", "customers"), "write it as `customer`"
    ),
    **dict.fromkeys(("timestamp", "time", "date", "days_ago"), "write it as `at`, for example `at: -3d`"),
    **dict.fromkeys(("start", "since"), "write it as `from`, for example `from: -30d`"),
    **dict.fromkeys(("end", "until"), "write it as `to`, for example `to: now`"),
    **dict.fromkeys(("interval", "step"), "write it as `every`, for example `every: 1h`"),
    **dict.fromkeys(("count", "repeat"), "write it as `times`"),
    **dict.fromkeys(("meter_id",), "write it as `meter`: a name of this file, or a key, name or id"),
    **dict.fromkeys(("is_archived",), "write it as `archived`"),
    **dict.fromkeys(("lifecycle", "environments"), "belongs in the manifest"),
}
_RANGE = re.compile(r"(.*)\{(\d{1,6})\.\.(\d{1,6})\}(.*)", re.DOTALL)
_AN_EVENT = "{name: api.request, at: -3d}"


def read_seed(path: Path) -> Seed:
    """Read a seed file. Raises DiagnosticError with every problem, PolarIacError if it is unreadable."""
    try:
        with open_file(path) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PolarIacError(f"{path} not found") from None
    except OSError as error:
        raise PolarIacError(f"cannot read {path}: {error.strerror}") from None
    return load(data, str(path))


def load(text: bytes, file: str = "seed.yaml") -> Seed:
    """Parse the seed in `text`. Raises DiagnosticError with every problem."""
    reader = NodeReader(parse(text, file), _ELSEWHERE)
    seed = _SeedReader(reader).read(hashlib.sha256(text).hexdigest())
    reader.finish()
    return seed


class _SeedReader:
    def __init__(self, reader: NodeReader) -> None:
        self.reader = reader

    def read(self, digest: str) -> Seed:
        reader, root = self.reader, self.reader.document.root
        if not isinstance(root, tree.Map):
            got = "nothing" if isinstance(root, tree.Scalar) and root.value is None else describe(root)
            reader.fault(root, f"a seed is a map that begins with `version: 1`, got {got}")
            return Seed(reader.document, digest)
        reader.keys(root, _TOP, ("version",), root)
        version = root.entries.get("version")
        # `type() is`, because `True == 1` in Python.
        if version is not None and (type(_scalar(version)) is not int or _scalar(version) != 1):
            hint = quotes_hint(version, int)
            reader.fault(version, f"version must be the number 1, got {describe(version)}{hint}")
        return Seed(
            reader.document,
            digest,
            meters=tuple(self._meters(root)),
            customers=tuple(self._customers(root)),
            benefits=tuple(self._entries(root, "benefits", _BENEFIT, _BENEFIT[:3])),
            products=tuple(self._products(root)),
            events=tuple(self._events(root)),
            credits=tuple(self._entries(root, "credits", _CREDIT, _CREDIT)),
        )

    def _items(self, root: tree.Map, name: str, example: str) -> Sequence[tree.Node]:
        return self.reader.list(root.entries[name], name, f"[{example}]") if name in root.entries else ()

    def _entries(
        self, root: tree.Map, name: str, allowed: Sequence[str], required: Sequence[str]
    ) -> Iterator[Entry]:
        example = f"{{{', '.join(f'{key}: …' for key in required)}}}"
        for node in self._items(root, name, example):
            fields = self.reader.map(node, f"an entry of {name}", example)
            if fields is not None:
                self.reader.keys(fields, allowed, required, fields)
                yield Entry(fields, self.reader.json(fields))

    def _meters(self, root: tree.Map) -> Iterator[SeedMeter]:
        example = "{calls: {name: Calls, filter: …, aggregation: {func: count}}}"
        meters = (
            self.reader.map(root.entries["meters"], "meters", example) if "meters" in root.entries else None
        )
        for key, node in meters.entries.items() if meters else ():
            fields = self.reader.map(node, f"the meter {key}", "{name: …, filter: …, aggregation: …}")
            if meters and fields:
                for name in ("lifecycle", "environments"):
                    if name in fields.entries:
                        self.reader.fault(fields.key(name), f"`{name}` {_ELSEWHERE[name]}: remove it")
                spec, _ = MeterReader(self.reader, meters.key(key), "seed").read(fields)
                yield SeedMeter(key, fields, spec)

    def _customers(self, root: tree.Map) -> Iterator[Entry]:
        for node in self._items(root, "customers", "alice"):
            if isinstance(node, tree.Map):
                self.reader.keys(node, _CUSTOMER, ("external_id",), node)
                for name in _CUSTOMER:
                    if name in node.entries:
                        self.reader.text(node.entries[name], name)
                yield Entry(node, self.reader.json(node))
            else:
                for customer in self._ranged(node, self.reader.text(node, "a customer") or ""):
                    yield Entry(node, {"external_id": customer})

    def _products(self, root: tree.Map) -> Iterator[Entry]:
        for entry in self._entries(root, "products", _PRODUCT, ("name", "prices")):
            prices = entry.items("prices")
            if "prices" in entry.said and not isinstance(entry.said["prices"], list):
                message = "prices is a list such as `[{meter: calls, unit_amount: 0.5}]`"
                self.reader.fault(entry.place("prices"), message)
            for price in prices:
                fields = self.reader.map(price, "a price", "{meter: calls, unit_amount: 0.5}")
                if fields is None:
                    continue
                self.reader.keys(fields, _PRICE, (), fields)
                if ("meter" in fields.entries) == ("price_amount" in fields.entries):
                    message = "a price has `meter` and `unit_amount`, or `price_amount`: cents, all of them"
                    self.reader.fault(fields, message)
            if "benefits" in entry.said and not isinstance(entry.said["benefits"], list):
                self.reader.fault(
                    entry.place("benefits"), "benefits is a list of their descriptions: `[Free calls]`"
                )
            if "archived" in entry.said and type(entry.said["archived"]) is not bool:
                self.reader.fault(entry.place("archived"), "archived must be true or false")
            yield entry

    # --- Events ---

    def _events(self, root: tree.Map) -> Iterator[EventSeries]:
        for node in self._items(root, "events", _AN_EVENT):
            fields = self.reader.map(node, "an event", _AN_EVENT)
            if fields is not None:
                self.reader.keys(fields, _EVENT, ("name",), fields)
                yield self._series(fields)

    def _series(self, node: tree.Map) -> EventSeries:
        reader, entries = self.reader, node.entries
        name = reader.text(entries["name"], "name") or "" if "name" in entries else ""
        metadata = self._metadata(entries["metadata"]) if "metadata" in entries else {}
        for key, values in metadata.items():
            for value in values:
                self._check(node, event_of({"name": "", "metadata": {key: value}}, 0))
        self._check(node, event_of({"name": name}, 0))
        start, end, every = self._times(node)
        times = entries.get("times")
        number = 1 if times is None else _scalar(times)
        if type(number) is not int or not 1 <= number <= MAX_EVENTS:
            limits = f"a whole number from 1 to {MAX_EVENTS:,}"
            reader.fault(times or node, f"times must be {limits}, got {describe(times or node)}")
            number = 1
        customers = tuple(self._of_customers(entries.get("customer")))
        return EventSeries(node, name, customers, metadata, start, end, every, number)

    def _check(self, node: tree.Map, event: Mapping[str, Any]) -> None:
        """Report why Polar would refuse the event."""
        for key, message in refusals(event):
            path = ("name",) if key is None else ("metadata", key)
            self.reader.fault(place_of(node, path) or node, message)

    def _metadata(self, node: tree.Node) -> dict[str, tuple[Any, ...]]:
        fields = self.reader.map(node, "metadata", "{status: 200}")
        metadata: dict[str, tuple[Any, ...]] = {}
        for key, value in fields.entries.items() if fields else ():
            said = self.reader.json(value)
            if said == []:
                self.reader.fault(value, f"`{key}` is an empty list: write at least one value")
            metadata[key] = tuple(said) if isinstance(said, list) else (said,)
        return metadata

    def _of_customers(self, node: tree.Node | None) -> Iterator[str]:
        if node is None:
            yield ANYBODY
            return
        for item in node.children if isinstance(node, tree.List) else [node]:
            text = self.reader.text(item, "customer")
            if text == "":
                self.reader.fault(item, "customer is empty: write an external id")
            yield from self._ranged(item, text or "")

    def _ranged(self, node: tree.Node, text: str) -> Iterator[str]:
        """Yield the texts that `user-{1..3}` stands for, or the text itself."""
        match = _RANGE.fullmatch(text)
        if match is None:
            yield text
            return
        before, first, last, after = match.groups()
        numbers = range(int(first), int(last) + 1)
        if not 1 <= len(numbers) <= MAX_EVENTS:
            limits = f"from one number up to another, with at most {MAX_EVENTS:,} numbers"
            self.reader.fault(node, f"a range goes {limits}, got `{{{first}..{last}}}`")
            return
        for number in numbers:
            yield f"{before}{number}{after}"

    def _times(self, node: tree.Map) -> tuple[Moment, Moment | None, timedelta | None]:
        """Return when the events of a series begin and end, and how far apart they are."""
        reader, entries = self.reader, node.entries
        if "at" in entries:
            for name in ("from", "to", "every"):
                if name in entries:
                    reader.fault(node.place(name), f"`at` is one moment: remove `{name}`, or write `from`")
            return self._moment(entries["at"], "at"), None, None
        if "from" not in entries:
            reader.fault(node, "an event happens `at` a moment (`at: -3d`) or `from` one `to` another")
            return timedelta(), None, None
        every = None
        if "every" in entries:
            every = read_duration(entries["every"].text or "")
            if every is None:
                got = describe(entries["every"])
                reader.fault(entries["every"], f"every is a duration such as 1h or 1d12h, got {got}")
        end = self._moment(entries["to"], "to") if "to" in entries else timedelta()
        return self._moment(entries["from"], "from"), end, every

    def _moment(self, node: tree.Node, what: str) -> Moment:
        moment = read_moment(node.text or "")
        if moment is None:
            examples = "-3d, -1d12h, now, 2026-11-01 or 2026-11-01T12:00:00Z"
            self.reader.fault(node, f"{what} is a moment such as {examples}, got {describe(node)}")
        return moment if moment is not None else timedelta()


def _scalar(node: tree.Node) -> Any:
    return node.value if isinstance(node, tree.Scalar) else None
