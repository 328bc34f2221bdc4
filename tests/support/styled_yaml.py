"""Manifests as people write them: comments, anchors, merge keys, flow and block styles, CRLF, a BOM."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from random import Random
from typing import Any

from hypothesis import strategies as st

from polar_iac.yaml import write
from tests.support.build import PROJECT, manifest_text


class Alias(str):
    """The name of an anchor, in the place of the value that it names."""


class Merged(dict[str, Any]):
    """A map's own entries. `source` is the anchor that it merges."""

    source = ""


class _Writer:
    """One manifest's text. `rng` chooses the style of each value."""

    def __init__(self, rng: Random, anchors: Mapping[int, str]) -> None:
        self.rng = rng
        self.anchors = anchors
        """Names by the identity of the value that they name."""
        self.comments = 0

    def comment(self, chance: float = 0.3) -> str:
        if self.rng.random() > chance:
            return ""
        self.comments += 1
        return f"{' ' * self.rng.randint(1, 3)}# comment {self.comments}: [a, 'b"

    def scalar(self, value: Any) -> str:
        quote = self.rng.choice(["", "", "'", '"']) if isinstance(value, str) else ""
        return write.scalar(value, quote)

    def flow(self, value: Any) -> str:
        anchor = f"&{self.anchors[id(value)]} " if id(value) in self.anchors else ""
        return f"*{value} " if isinstance(value, Alias) else anchor + self.bare_flow(value)

    def bare_flow(self, value: Any) -> str:
        pad = self.rng.choice(["", "", " "])
        if isinstance(value, Mapping):
            source = getattr(value, "source", "")
            entries = [f"<<: *{source} "] if source else []
            entries += [f"{self.scalar(key)}: {self.flow(inner)}" for key, inner in value.items()]
            return f"{{{pad}{', '.join(entries)}{self.rng.choice(['', ',']) if entries else ''}{pad}}}"
        if isinstance(value, list):
            return f"[{pad}{', '.join(map(self.flow, value))}{pad}]"
        return self.scalar(value)

    def value(self, value: Any, indent: int) -> str:
        """Return the text after the colon of a key that `indent` spaces precede, with its line break."""
        anchor = f" &{self.anchors[id(value)]}" if id(value) in self.anchors else ""
        collection = isinstance(value, Mapping | list) and not isinstance(value, Alias)
        whole = bool(value or getattr(value, "source", ""))
        if collection and whole and self.rng.random() < 0.6:
            deeper = indent + self.rng.choice([1, 2, 2, 4])
            if isinstance(value, list):
                deeper = self.rng.choice([indent, indent + 2])
            return f"{anchor}{self.comment()}\n{self.block(value, deeper)}"
        if isinstance(value, str) and not isinstance(value, Alias) and write.scalar(value) == value:
            if self.rng.random() < 0.15:
                return f"{anchor} {self.rng.choice('|>')}-{self.comment()}\n{' ' * (indent + 3)}{value}\n"
            return f"{anchor} {value}{self.comment()}\n"
        return f" {self.flow(value)}{self.comment()}\n"

    def block(self, value: Any, indent: int) -> str:
        pad = " " * indent
        lines = ""
        if isinstance(value, list):
            for item in value:
                lines += self.gap(indent)
                if (
                    isinstance(item, Mapping)
                    and item
                    and id(item) not in self.anchors
                    and self.rng.random() < 0.5
                ):
                    lines += f"{pad}- {self.block(item, indent + 2).lstrip(' ')}"
                else:
                    lines += f"{pad}- {self.flow(item)}{self.comment()}\n"
            return lines
        if source := getattr(value, "source", ""):
            lines += f"{pad}<<: *{source}{self.comment()}\n"
        for number, (key, inner) in enumerate(value.items()):
            # A comment before the first entry of an item would stand behind its dash.
            lines += self.gap(indent) if number else ""
            lines += f"{pad}{self.scalar(key)}:{self.value(inner, indent)}"
        return lines

    def gap(self, indent: int) -> str:
        blank = "\n" if self.rng.random() < 0.15 else ""
        own = self.comment(0.15)
        return blank + (f"{' ' * indent}{own.lstrip()}\n" if own else "")


def _with_anchors(meters: dict[str, Any], rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Move some values of the meters to anchors. Return the anchored values, and the meters with aliases."""
    anchored: dict[str, Any] = {}
    written: dict[str, Any] = {}
    for number, (key, block) in enumerate(meters.items()):
        block = deepcopy(block)  # generated values may be one and the same object
        for field in ("metadata", "filter", "aggregation"):
            if field in block and rng.random() < 0.3:
                name = f"{field}-{number}"
                anchored[name], block[field] = block[field], Alias(name)
        if isinstance(block.get("metadata"), dict) and len(block["metadata"]) > 1 and rng.random() < 0.5:
            name, (first, *_) = f"part-{number}", block["metadata"]
            own = Merged({k: v for k, v in block["metadata"].items() if k != first})
            own.source = name
            anchored[name], block["metadata"] = {first: block["metadata"][first]}, own
        if rng.random() < 0.3:
            name = f"base-{number}"
            fields = [field for field in block if not isinstance(block[field], Alias) and field != "name"][:2]
            own = Merged({k: v for k, v in block.items() if k not in fields})
            own.source = name
            anchored[name], block = {k: block[k] for k in fields}, own
        written[key] = block
    return anchored, written


def _shared_within(written: dict[str, Any], rng: Random) -> dict[int, str]:
    """Let later meters have values of earlier ones, through anchors there. Return the anchors."""
    names: dict[int, str] = {}
    meters = [*written.items()]
    for number, (key, block) in enumerate(meters[1:], 1):
        earlier, other = meters[rng.randrange(number)]
        for field in ("metadata", "filter", "aggregation"):
            value = other.get(field)
            if isinstance(value, dict) and not isinstance(value, Merged) and rng.random() < 0.4:
                block[field] = Alias(names.setdefault(id(value), f"{earlier}-{field}"))
        if not isinstance(block, Merged) and rng.random() < 0.3:
            own = Merged({k: v for k, v in block.items() if k not in ("filter", "aggregation")})
            own.source = names.setdefault(id(other), earlier)
            written[key] = own
            meters[number] = key, own
    return names


@st.composite
def manifests(
    draw: st.DrawFn,
    meters: dict[str, Any],
    top: Mapping[str, Any] | None = None,
    *,
    anchors_within: bool = False,
) -> bytes:
    """A manifest of these meters, in any style. Values are shared through anchors above the meters.

    With `anchors_within` some meters have others' values through anchors in these, instead of their own.
    """
    rng = draw(st.randoms(use_true_random=False))
    if rng.random() < 0.1:
        text = manifest_text(meters, **(top or {}))
    else:
        anchored, written = _with_anchors(meters, rng)
        names = _shared_within(written, rng) if anchors_within else {}
        writer = _Writer(rng, names | {id(value): name for name, value in anchored.items()})
        document = {"version": 1, "project": PROJECT, **(top or {})}
        # Flow style writes no anchors, so their values are in block style.
        shared = "".join(f"  {name}:{writer.value(value, 2)}" for name, value in anchored.items())
        text = writer.gap(0) + writer.block(document, 0) + (f"x-shared:\n{shared}" if shared else "")
        text += writer.gap(0) + writer.block({"meters": written}, 0) + writer.gap(0)
        text = text if rng.random() < 0.8 else text.rstrip("\n")
    newline = rng.choice(["\n", "\n", "\r\n"])
    return (rng.choice(["", "", "\ufeff"]) + text.replace("\n", newline)).encode()
