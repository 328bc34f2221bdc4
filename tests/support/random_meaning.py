"""Random filters and events by seed, fast enough for millions: a vocabulary in which much coincides.

Events are drawn near filters: from their constants, neighbors of these, and texts made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from random import Random
from typing import Any

from polar_iac.meter.meaning.events import EPOCH

Json = dict[str, Any]

PROPERTIES = (
    *("name", "name", "source", "timestamp", "p", "p", "q", "b"),
    *("o", "o.x", "o.x", "o.y", "o.x.y", "a.", ".x", ""),
    *("_llm.model", "_llm.total_tokens", "_cost.amount", "_cost.currency", "_cost"),
    *("metadata.name", "metadata.metadata.p", "metadata.metadata.metadata.p", "metadata"),
)
OPERATORS = ("eq", "eq", "ne", "gt", "gte", "lt", "lte", "like", "not_like")
TEXTS = (
    "a",
    "b",
    "ab",
    "ba",
    "aba",
    "",
    "5",
    "10",
    "1",
    "0",
    "true",
    "True",
    "e-0",
    ".",
    "[",
    "'",
    "{",
    "None",
)
TEXTS_OF_OWN = ("user", "system", "use", "s", "call", "17", "é", "-", "2023")
INTS = (-1, 0, 1, 2, 5, 10, 100, 1_700_000_000, 1_700_000_001, 2**31 - 1, -(2**31))
ODD = ("t", "f", "zz", "é", 1e-07, 0.5, 1e16, -0.0, 2**53 + 1, 10**30, 15, 1.5)


def random_clause(random: Random, properties: Sequence[str]) -> Json:
    value: Any = random.choice(
        (
            random.choice(INTS),
            random.choice(INTS),
            random.choice(INTS),
            random.random() < 0.5,
            random.choice(TEXTS_OF_OWN),
            random.choice(TEXTS),
            random.choice(TEXTS),
            random.choice(TEXTS),
        )
    )
    return {"property": random.choice(properties), "operator": random.choice(OPERATORS), "value": value}


def random_filter(random: Random, properties: Sequence[str] = (), depth: int = 0) -> Json:
    """A filter over few properties, some levels deep."""
    properties = properties or random.choices(PROPERTIES, k=random.randint(1, 3))
    width = random.choice((0, 1, 1, 2, 2, 3, 4) if depth else (1, 2, 2, 3, 4, 5))
    parts = [
        random_filter(random, properties, depth + 1)
        if depth < 3 and random.random() < 0.3
        else random_clause(random, properties)
        for _ in range(width)
    ]
    return {"conjunction": random.choice(("and", "or")), "clauses": parts}


def changed(random: Random, part: Json) -> Json:
    """A filter much like another one: often of the same meaning, or nearly so."""
    if "clauses" not in part:
        if random.random() < 0.15:
            key = random.choice(("operator", "value"))
            return {**part, key: random_clause(random, [part["property"]])[key]}
        return part
    parts = [changed(random, inner) for inner in part["clauses"]]
    if random.random() < 0.3:
        random.shuffle(parts)
    if parts and random.random() < 0.2:
        parts.append(random.choice(parts))
    if len(parts) > 1 and random.random() < 0.15:
        parts.pop(random.randrange(len(parts)))
    if random.random() < 0.1:
        parts = [{"conjunction": random.choice(("and", "or")), "clauses": parts}]
    conjunction = part["conjunction"] if random.random() < 0.9 else random.choice(("and", "or"))
    return {"conjunction": conjunction, "clauses": parts}


def clauses_of(part: Json) -> Iterator[Json]:
    if "clauses" not in part:
        yield part
    else:
        for inner in part["clauses"]:
            yield from clauses_of(inner)


def _same(_: Random, value: Any, __: Sequence[Any]) -> Any:
    return value


def _neighbor(random: Random, value: Any, _: Sequence[Any]) -> Any:
    number = value if isinstance(value, int) else random.choice(INTS)
    return random.choice((int(number), float(number), number + random.choice((-1, 1, 0.5, -0.25, 10, 1e-07))))


def _joined(random: Random, _: Any, constants: Sequence[Any]) -> Any:
    pieces = [str(random.choice(constants)) for _ in range(random.randint(1, 3))]
    return random.choice(("", "", "-", "\x01")).join(pieces)


def _as_text(random: Random, value: Any, _: Sequence[Any]) -> Any:
    text = str(value)
    return random.choice((text, text + random.choice("ab\x01~0"), text[: random.randint(0, 2)]))


def _list(random: Random, _: Any, constants: Sequence[Any]) -> Any:
    return [near(random, constants) for _ in range(random.randint(0, 2))]


def _object(random: Random, _: Any, constants: Sequence[Any]) -> Any:
    return {random.choice("xyz"): near(random, constants) for _ in range(random.randint(0, 2))}


def _any(random: Random, _: Any, __: Sequence[Any]) -> Any:
    return random.choice((True, False, None, random.choice(ODD), random.choice(TEXTS)))


WAYS: tuple[Callable[[Random, Any, Sequence[Any]], Any], ...] = (
    *(_same, _same, _same, _neighbor, _neighbor, _neighbor, _joined, _joined),
    *(_as_text, _as_text, _any, _any, _any, _list, _object),
)


def near(random: Random, constants: Sequence[Any]) -> Any:
    """A value near constants: one of them, a neighbor, of another type, or a mixture of their texts."""
    return random.choice(WAYS)(random, random.choice(constants), constants)


def random_event(random: Random, clauses: Sequence[Json]) -> Json:
    """An event with values near the constants of clauses, for the properties that they name."""
    constants = [clause["value"] for clause in clauses] or [5]
    metadata: Json = {}
    for name in {clause["property"] for clause in clauses}:
        if random.random() < 0.85:
            _put(random, metadata, name.replace("metadata.metadata.", "", 1).split("."), constants)
    texts = [value for value in map(str, constants) if value] or ["a"]
    one, other = random.choice(texts), random.choice(texts)
    seconds = [value for value in constants if isinstance(value, int) and not isinstance(value, bool)]
    clock = random.choice((*seconds, 1_700_000_000)) + random.choice((-1, 0, 0, 1))
    moment = (EPOCH + timedelta(seconds=clock)).isoformat()[:19]
    return {
        "name": random.choice((one, one + other, "a", "call", "", "é")),
        "source": random.choice(("user", "user", "system")),
        "timestamp": moment + random.choice(("Z", "Z", ".4Z", ".5Z", ".999999Z")),
        "metadata": metadata,
    }


def _put(random: Random, metadata: Json, path: Sequence[str], constants: Sequence[Any]) -> None:
    for key in path[:-1]:
        inner = metadata.get(key)
        if not isinstance(inner, dict):
            if inner is not None and random.random() < 0.5:
                return
            inner = metadata[key] = {}
        metadata = inner
    if not isinstance(metadata.get(path[-1]), dict) or random.random() < 0.3:
        metadata[path[-1]] = near(random, constants)
