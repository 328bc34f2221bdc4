"""The manifest: golden files for what is wrong and what is right, and properties for everything else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.errors import Diagnostic, DiagnosticError, PolarIacError, SourceSpan
from polar_iac.manifest import read as manifest
from polar_iac.manifest.model import Import, Manifest
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.filter import FUNCS, OPERATORS
from polar_iac.meter.spec import MeterSpec
from polar_iac.polar.refusals import problems_of
from polar_iac.yaml import tree as source
from polar_iac.yaml.parse import parse
from tests.support.examples import examples
from tests.support.golden import golden

MANIFESTS = Path(__file__).parent / "cases"
WRONG = sorted(path.stem for path in (MANIFESTS / "wrong").glob("*.yaml"))
RIGHT = sorted(path.stem for path in (MANIFESTS / "right").glob("*.yaml"))
HEAD = "version: 1\nproject: acme\n"
BODY = "name: API calls, filter: {conjunction: and, clauses: []}, aggregation: {func: count}"


def error_text(text: str | bytes, file: str = "meters.yaml") -> str:
    """The errors that a user sees for a wrong manifest, one problem a line."""
    with pytest.raises(DiagnosticError) as caught:
        load(text, file)
    return "".join(f"{d.span}: error: {d.text}\n" for d in caught.value.diagnostics)


def load(text: str | bytes, file: str = "meters.yaml") -> Manifest:
    return manifest.load(text.encode() if isinstance(text, str) else text, file)


@contextmanager
def within(steps: int) -> Iterator[None]:
    """Bound the work of this block, whatever the machine: calls and returns of functions, C's among them."""
    taken = 0

    def step(*_: Any) -> None:
        nonlocal taken
        taken += 1

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        yield
    finally:
        sys.setprofile(before)
    assert taken <= steps


def brief(loaded: Manifest) -> dict[str, Any]:
    """A manifest as JSON data that a reviewer can compare with the file beside it."""
    return {
        "project": loaded.project,
        "organizations": loaded.organizations,
        "moved": [[move.source, move.target, str(move.span)] for move in loaded.moved],
        **({"imports": [imported(entry) for entry in loaded.imports]} if loaded.imports else {}),
        **({"removed": [[e.key, str(e.span)] for e in loaded.removed]} if loaded.removed else {}),
        **({"servers": loaded.servers} if loaded.servers else {}),
        "meters": {
            key: {
                **({"environments": desired.environments} if desired.environments else {}),
                "span": str(desired.span),
                "ignore_changes": sorted(desired.ignore_changes),
                "spec": desired.spec.canonical | {"filter": desired.spec.filter.wire()},
                "metadata": dict(desired.spec.metadata),
            }
            for key, desired in loaded.meters.items()
        },
    }


def imported(entry: Import) -> list[Any]:
    ids = {environment: [id_, str(entry.id_spans[environment])] for environment, id_ in entry.ids.items()}
    return [entry.key, ids, str(entry.span)]


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_manifest_has_the_expected_errors(name: str) -> None:
    path = MANIFESTS / "wrong" / f"{name}.yaml"
    golden(path.with_suffix(".expected"), error_text(path.read_bytes(), path.name))


