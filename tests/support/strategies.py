"""Generated meters, manifests and worlds: what a team declared, recorded and has at Polar."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.support.build import PROJECT

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
def live_specs(draw: st.DrawFn) -> dict[str, Any]:
    """A meter as the API holds it: a PATCH checks less than a POST, and older ones may break new limits."""
    spec = draw(specs())
    if draw(st.booleans()):
        spec["name"] = draw(_text)
    if draw(st.booleans()):
        unit = st.fixed_dictionaries(
            {
                "unit": st.sampled_from(["scalar", "token", "custom"]),
                "custom_label": st.one_of(st.none(), _text),
                "custom_multiplier": st.sampled_from([None, 1, 1000, 2**63 - 1]),
            }
        )
        spec |= draw(unit)
    if draw(st.booleans()):
        count = draw(st.sampled_from([48, 49, 50]))
        spec["metadata"] = {f"k{n}": n for n in range(count)}
    return spec


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
    recorded.
    """

    key: str | None
    marker: str | None
    spec: dict[str, Any]
    archived: bool
    frozen: bool
    recorded: dict[str, Any] | None
    learned: bool


@dataclass(frozen=True)
class World:
    """Declared and existing meters.

    `imports` maps keys to the number of an existing meter, or to one past the last for an unknown id.
    `removed` are keys.
    """

    meters: dict[str, dict[str, Any]]
    existing: list[Existing]
    moved: list[dict[str, str]] = field(default_factory=list)
    imports: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def top(self, ids: Sequence[str]) -> dict[str, Any]:
        """The blocks at the top of the manifest. `ids` are the existing meters', then an unknown one."""
        entries = [{"to": key, "id": {"sandbox": ids[number]}} for key, number in self.imports.items()]
        return {"moved": self.moved, "import": entries, "removed": [{"from": key} for key in self.removed]}


FORMER = ("old", "older")
"""Keys that are never declared."""


