"""Block `checks`: what `polar-iac check` leaves out."""

from __future__ import annotations

from collections.abc import Callable

from polar_iac.manifest.model import CheckSettings
from polar_iac.manifest.node_reader import NodeReader, describe
from polar_iac.yaml import tree
from polar_iac.yaml.scalars import nearest

_EXAMPLE = "{uncounted: {ignore: [page.view]}}"
MAX_EVENT_NAME = 128
"""Most characters of an event's name. Ingestion refuses a longer one (observed)."""


def read_checks(reader: NodeReader, node: tree.Node | None, meters: tree.Node | None) -> CheckSettings:
    """Return the settings. Reports faults to the reader, also a key that is not one of `meters`.

    None stands for a block that is not there.
    """
    settings = reader.map(node, "checks", _EXAMPLE) if node is not None else None
    if settings is None:
        return CheckSettings()
    reader.keys(settings, ("uncounted", "idle"), (), settings)
    keys = tuple(meters.entries) if isinstance(meters, tree.Map) else ()
    return CheckSettings(
        uncounted=_ignored(reader, settings, "uncounted", "[page.view]", _event_name),
        idle=_ignored(reader, settings, "idle", "[exports]", lambda r, item: _key(r, item, keys)),
    )


def _ignored(
    reader: NodeReader,
    settings: tree.Map,
    name: str,
    example: str,
    read: Callable[[NodeReader, tree.Node], str],
) -> frozenset[str]:
    """Return what one check ignores, without what was reported as a fault."""
    if name not in settings.entries:
        return frozenset()
    check = reader.map(settings.entries[name], name, f"{{ignore: {example}}}")
    if check is None:
        return frozenset()
    reader.keys(check, ("ignore",), ("ignore",), settings.place(name))
    items = reader.list(check.entries["ignore"], "ignore", example) if "ignore" in check.entries else []
    return frozenset(filter(None, [read(reader, item) for item in items]))


def _event_name(reader: NodeReader, node: tree.Node) -> str:
    text = reader.text(node, "the name of an event")
    if text is None:
        return ""
    if not text or len(text) > MAX_EVENT_NAME:
        reader.fault(node, f"the name of an event has 1 to {MAX_EVENT_NAME} characters, got {describe(node)}")
    return text


def _key(reader: NodeReader, node: tree.Node, keys: tuple[str, ...]) -> str:
    key = reader.slug(node, "a meter's key")
    if key and key not in keys:
        guess = nearest(key, keys)
        hint = f"did you mean {guess}?" if guess else "remove it"
        reader.fault(node, f"`meters` has no {key}: {hint}")
    return key