@pytest.mark.parametrize("name", RIGHT)
def test_each_right_manifest_is_read_as_expected(name: str) -> None:
    path = MANIFESTS / "right" / f"{name}.yaml"
    summary = brief(load(path.read_bytes(), path.name))
    golden(path.with_suffix(".json"), json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


def test_there_are_enough_cases() -> None:
    assert len(WRONG) >= 40
    assert len(RIGHT) >= 10


# --- Too large to be kept in files ---

BRACKETS = {
    "lists": "[" * 100_000,
    "maps": "{a: " * 100_000,
    "closed": "[" * 100_000 + "]" * 100_000,
    "block lists": "- " * 100_000,
    "in a meter": HEAD + "meters:\n  calls: " + "[" * 100_000,
    "question marks": "? " * 100_000,
}


@pytest.mark.parametrize("text", BRACKETS.values(), ids=BRACKETS.keys())
def test_absurd_nesting_is_an_error_at_once(text: str) -> None:
    with within(100_000):
        assert re.fullmatch(
            r"meters.yaml:\d+:\d+: error: this is nested more than 300 levels deep\n", error_text(text)
        )


@pytest.mark.parametrize(
    "text",
    [
        "{a: " + "b" * 1_000_000 + ", c d: e: f}",
        "{" + "'b'" * 300_000 + ": c}",
        "k" * 1_000_000 + ": x\n",
        "a: &x " + "# note " * 100_000 + "\n  x: y: z\n",
        "a: 0b" + "_" * 500_000 + "x\n",
        "a: " + "1,000" * 200_000 + "\n",
    ],
)
def test_long_lines_are_read_in_few_steps(text: str) -> None:
    with within(5_000):
        error_text(text)


def test_nesting_through_aliases_counts_as_nesting() -> None:
    text = HEAD + "x-0: &a0 [" + "[" * 90 + "]" * 90 + "]\n"
    text += "".join(f"x-{i}: &a{i} [{'[' * 90}*a{i - 1}{']' * 90}]\n" for i in range(1, 5))
    assert error_text(text) == "meters.yaml:6:101: error: this is nested more than 300 levels deep\n"


def test_an_alias_bomb_of_merge_keys_is_an_error_at_once() -> None:
    text = "x-0: &a0 {" + ", ".join(f"k{i}: 1" for i in range(3000)) + "}\n"
    text += "".join(f"x-{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))
    with within(500_000):
        assert "with its aliases this file has more than 1,000,000 values: use fewer" in error_text(text)


def clauses(count: int, clause: str = "{property: a, operator: eq, value: 1}") -> str:
    return (
        f"{HEAD}x-clause: &clause {clause}\nmeters:\n  calls:\n    name: API calls\n"
        "    aggregation: {func: count}\n    filter:\n      conjunction: and\n      clauses:\n"
    ) + "        - *clause\n" * count


@pytest.mark.unmeasured
def test_a_filter_may_have_5000_clauses() -> None:
    loaded = load(clauses(5_000))
    assert len(loaded.meters["calls"].spec.filter.clauses) == 5_000
    assert error_text(clauses(5_001)) == (
        "meters.yaml:8:5: error: "
        "a filter may have 5,000 clauses: Polar takes many seconds for more, or fails\n"
    )


@pytest.mark.unmeasured
def test_a_body_may_have_10_mib() -> None:
    """The largest body that is accepted really is below the limit, the next one above."""
    limit = 10 * 1024 * 1024

    def text(size: int) -> str:
        return clauses(2_000, f"{{property: {'p' * size}, operator: eq, value: 1}}")

    largest = bisect(range(limit // 2_000), False, key=lambda size: bool(problems(text(size)))) - 1
    body = load(text(largest)).meters["calls"].spec.create_body("acme/calls")
    assert limit - 3_000 <= len(canonical_json(body).encode()) <= limit
    assert error_text(text(largest + 1)) == (
        "meters.yaml:5:3: error: this meter is larger than the 10 MiB that Polar accepts\n"
    )


def test_texts_and_files_have_a_limit() -> None:
    long = "x" * (1024 * 1024)
    assert not problems(f'{HEAD}x-long: "{long}"\nmeters: {{}}\n')
    assert error_text(f'{HEAD}x-long: "{long}x"\nmeters: {{}}\n') == (
        "meters.yaml:3:9: error: a text of 1,048,577 characters is too long (at most 1,048,576)\n"
    )
    with within(1_000):
        assert error_text(b"#" * (32 * 1024 * 1024 + 1)) == (
            "meters.yaml:1:1: error: the file is larger than 32 MiB\n"
        )


@pytest.mark.unmeasured
@pytest.mark.parametrize("problem", ["k%d: x", "x-%d: {a: 1, a: 2}", "x-%d: *nothing"])
def test_only_the_first_thousand_problems_are_reported(problem: str) -> None:
    """This holds in one line of some megabytes, too."""
    text = "{" + ", ".join(problem % i for i in range(100_000)) + "}"
    with within(10_000_000):
        assert error_text(text).count("\n") == 1_000


@pytest.mark.unmeasured
def test_unknown_aliases_among_many_anchors_are_reported_in_few_steps() -> None:
    text = HEAD + "x-anchors:\n" + "".join(f"  - &anchor-number-{i} {i}\n" for i in range(10_000))
    text += "x-aliases:\n" + "".join(f"  - *anchor-numbr-{i}\n" for i in range(300)) + "meters: {}\n"
    with within(5_000_000):
        errors = error_text(text)
    assert errors.count("there is no anchor") == 300
    assert "there is no anchor &anchor-numbr-0: did you mean *anchor-number-" in errors


@pytest.mark.unmeasured
def test_an_error_that_aliases_repeat_hides_no_other() -> None:
    text = HEAD + "x-bad: &bad {property: a, operator: eq, value: 1.5}\nmeters:\n"
    meter = "name: Same, filter: {conjunction: and, clauses: [*bad]}, aggregation: {func: count}"
    text += "".join(f"  m{i}: {{{meter}}}\n" for i in range(1_100))
    fault, *others = error_text(text + "  last: {}\n").splitlines()
    assert fault.startswith("meters.yaml:3:48: error: value must be a whole number")
    assert others == [
        f"meters.yaml:1105:3: error: `{name}` is missing" for name in ("aggregation", "filter", "name")
    ]


@pytest.mark.unmeasured
def test_an_error_that_aliases_repeat_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of clauses by one alias: each is read, but its faults are looked up and shown only once."""
    diagnose = source.Document.diagnose
    made: list[str] = []

    def counted(self: source.Document, node: source.Node, message: str, rule: str = "") -> Diagnostic:
        made.append(message)
        return diagnose(self, node, message, rule)

    monkeypatch.setattr(source.Document, "diagnose", counted)
    text = HEAD + "x-bad: &bad {propertyy: a, operator: equl, valuee: 1.5}\n"
    text += "x-filter: &filter {conjunction: and, clauses: [" + "*bad, " * 1_000 + "]}\nmeters:\n"
    meter = "name: Same, filter: *filter, aggregation: {func: count}"
    text += "".join(f"  m{i}: {{{meter}}}\n" for i in range(5))
    assert error_text(text).count("\n") == 3
    assert len(made) == 3


def test_an_empty_custom_label_is_kept() -> None:
    """Polar takes it."""
    loaded = load(f"{HEAD}meters: {{calls: {{{BODY}, unit: custom, custom_label: ''}}}}\n")
    assert loaded.meters["calls"].spec.custom_label == ""


# --- Positions ---

POSITIONS = f"""\
version: 1
project: acme
x-filter: &filter
  conjunction: and
  clauses:
    - {{property: model, operator: eq, value: gpt-4}}
meters:
  calls: {{{BODY}}}
  tokens:
    name: "Tokens"
    filter:
      conjunction: or
      clauses:
        - property: name
          operator: eq
          value: 😀 call
        - *filter
        - {{conjunction: and, clauses: []}}
    aggregation: {{func: sum, property: tokens}}
    metadata:
      team: ai
"""


@pytest.mark.parametrize(
    ("path", "line", "marked"),
    [
        (("tokens",), 9, "tokens"),
        (("tokens", "name"), 10, '"Tokens"'),
        (("tokens", "filter"), 11, "filter"),
        (("tokens", "filter", "clauses"), 13, "clauses"),
        (("tokens", "filter", "clauses", 0), 14, "property"),
        (("tokens", "filter", "clauses", 0, "value"), 16, "😀 call"),
        (("tokens", "filter", "clauses", 1), 4, "conjunction"),
        (("tokens", "filter", "clauses", 1, "clauses", 0, "value"), 6, "gpt-4"),
        (("tokens", "filter", "clauses", 2), 18, "{conjunction: and, clauses: []}"),
        (("tokens", "filter", "clauses", 3), 13, "clauses"),
        (("tokens", "filter", "clauses", -1), 13, "clauses"),
        (("tokens", "filter", "clauses", "name"), 13, "clauses"),
        (("tokens", "aggregation", "property"), 19, "tokens"),
        (("tokens", "aggregation", "filter"), 19, "aggregation"),
        (("tokens", "metadata", "team", "deeper"), 21, "ai"),
        (("tokens", "unit"), 9, "tokens"),
        (("calls", "filter"), 8, "filter"),
        (("gone", "name"), 7, "meters"),
    ],
)
def test_a_span_marks_the_value_of_a_path(path: tuple[str | int, ...], line: int, marked: str) -> None:
    loaded = load(POSITIONS)
    span = loaded.span(str(path[0]), path[1:])
    text = POSITIONS.splitlines()[span.line - 1]
    assert (span.file, span.line, text[span.column - 1 : span.end_column - 1]) == (
        "meters.yaml",
        line,
        marked,
    )
    problem = loaded.diagnose(str(path[0]), path[1:], "no")
    assert (problem.span, problem.message, problem.excerpt) == (span, "no", text)


@pytest.mark.parametrize(
    ("text", "path", "marked"),
    [
        ("a:\n  b:\n  - c: 1\n", ("a", "b", 0), "c"),
        ("a:\n- - x\n", ("a", 0), "-"),
        ("a: &k\n-\n  b: [c: 1, 2]\n", ("a", 0, "b", 0), "c"),
        ("a: [{b: 1}, ? c : d]\n", ("a", 1), "? c : d"),
        ("\ufeff\ufeffa: b\n", ("a",), "b"),
        ("a: !!str # note\n  # &more\n  5\n", ("a",), "5"),
    ],
)
def test_a_span_is_right_in_unusual_yaml(text: str, path: tuple[str | int, ...], marked: str) -> None:
    document = parse(text.encode(), "f")
    span = document.at(path)
    line = document.text.splitlines()[span.line - 1]
    assert line[span.column - 1 : span.end_column - 1] == marked


def test_excerpts_hold_the_whole_line() -> None:
    text = HEAD + "meters:\r\n  calls: {unit: tokns,  \r" + "filter: []}\n"
    with pytest.raises(DiagnosticError) as caught:
        load(text)
    assert [d.excerpt for d in caught.value.diagnostics if "unit" in d.message] == [
        "  calls: {unit: tokns,  "
    ]


# --- What Polar refuses ---


def refused(*entries: tuple[str, list[str | int]]) -> dict[tuple[str | int, ...], str]:
    return problems_of([{"type": kind, "loc": loc, "msg": f"{kind}!"} for kind, loc in entries])


def test_a_value_that_polar_refuses_is_one_problem() -> None:
    clause: list[str | int] = ["body", "filter", "clauses", 0]
    assert refused(
        ("string_type", [*clause, "FilterClause", "value", "constrained-str"]),
        ("int_type", [*clause, "FilterClause", "value", "constrained-int"]),
        ("int_type", [*clause, "FilterClause", "value", "bool"]),
        ("missing", [*clause, "Filter", "conjunction"]),
        ("missing", [*clause, "Filter", "clauses"]),
    ) == {("filter", "clauses", 0, "value"): "string_type!; int_type!"}


def test_only_the_errors_of_the_intended_union_branch_are_kept() -> None:
    clause: list[str | int] = ["body", "filter", "clauses", 1]
    inner: list[str | int] = [*clause, "Filter", "clauses", 0]
    assert refused(
        ("missing", [*clause, "FilterClause", "property"]),
        ("missing", [*clause, "FilterClause", "operator"]),
        ("missing", [*clause, "FilterClause", "value"]),
        ("enum", [*inner, "FilterClause", "operator"]),
        ("missing", [*inner, "Filter", "conjunction"]),
        ("missing", [*inner, "Filter", "clauses"]),
    ) == {("filter", "clauses", 1, "clauses", 0, "operator"): "enum!"}


def test_an_empty_clause_reports_all_missing_keys() -> None:
    clause: list[str | int] = ["body", "filter", "clauses", 0]
    errors = refused(
        *(("missing", [*clause, "FilterClause", name]) for name in ("property", "operator", "value")),
        *(("missing", [*clause, "Filter", name]) for name in ("conjunction", "clauses")),
    )
    assert {path[-1] for path in errors} == {"property", "operator", "value", "conjunction", "clauses"}


@pytest.mark.parametrize(
    ("loc", "path"),
    [
        (["body"], ()),
        (["body", "name"], ("name",)),
        (["body", "aggregation"], ("aggregation",)),
        (["body", "aggregation", "sum", "property"], ("aggregation", "property")),
        (["body", "aggregation", "func"], ("aggregation", "func")),
        (["body", "metadata", "sum", "constrained-str"], ("metadata", "sum")),
        (["body", "metadata", "filter", "[key]"], ("metadata", "filter")),
        (["body", "metadata", "value"], ("metadata", "value")),
        (["body", "is_archived"], ("is_archived",)),
        (["path", "id"], ("path", "id")),
        ([], ()),
    ],
)
def test_a_loc_of_polars_becomes_a_path(loc: list[str | int], path: tuple[str | int, ...]) -> None:
    assert refused(("x", loc)) == {path: "x!"}


# --- Files ---


def test_read_loads_a_file_under_its_path(tmp_path: Path) -> None:
    path = tmp_path / "meters.yaml"
    path.write_text(f"{HEAD}meters: {{calls: {{{BODY}}}}}\n", encoding="utf-8")
    assert manifest.read(path).file == str(path)
    assert list(manifest.read(path).meters) == ["calls"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.yaml", "gone.yaml not found"), (".", "is a directory"), ("file.txt/meters.yaml", "cannot read")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file.txt").touch()
    with pytest.raises(PolarIacError, match=message) as caught:
        manifest.read(tmp_path / name)
    assert str(tmp_path) in str(caught.value)


def test_reading_a_manifest_loads_no_heavy_package() -> None:
    code = (
        "import sys; from polar_iac.manifest import read;"
        "assert 'ruamel.yaml' not in sys.modules;"
        "read.load(b'{version: 1, project: a, meters: {}}', 'f');"
        "print(sorted({'httpx', 'deepdiff', 'pydantic', 'click'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- Properties ---

FUZZ = examples(500)
LETTERS = st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"])
TEXT = st.text(LETTERS, max_size=8)
PROPERTY = st.one_of(st.sampled_from(["name", "timestamp", "metadata.x", "tokens"]), TEXT)
CONJUNCTION = st.sampled_from(["and", "or"])
CLAUSE = st.fixed_dictionaries(
    {
        "property": PROPERTY,
        "operator": st.sampled_from(OPERATORS),
        "value": st.one_of(TEXT, st.integers(-(2**31), 2**31 - 1)),
    }
)
FILTER = st.recursive(
    st.fixed_dictionaries({"conjunction": CONJUNCTION, "clauses": st.lists(CLAUSE, max_size=3)}),
    lambda inner: st.fixed_dictionaries(
        {"conjunction": CONJUNCTION, "clauses": st.lists(inner | CLAUSE, max_size=3)}
    ),
    max_leaves=5,
)
METADATA = st.dictionaries(
    st.text(LETTERS, min_size=1, max_size=40).filter(lambda key: key != "polar_iac"),
    st.one_of(
        st.text(LETTERS, min_size=1, max_size=20),
        st.integers(),
        st.booleans(),
        st.floats(-1e300, 1e300),
    ),
    max_size=4,
)
AGGREGATION = st.sampled_from(FUNCS).flatmap(
    lambda func: (
        st.just({"func": "count"})
        if func == "count"
        else st.fixed_dictionaries({"func": st.just(func), "property": PROPERTY})
    )
)
METER = st.fixed_dictionaries(
    {
        "name": st.text(LETTERS, min_size=3, max_size=10),
        "filter": FILTER,
        "aggregation": AGGREGATION,
        "metadata": METADATA,
        "archived": st.booleans(),
    },
    optional={"custom_multiplier": st.none() | st.integers(1, 2**63 - 1), "unit": st.just("token")},
)
METERS = st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), METER, max_size=3)


def as_json(value: Any) -> str:
    """JSON that is YAML to the C parser: no surrogate pairs, and nothing raw that it does not print."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def as_block(value: Any, indent: int = 0) -> str:
    """The same data in block style, with every text in JSON's quotes."""
    margin = "\n" + " " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{margin}? {as_json(k)}{margin}: {as_block(v, indent + 2)}" for k, v in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{margin}- {as_block(item, indent + 2)}" for item in value)
    return as_json(value)


@given(METERS, st.sampled_from([as_json, as_block]))
def test_a_manifest_is_read_as_it_was_written(meters: dict[str, Any], write: Any) -> None:
    loaded = load(write({"version": 1, "project": "acme", "meters": meters}))
    assert list(loaded.meters) == list(meters)
    for key, data in meters.items():
        spec = loaded.meters[key].spec
        assert spec == MeterSpec.from_json(data)
        assert canonical_json(dict(spec.metadata)) == canonical_json(data["metadata"])


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for step, inner in items:
        yield (*path, step), inner
        yield from paths(inner, (*path, step))


@given(METERS, st.sampled_from([as_json, as_block]))
def test_positions_are_those_of_the_values(meters: dict[str, Any], write: Any) -> None:
    text = write({"version": 1, "project": "acme", "meters": meters})
    loaded = load(text)
    lines = re.split(r"\r\n|\r|\n", text)
    for key, data in meters.items():
        for path, value in paths(data):
            span = loaded.span(key, path)
            marked = lines[span.line - 1][span.column - 1 : span.end_column - 1]
            if not isinstance(value, dict | list):
                assert marked == as_json(value)
            elif isinstance(path[-1], str):
                assert marked == as_json(path[-1])


def problems(text: str | bytes) -> tuple[Diagnostic, ...]:
    try:
        load(text)
    except DiagnosticError as error:
        return error.diagnostics or (Diagnostic(SourceSpan("", 0, 0, 0), "an error without a problem"),)
    return ()


def loads_or_reports(text: str | bytes) -> None:
    readable = text if isinstance(text, str) else text.decode("latin-1")
    lines = len(re.split(r"\r\n|\r|\n", readable))
    with within(1_000_000):
        diagnostics = problems(text)
    for problem in diagnostics:
        assert 1 <= problem.span.line <= lines
        assert 1 <= problem.span.column < problem.span.end_column
        assert problem.span.column <= len(problem.excerpt) + 1
        assert problem.message.isprintable()
        assert not {"\n", "\r"} & set(problem.excerpt)


@FUZZ
@given(st.binary(max_size=200) | st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_loads_or_is_reported(text: str | bytes) -> None:
    loads_or_reports(text)


FRAGMENTS = [
    *(
        "version",
        "project",
        "meters",
        "moved",
        "filter",
        "clauses",
        "name",
        "value",
        "x-a",
        "<<",
        "polar_iac",
    ),
    *(": ", "- ", "? ", "{", "}", "[", "]", ", ", "\n", "\n  ", "\n    ", "\t", "#", "|\n", ">-\n", "---\n"),
    *(
        "&a ",
        "*a",
        "!!str ",
        "!!int ",
        "!x ",
        "'",
        '"',
        "\\u",
        "\\",
        "%",
        "@",
        "1",
        "0x",
        "1.5",
        "2024-01-01",
    ),
    *("and", "eq", "true", "null", "~", "é", "😀", "\u2028", "\x85", "\r", "\ufeff", "...\n", "0", "9" * 50),
]


@FUZZ
@given(
    st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join),
    st.sampled_from(["", f"{HEAD}meters:\n  calls:\n    ", f"{HEAD}meters: {{calls: {{", f"{HEAD}x-a: &a "]),
)
def test_any_text_like_yaml_loads_or_is_reported(text: str, before: str) -> None:
    loads_or_reports(before + text)


@FUZZ
@given(st.data())
def test_a_damaged_manifest_loads_or_is_reported(data: st.DataObject) -> None:
    text = (MANIFESTS / "right" / f"{data.draw(st.sampled_from(RIGHT))}.yaml").read_bytes()
    start = data.draw(st.integers(0, len(text)))
    end = start + data.draw(st.integers(0, 20))
    loads_or_reports(text[:start] + data.draw(st.binary(max_size=4)) + text[end:])
