"""Form of the product's code: short functions and modules, and docstrings that name what they describe."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import polar_iac

pytestmark = pytest.mark.unmeasured  # nothing of the product runs

LONGEST_MODULE, LONGEST_FUNCTION, MOST_LATE_IMPORTS = 400, 60, 25
QUESTION = re.compile(r"(What|Whether|Who|Whose|Where|Which|How|Why)\b")

TEXTS = {file: file.read_text(encoding="utf-8") for file in Path(polar_iac.__file__).parent.rglob("*.py")}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    for file, text in TEXTS.items():
        for node in ast.walk(ast.parse(text)):
            yield file, node


def test_modules_are_short() -> None:
    assert [file for file, text in TEXTS.items() if text.count("\n") > LONGEST_MODULE] == []


def test_functions_are_short() -> None:
    functions = [(file, node) for file, node in nodes() if isinstance(node, Function)]
    assert len(functions) > 1000
    lengths = {(file.name, node.name): (node.end_lineno or 0) - node.lineno + 1 for file, node in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_few_modules_are_loaded_late() -> None:
    """An import inside a function hides what a module needs."""
    functions = [(file, node) for file, node in nodes() if isinstance(node, Function)]
    late = {
        (file.name, inner.lineno)
        for file, node in functions
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    }
    assert 0 < len(late) <= MOST_LATE_IMPORTS, late


def test_no_docstring_opens_with_a_question() -> None:
    """Of modules, classes and functions, and of the values whose text stands below them."""
    texts = [
        (file, node.value.value)
        for file, node in nodes()
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    assert len(texts) > 1000
    assert [(file.name, text[:60]) for file, text in texts if QUESTION.match(text)] == []
