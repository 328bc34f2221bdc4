"""Generated meters, manifests and worlds: what a team declared, recorded and has at Polar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.build import PROJECT

KEYS = ("a", "b-1", "c_2", "d")

_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_property = st.one_of(
    st.sampled_from(["name", "source", "tokens", "user.id", "metadata.tokens", "metadata.metadata.name", ""]),
    _text,
)
_int32 = st.integers(-(2**31), 2**31 - 1)
_value = st.one_of(_text, _int32, st.booleans(), st.sampled_from(["5", 5, 5.0, True, "true", -0.0, 1e3]))
_text_operators = st.sampled_from(["eq", "ne", "like", "not_like"])


@st.composite
def _clauses(draw: st.DrawFn) -> dict[str, Any]:
    value = draw(_value)
    operators = st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte", "like", "not_like"])
    # Ordered comparisons with a bool break the server, and the manifest refuses them.
    operator = draw(_text_operators if isinstance(value, bool) else operators)
    return {"property": draw(_property), "operator": operator, "value": value}


filters = st.recursive(
    st.builds(
        lambda conjunction, clauses: {"conjunction": conjunction, "clauses": clauses},
        st.sampled_from(["and", "or"]),
        st.lists(_clauses(), max_size=3),
    ),
    lambda inner: st.builds(
        lambda conjunction, clauses: {"conjunction": conjunction, "clauses": clauses},
        st.sampled_from(["and", "or"]),
        st.lists(st.one_of(_clauses(), inner), max_size=3),
    ),
    max_leaves=4,
)

aggregations = st.one_of(
    st.just({"func": "count"}),
    st.builds(
        lambda func, name: {"func": func, "property": name},
        st.sampled_from(["sum", "max", "min", "avg", "unique"]),
        _property,
    ),
)

metadata_values = st.one_of(
    _text.filter(bool),
    st.integers(-(10**25), 10**25),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.sampled_from([1, 1.0, True, "1", 0, -0.0, False, 1e16, 1e22, 1e-7]),
)
metadata = st.dictionaries(
    st.sampled_from(["team", "tier", "🚀", "a.b", "owner"]), metadata_values, max_size=3
)

units = st.one_of(
    st.builds(lambda unit: {"unit": unit}, st.sampled_from(["scalar", "token"])),
    st.just({}),
    st.builds(
        lambda label, multiplier: {
            "unit": "custom",
            "custom_label": label,
            **({"custom_multiplier": multiplier} if multiplier else {}),
        },
        st.sampled_from(["call", "minute"]),
        st.sampled_from([None, 1, 1000, 2**63 - 1]),
    ),
)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A meter as the API takes it."""
    name = st.one_of(
        st.sampled_from(["Calls", "Tokens"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=3, max_size=8),
    )
    return {
        "name": draw(name),
        "filter": draw(filters),
        "aggregation": draw(aggregations),
        "metadata": draw(metadata),
        **draw(units),
    }


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    """A meter as the manifest declares it."""
    block = draw(specs())
    if draw(st.booleans()):
        block["archived"] = draw(st.booleans())
    ignored = draw(st.lists(st.sampled_from(["name", "unit", "metadata", "metadata.owner"]), unique=True))
    if ignored:
        block["lifecycle"] = {"ignore_changes": ignored}
    return block


@dataclass(frozen=True)
class Existing:
    """A meter that is there before a run. `recorded` is the spec in the lockfile, None when it is not
    recorded."""

    key: str | None
    marker: str | None
    spec: dict[str, Any]
    archived: bool
    frozen: bool
    recorded: dict[str, Any] | None
    learned: bool


@dataclass(frozen=True)
class World:
    """What is declared, and what is there."""

    meters: dict[str, dict[str, Any]]
    existing: list[Existing]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Manifests beside meters of ours (recorded, marked, both, twice) and of others."""
    meters = draw(st.dictionaries(st.sampled_from(KEYS), blocks(), max_size=4))
    existing = []
    taken: set[str] = set()
    for _ in range(draw(st.integers(0, 5))):
        key = draw(st.sampled_from(KEYS))
        declared = {k: v for k, v in meters.get(key, {}).items() if k not in ("archived", "lifecycle")}
        spec = draw(st.one_of(specs(), st.just(declared)) if declared else specs())
        ours = draw(st.booleans())
        marker = f"{PROJECT}/{key}" if ours else draw(st.sampled_from([None, "other/a", f"{PROJECT}x/a"]))
        recorded = None
        if key not in taken and draw(st.booleans()):
            taken.add(key)
            recorded = draw(st.one_of(specs(), st.just(spec)))
        existing.append(
            Existing(
                key=key,
                marker=marker,
                spec=spec,
                archived=draw(st.booleans()),
                frozen=draw(st.booleans()),
                recorded=recorded,
                learned=draw(st.booleans()),
            )
        )
    return World(meters, existing)
