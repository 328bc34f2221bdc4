"""Environments: reads those that the manifest defines, and those in which a meter exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polar_iac import ENVIRONMENTS
from polar_iac.manifest.model import DesiredMeter, Import
from polar_iac.manifest.node_reader import NodeReader, describe
from polar_iac.yaml import tree
from polar_iac.yaml.scalars import nearest

SERVERS = ("production", "sandbox")
"""Polar's servers, each under the name of the environment that is always on it."""


def variable(name: str, environment: str) -> str:
    """Return an environment's own variable. Example: `POLAR_ACCESS_TOKEN_EU_WEST` of `eu-west`."""
    return f"{name}_{environment.upper().replace('-', '_')}"


def read_environments(reader: NodeReader, node: tree.Node) -> tuple[dict[str, str], dict[str, str]]:
    """Return the pinned organizations, and the servers of the environments that the manifest defines.

    Reports faults to the reader.
    """
    organizations: dict[str, str] = {}
    servers: dict[str, str] = {}
    environments = reader.map(node, "environments", "eu: {server: production}")
    if environments is None:
        return organizations, servers
    for key in environments.keys:
        if key.text not in ENVIRONMENTS and not reader.slug(key, "the name of an environment"):
            continue
        example = "{organization_id: …}" if key.text in ENVIRONMENTS else "{server: production}"
        settings = reader.map(environments.entries[key.text], "an environment", example)
        if settings is None:
            continue
        _check_keys(reader, key, settings, environments.place(key.text))
        entries = settings.entries
        if "server" in entries and key.text not in ENVIRONMENTS:
            servers[key.text] = _server(reader, key.text, entries["server"])
        if "organization_id" in entries:
            organizations[key.text] = reader.uuid(entries["organization_id"], "organization_id")
    _check_variables(reader, environments, servers)
    _check_organizations(reader, environments, organizations)
    return organizations, servers


def _check_keys(reader: NodeReader, key: tree.Scalar, settings: tree.Map, place: tree.Node) -> None:
    """Report keys that an environment must have, or must not."""
    name = key.text
    if name in ENVIRONMENTS and "server" in settings.entries:
        message = f"{name} keeps its server: remove this, or define an environment of another name"
        reader.fault(settings.key("server"), message)
    elif name in ENVIRONMENTS:
        reader.keys(settings, ("organization_id",), ("organization_id",), place)
    elif "server" not in settings.entries and (guess := nearest(name, ENVIRONMENTS)):
        reader.fault(
            key, f"`{name}` has no server: did you mean `{guess}`? Else write `server: production` or sandbox"
        )
    else:
        reader.keys(settings, ("server", "organization_id"), ("server",), place)


def _server(reader: NodeReader, name: str, node: tree.Node) -> str:
    """Return the server of an environment. A manifest never says to which address a token goes."""
    if isinstance(node, tree.Scalar) and ("." in node.text or ":" in node.text):
        reader.fault(
            node,
            f"server must be one of {', '.join(SERVERS)}, got {describe(node)}: another address comes from "
            f"{variable('POLAR_BASE_URL', name)} alone, since a token goes there",
        )
        return ""
    return reader.choice(node, "server", SERVERS)


def _check_variables(reader: NodeReader, environments: tree.Map, servers: Mapping[str, str]) -> None:
    """Report two names with one variable. Example: `eu-west` and `eu_west`."""
    names = {variable("POLAR_ACCESS_TOKEN", name): name for name in ENVIRONMENTS}
    for name in servers:
        token = variable("POLAR_ACCESS_TOKEN", name)
        other = names.setdefault(token, name)
        if other != name:
            reader.fault(
                environments.key(name), f"`{other}` and `{name}` would both read {token}: rename one of them"
            )


def _check_organizations(reader: NodeReader, environments: tree.Map, organizations: dict[str, str]) -> None:
    """Report two environments with one organization: each would manage the other's meters."""
    names: dict[str, str] = {}
    for name, organization_id in organizations.items():
        other = names.setdefault(organization_id, name)
        if organization_id and other != name:
            settings = environments.entries[name]
            place = settings.entries["organization_id"] if isinstance(settings, tree.Map) else settings
            reader.fault(
                place,
                f"`{other}` has this organization already: two environments with one organization would "
                "manage the same meters",
            )


def read_environments_of(reader: NodeReader, node: tree.Node, known: Sequence[str]) -> tuple[str, ...]:
    """Return the environments in which a meter exists. Reports faults to the reader."""
    names: list[str] = []
    items = reader.list(node, "environments", "[sandbox]")
    if isinstance(node, tree.List) and not items:
        reader.fault(node, "environments names none: write where the meter exists, or remove this")
    for item in items:
        text = reader.text(item, "an environment")
        if text is None:
            continue
        if text not in known:
            guess = nearest(text, tuple(known))
            hint = f": did you mean {guess}?" if guess else ", and the top of the file can define others"
            reader.fault(
                item, f"an environment must be one of {', '.join(known)}, got {describe(item)}{hint}"
            )
        elif text in names:
            reader.fault(item, f"{text} is named twice: remove one")
        names.append(text)
    return tuple(names)


def check_imports(reader: NodeReader, imports: Sequence[Import], meters: Mapping[str, DesiredMeter]) -> None:
    """Report ids that `import` names where the meter does not exist."""
    for entry in imports:
        meter = meters.get(entry.key)
        for environment, span in entry.id_spans.items():
            if meter and meter.environments is not None and environment not in meter.environments:
                message = (
                    f"`{entry.key}` does not exist in {environment}: remove this, or add {environment} to "
                    "its `environments`"
                )
                reader.document.problems.append(reader.document.diagnose_span(span, message))
