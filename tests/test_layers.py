"""Which module may know of what: the design's table of layers, held against what they import."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import polar_iac

ROOT = Path(polar_iac.__file__).parent
IO = frozenset(
    {"io", "os", "pathlib", "shutil", "socket", "sqlite3", "subprocess", "sys", "tempfile", "threading"}
)
CLOCK = frozenset({"datetime", "time"})

NEVER: dict[str, frozenset[str]] = {
    "errors": frozenset({"polar_iac"}),
    "meter": IO | {"httpx", "click"},
    "manifest": frozenset({"httpx", "click"}),
    "source": frozenset({"httpx", "click"}),
    "lockfile": frozenset({"httpx", "click"}),
    "journal": frozenset({"httpx", "click"}),
    "plan": IO | CLOCK | {"httpx", "click"},
    "planner": IO | CLOCK | {"httpx", "click"},
    "identify": IO | CLOCK | {"httpx", "click"},
    "diff": IO | CLOCK | {"httpx", "click"},
    "evidence": IO | CLOCK | {"httpx", "click"},
    "matching": IO | CLOCK | {"httpx", "click"},
    "api": frozenset({"click", "polar_iac.planner"}),
    "creates": frozenset({"click", "polar_iac.render", "polar_iac.executor"}),
    "recovery": frozenset({"click", "polar_iac.render", "polar_iac.executor"}),
    "executor": frozenset({"click", "polar_iac.render"}),
    "run": frozenset({"click", "polar_iac.render"}),
    "render": frozenset({"httpx"}),
    "local": frozenset({"polar_iac.planner", "polar_iac.api"}),
}
"""Per module, or package, what it never imports, anywhere in its text."""

ANYWHERE = frozenset({"httpx", "click"})
"""These are not to come by way of a third module either."""

LIGHT = {"polar_iac", "polar_iac.cli", "polar_iac.options"}
"""What is loaded for `--help`: of others' packages nothing but click."""


def text_of(name: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules of a module or package, by their full names."""
    path = ROOT / name
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    for file in files:
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(file.read_text(encoding="utf-8"))


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def statements(node: ast.AST, *, inside: bool) -> Iterator[ast.AST]:
    """What runs of a module: with `inside` its functions too; never what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if _only_for_types(child) or (not inside and isinstance(child, ast.FunctionDef)):
            continue
        yield child
        yield from statements(child, inside=inside)


def imported(tree: ast.Module, *, inside: bool = True) -> set[str]:
    found = set()
    for node in statements(tree, inside=inside):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def within(name: str, packages: frozenset[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def file_of(name: str) -> Path | None:
    path = ROOT.parent.joinpath(*name.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.exists()), None)


@cache
def loads(name: str) -> frozenset[str]:
    """What importing a module of ours loads, by whatever way."""
    found, seen, waiting = set[str](), set[str](), [name]
    while waiting:
        module = waiting.pop()
        file = file_of(module)
        if module in seen or file is None:
            continue
        seen.add(module)
        names = imported(ast.parse(file.read_text(encoding="utf-8")), inside=False)
        found |= names
        waiting += [name for name in names if within(name, frozenset({"polar_iac"}))]
    return frozenset(found | seen)


@pytest.mark.parametrize("name", NEVER)
def test_a_layer_does_not_know_what_lies_above_it(name: str) -> None:
    for module, tree in text_of(name):
        wrong = sorted(n for n in imported(tree) if within(n, NEVER[name]))
        assert not wrong, f"{module} imports {wrong}"
        beyond = sorted(n for n in loads(module) if within(n, NEVER[name] & ANYWHERE))
        assert not beyond, f"{module} loads {beyond}"


def test_help_loads_nothing_but_click() -> None:
    found = loads("polar_iac.cli")
    ours = {n for n in found if within(n, frozenset({"polar_iac"})) and file_of(n)}
    assert ours <= LIGHT
    theirs = {n.partition(".")[0] for n in found} - {"polar_iac"}
    assert theirs - sys.stdlib_module_names == {"click"}


def test_the_table_can_fail() -> None:
    tree = ast.parse("def f():\n    from httpx import Client\nif TYPE_CHECKING:\n    import click\n")
    assert imported(tree) == {"httpx", "httpx.Client"}
    assert imported(tree, inside=False) == set()
    assert "httpx" in loads("polar_iac.api")
    assert {"httpx", "polar_iac.api"} <= loads("polar_iac.executor")
