"""Imports between modules: no module imports one above it, and no two import each other."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import polar_iac

pytestmark = pytest.mark.unmeasured  # nothing of the product runs

ROOT = Path(polar_iac.__file__).parent
IO = frozenset(
    {"io", "os", "pathlib", "shutil", "socket", "sqlite3", "subprocess", "sys", "tempfile", "threading"}
)
CLOCK = frozenset({"datetime", "time"})

LEVELS = (
    {"polar_iac"},
    {"errors"},
    {"sanitize", "clock", "files"},
    {"yaml", "meter"},
    {"lint", "facts"},
    {"manifest", "local"},
    {"state", "polar", "testing"},
    {"plan", "seeding"},
    {"apply"},
    {"report"},
    {"ci"},
    {"cli"},
    {"__main__"},
)
"""Modules and packages, lowest first. Each imports only from levels below its own, or within its package."""

NEVER: dict[str, frozenset[str]] = {
    "meter": IO | {"httpx", "click"},
    "yaml": frozenset({"httpx", "click"}),
    "lint": IO | CLOCK | {"httpx", "click"},
    "facts": IO | {"httpx", "click"},
    "manifest": frozenset({"httpx", "click"}),
    "state": frozenset({"httpx", "click"}),
    "plan": CLOCK | {"httpx", "click"},
    "plan.model": IO,
    "plan.identify": IO,
    "plan.decide": IO,
    "plan.index": IO,
    "plan.outcome": IO,
    "plan.creates": IO,
    "plan.removals": IO,
    "plan.diff": IO,
    "plan.renames": IO,
    "plan.annotate": IO,
    "plan.examples": IO,
    "plan.same_events": IO,
    "plan.facts": IO,
    "plan.impact": IO,
    "plan.properties": IO,
    "plan.drift": IO,
    "plan.check": IO,
    "plan.document": IO,
    "plan.document_models": IO,
    "plan.read_document": IO,
    "testing": frozenset({"httpx", "click"}),
    "testing.run": IO,
    "seeding": frozenset({"httpx", "click"}),
    "seeding.events": IO,
    "polar": frozenset({"click"}),
    "apply": frozenset({"httpx", "click"}),
    "cli.session": frozenset({"httpx"}),  # an offline plan loads it
    "report": frozenset({"httpx"}),
    "ci.inputs": IO | CLOCK,
    "ci.lockfile_merge": IO | CLOCK,
    "ci.plan_outputs": IO | CLOCK,
}
"""Per module or package, what it never imports, anywhere in its text."""

ANYWHERE = frozenset({"httpx", "click"})
"""These are not to come by way of a third module either."""

LIGHT = {"polar_iac", "polar_iac.cli", "polar_iac.cli.main"}
"""Modules that `--help` loads. Of other packages it loads nothing but click."""


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def files_of(name: str) -> Iterator[tuple[str, Path]]:
    """Yield the modules of a module or package: their full names and files."""
    path = ROOT.joinpath(*name.split("."))
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    for file in files:
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), file


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def statements(node: ast.AST, *, inside: bool) -> Iterator[ast.AST]:
    """Yield what runs of a module: with `inside` its functions too; never what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if _only_for_types(child) or (not inside and isinstance(child, ast.FunctionDef)):
            continue
        yield child
        yield from statements(child, inside=inside)


@cache
def imported(tree: ast.Module, *, inside: bool = True) -> frozenset[str]:
    modules = set[str]()
    for node in statements(tree, inside=inside):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            modules |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(modules)


def within(name: str, packages: frozenset[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def file_of(name: str) -> Path | None:
    path = ROOT.parent.joinpath(*name.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.exists()), None)


@cache
def loads(name: str) -> frozenset[str]:
    """Return what importing a module of ours loads, directly or through others."""
    loaded, seen, waiting = set[str](), set[str](), [name]
    while waiting:
        module = waiting.pop()
        file = file_of(module)
        if module in seen or file is None:
            continue
        seen.add(module)
        names = imported(parsed(file), inside=False)
        loaded |= names
        waiting += [name for name in names if within(name, frozenset({"polar_iac"}))]
    return frozenset(loaded | seen)


def ours(name: str) -> set[str]:
    """Return the modules of ours that a module imports, by their full names."""
    file = file_of(name)
    assert file is not None
    names = {n for n in imported(parsed(file)) if within(n, frozenset({"polar_iac"})) and file_of(n)}
    # `from polar_iac.state import journal` names the package as well; only the module is meant.
    return {n for n in names if not any(other.startswith(f"{n}.") for other in names)} - {name}


def level(name: str) -> int:
    """Return the level of a module. A module that no level names is an error."""
    top = name.split(".")[1] if "." in name else name
    return next(number for number, names in enumerate(LEVELS) if top in names)


ALL = [name for top in LEVELS[1:] for part in sorted(top) for name, _ in files_of(part)]


def test_every_module_has_a_level() -> None:
    there = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__"} == set().union(*LEVELS) - {"polar_iac"}


@pytest.mark.parametrize("name", ALL)
def test_a_module_imports_only_from_below(name: str) -> None:
    for other in ours(name):
        same_package = name.split(".")[:2] == other.split(".")[:2]
        assert same_package or level(other) < level(name), f"{name} imports {other}"


def test_no_modules_import_each_other() -> None:
    TopologicalSorter({name: ours(name) for name in ALL}).prepare()


@pytest.mark.parametrize("name", NEVER)
def test_a_module_never_imports_what_its_layer_forbids(name: str) -> None:
    for module, file in files_of(name):
        wrong = sorted(n for n in imported(parsed(file)) if within(n, NEVER[name]))
        assert not wrong, f"{module} imports {wrong}"
        beyond = sorted(n for n in loads(module) if within(n, NEVER[name] & ANYWHERE))
        assert not beyond, f"{module} loads {beyond}"


def test_within_the_reports_only_the_tables_of_formats_know_the_comment() -> None:
    """A module that the comment shares with the text on a terminal belongs to both, and so beside them."""
    comment = frozenset({"polar_iac.report.comment"})
    reports = {n for n in ALL if level(n) == level("polar_iac.report") and not within(n, comment)}
    knowing = {n for n in reports if any(within(other, comment) for other in ours(n))}
    assert knowing == {f"polar_iac.report.{kind}formats" for kind in ("", "check_", "drift_")}


def test_help_loads_nothing_but_click() -> None:
    loaded = loads("polar_iac.cli.main")
    assert {n for n in loaded if within(n, frozenset({"polar_iac"})) and file_of(n)} <= LIGHT
    packages = {n.partition(".")[0] for n in loaded} - {"polar_iac"}
    assert packages - sys.stdlib_module_names == {"click"}


def test_imports_are_found_inside_functions_and_through_modules() -> None:
    tree = ast.parse("def f():\n    from httpx import Client\nif TYPE_CHECKING:\n    import click\n")
    assert imported(tree) == {"httpx", "httpx.Client"}
    assert imported(tree, inside=False) == set()
    assert "httpx" in loads("polar_iac.polar.client")
    assert {"httpx", "polar_iac.polar.client"} <= loads("polar_iac.polar.environments")
    assert level("polar_iac.cli.main") > level("polar_iac.report.text") > level("polar_iac.errors")