@st.composite
def moves(draw: st.DrawFn, meters: Collection[str]) -> list[dict[str, str]]:
    """Renames that do not contradict one another: chains, and moves to keys that are gone, among them."""
    order = draw(st.permutations([*KEYS, *FORMER]))
    chosen: dict[str, str] = {}
    for number, source in enumerate(order):
        targets = [key for key in order[number + 1 :] if key not in chosen.values()]
        if source not in meters and targets and draw(st.booleans()):
            chosen[source] = draw(st.sampled_from(targets))
    return [{"from": source, "to": target} for source, target in chosen.items()]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Manifests beside meters of ours (recorded, marked, both, twice, under former names) and of others.

    Some meters, of anybody's, are imported, and some keys removed.
    """
    meters = draw(st.dictionaries(st.sampled_from(KEYS), blocks(), max_size=4))
    moved = draw(moves(meters))
    existing = []
    taken: set[str] = set()
    keys = [*KEYS, *FORMER] if moved else KEYS
    for _ in range(draw(st.integers(0, 5))):
        key = draw(st.sampled_from(keys))
        declared = {k: v for k, v in meters.get(key, {}).items() if k not in ("archived", "lifecycle")}
        spec = draw(st.one_of(specs(), st.just(declared)) if declared else specs())
        ours = f"{PROJECT}/{key}"
        others = [None, "other/a", f"{PROJECT}x/a", f"{PROJECT}/{draw(st.sampled_from(keys))}"]
        marker = draw(st.one_of(st.just(ours), st.sampled_from(others)))
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
    named = {end for move in moved for end in move.values()}
    gone = [key for key in KEYS if key not in meters and key not in named]
    removed = draw(st.lists(st.sampled_from(gone), unique=True, max_size=2)) if gone else []
    numbers = draw(st.permutations(range(len(existing) + 1)))
    imported = draw(st.lists(st.sampled_from(sorted(meters)), unique=True)) if meters else []
    return World(meters, existing, moved, dict(zip(imported, numbers, strict=False)), removed)


# --- Histories ---

TAGS = ("team", "tier", "owner")
"""Metadata keys that the manifest and others set, drop and ignore in turns."""


@dataclass(frozen=True)
class Outside:
    """An edit of the `nth` meter in the dashboard."""

    nth: int
    what: str
    value: Any = None


@dataclass(frozen=True)
class Step:
    """Edits outside, and then a manifest. `lost`: the lockfile was lost before it."""

    outside: list[Outside]
    lost: bool
    meters: dict[str, dict[str, Any]]
    moved: list[dict[str, str]]


_tags = st.dictionaries(st.sampled_from(TAGS), st.sampled_from([1, 2, "x"]))


@st.composite
def _plain_blocks(draw: st.DrawFn) -> dict[str, Any]:
    """Meters that differ in little, so that the same field is now changed and now left."""
    clause = {"property": "name", "operator": "eq", "value": draw(st.sampled_from(["call", "token"]))}
    block: dict[str, Any] = {
        "name": draw(st.sampled_from(["Calls", "Tokens"])),
        "filter": {"conjunction": "and", "clauses": [clause]},
        "aggregation": {"func": "count"},
        "metadata": draw(_tags),
        **draw(st.sampled_from([{}, {"unit": "token"}, {"unit": "custom", "custom_label": "call"}])),
    }
    ignorable = ["name", "unit", "metadata", *(f"metadata.{tag}" for tag in TAGS)]
    if ignored := draw(st.lists(st.sampled_from(ignorable), unique=True, max_size=3)):
        block["lifecycle"] = {"ignore_changes": ignored}
    if draw(st.integers(0, 4)) == 0:
        block["archived"] = True
    return block


_outside = st.builds(
    lambda nth, act: Outside(nth, *act),
    st.integers(0, 9),
    st.one_of(
        st.tuples(st.sampled_from(["archive", "unarchive", "unmark"])),
        st.tuples(st.just("name"), st.sampled_from(["Theirs", "Calls"])),
        st.tuples(
            st.just("set"), st.dictionaries(st.sampled_from(TAGS), st.sampled_from([1, 9]), min_size=1)
        ),
        st.tuples(st.just("drop"), st.sampled_from(TAGS)),
    ),
)


def _without_contradictions(moved: dict[str, str], meters: Collection[str]) -> dict[str, str]:
    """Those that a manifest of these meters may hold: the later ones win."""
    kept: dict[str, str] = {}
    for source, target in reversed(moved.items()):
        end = target
        while end in kept:
            end = kept[end]
        if source not in meters and end != source and target not in kept.values():
            kept[source] = target
    return kept


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Two to four manifests of one team: keys come and go, are archived, renamed and brought back."""
    steps = list[Step]()
    before: dict[str, dict[str, Any]] = {}
    moved: dict[str, str] = {}
    for number in range(draw(st.integers(2, 4))):
        outside = draw(st.lists(_outside, max_size=3)) if number else []
        meters, renamed = dict[str, dict[str, Any]](), False
        for key, block in before.items():
            free = [k for k in KEYS if k not in before and k not in meters]
            match draw(st.sampled_from(["rename", "keep", "change", "remove"])):
                case "rename" if free:
                    target, renamed = draw(st.sampled_from(free)), True
                    moved = {**{k: v for k, v in moved.items() if k != key}, key: target}
                    meters[target] = draw(st.one_of(st.just(block), _plain_blocks()))
                case "keep":
                    meters[key] = block
                case "change":
                    meters[key] = draw(_plain_blocks())
        for key in KEYS:
            if key not in meters and len(meters) < 3 and draw(st.booleans()):
                meters[key] = draw(_plain_blocks())
        moved = _without_contradictions(moved, meters)
        # Then the markers alone tell, which matters most where one was renamed.
        lost = number > 0 and draw(st.integers(0, 1 if renamed else 6)) == 0
        steps.append(Step(outside, lost, meters, [{"from": k, "to": v} for k, v in moved.items()]))
        before = meters
    return steps
