"""The documents name files and tests that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "polar_iac"
DOCUMENTS = [*ROOT.glob("docs/*.md"), ROOT / "README.md", *ROOT.glob(".github/*.md")]
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?:polar_iac|tests|docs|\.github)/[\w./*-]+")
TEST = re.compile(r"(?:Test\w+|test_\w+)(?:::test_\w+)?")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def names_of_tests() -> Iterator[str]:
    """Yield the names of all tests and their classes, alone and as `Class::test`."""
    for path in ROOT.glob("tests/**/test_*.py"):
        yield path.name.removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            if isinstance(node, ast.ClassDef):
                yield from (f"{node.name}::{f.name}" for f in node.body if isinstance(f, ast.FunctionDef))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    paths = {path for code in CODE.findall(text) for path in PATH.findall(code)}
    assert not sorted(path for path in paths if not list(ROOT.glob(path.rstrip("/."))))
    assert not sorted(link for link in LINK.findall(text) if not (document.parent / link).exists())


def test_tests_that_a_document_names_exist() -> None:
    there = set(names_of_tests())
    for document in DOCUMENTS:
        codes = CODE.findall(document.read_text(encoding="utf-8"))
        names = {code.rpartition(".py::")[2] for code in codes}
        assert not sorted(name for name in names if TEST.fullmatch(name) and name not in there), document.name


def test_the_architecture_names_every_module() -> None:
    """A row `package | purpose | modules` for each package, with every module in it and no other."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.split("## The tree")[1].split("##")[0].splitlines()]
    described = {
        f"{package}{module}".removeprefix("at the top")
        for row in rows
        if len(row) == 3 and (package := row[0].strip("| `"))
        for module in CODE.findall(row[2])
    }
    modules = {str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.py")}
    assert described == {name for name in modules if not name.endswith(("__init__", "__main__"))} | {
        "cli/plan"
    }
