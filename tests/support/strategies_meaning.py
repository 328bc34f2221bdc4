"""Generated filters, aggregations and events over a vocabulary so small that many of them match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

PROPERTIES = (
    "name",
    "source",
    "timestamp",
    "p",
    "q",
    "b",
    "_llm.model",
    "_cost.amount",
    "o.x",
    "o",
    "",
    "no",
)
"""Keys that `events` fills, paths that only objects have, and one that is never there."""

TEXTS = ("", "5", "a", "ab", "True", "true", "e-0", "user", "17", ".")
INTS = (-1, 0, 1, 5, 10, 1_700_000_000, 1_700_000_001)
NUMBERS = (*INTS, 0.5, 1.0, 5.0, -0.0, 1e-07, 1e16, 2**53 + 1)
SECONDS = ("22:13:19.5", "22:13:20", "22:13:20.499999", "22:13:20.5", "22:13:21")
"""Times around 1,700,000,000 seconds since 1970."""

OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "like", "not_like")
BOOL_OPERATORS = ("eq", "ne", "like", "not_like")

_texts = st.sampled_from(TEXTS)
_numbers = st.sampled_from(NUMBERS)


@st.composite
def clauses(draw: st.DrawFn, *, refused: bool = False) -> Json:
    """A clause, with no more than two `metadata.` in front. `refused`: also those that the manifest refuses,
    which order by a bool or compare a timestamp with one.
    """
    name = draw(st.sampled_from(PROPERTIES))
    value = draw(st.one_of(_texts, st.sampled_from(INTS), st.booleans()))
    operators: Sequence[str] = OPERATORS
    if isinstance(value, bool) and not refused:
        operators = BOOL_OPERATORS[2:] if name == "timestamp" else BOOL_OPERATORS
    prefix = "metadata." * draw(st.sampled_from([0, 0, 0, 0, 1, 2]))
    return {"property": prefix + name, "operator": draw(st.sampled_from(operators)), "value": value}


def group(conjunction: str, *parts: Json) -> Json:
    return {"conjunction": conjunction, "clauses": list(parts)}


@st.composite
def _groups(draw: st.DrawFn, parts: st.SearchStrategy[Json]) -> Json:
    """A group, often an empty one or one with a single part or with a part twice."""
    inside = draw(st.lists(parts, max_size=3))
    if inside and draw(st.integers(0, 3)) == 0:
        inside.append(draw(st.sampled_from(inside)))
    return group(draw(st.sampled_from(["and", "or"])), *inside)


def filters(*, refused: bool = False) -> st.SearchStrategy[Json]:
    """Filters, nested some levels deep."""
    leaf = clauses(refused=refused)
    return st.recursive(_groups(leaf), lambda inner: _groups(st.one_of(leaf, inner)), max_leaves=6)


def aggregations() -> st.SearchStrategy[Json]:
    funcs = st.sampled_from(["sum", "max", "min", "avg", "unique"])
    names = st.sampled_from(PROPERTIES)
    return st.one_of(
        st.just({"func": "count"}),
        st.builds(lambda func, name: {"func": func, "property": name}, funcs, names),
    )


_flat = st.one_of(_texts.filter(bool), _numbers, st.booleans())
_llm = st.builds(
    lambda model, tokens: {
        "vendor": "acme",
        "model": model,
        "input_tokens": tokens,
        "output_tokens": 1,
        "total_tokens": tokens + 1,
    },
    _texts.filter(bool),
    st.sampled_from([0, 5, 10]),
)
_cost = st.builds(lambda amount: {"amount": amount, "currency": "usd"}, _numbers)
_accepted = st.fixed_dictionaries(
    {},
    optional={
        "p": _flat,
        "q": _flat,
        "b": st.booleans(),
        "": _flat,
        "o.x": _flat,
        "_llm": _llm,
        "_cost": _cost,
    },
)
_anything = st.recursive(
    st.one_of(_texts, _numbers, st.booleans(), st.none(), st.just(10**400)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["x", "", "xy"]), inner, max_size=2)
    ),
    max_leaves=4,
)
_refused = st.dictionaries(
    st.sampled_from(["p", "q", "b", "", "o", "o.x", "_llm", "name"]), _anything, max_size=5
)


def events(*, accepted: bool = False) -> st.SearchStrategy[Json]:
    """Events as ingestion accepts them, and others too: lists, objects, null, empty text, events of the
    system, and numbers beyond a double, which ingestion does accept and SQL fails on.

    `accepted`: only those of users that ingestion accepts, with numbers that SQL copes with.
    """
    return st.builds(
        lambda name, source, clock, metadata: {
            "name": name,
            "source": source,
            "timestamp": f"2023-11-14T{clock}Z",
            "metadata": metadata,
        },
        _texts,
        st.just("user") if accepted else st.sampled_from(["user", "user", "system"]),
        st.sampled_from(SECONDS),
        _accepted if accepted else st.one_of(_accepted, _refused),
    )
