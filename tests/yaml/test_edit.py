"""Edits of YAML by position: exactly what is meant changes, and every other byte stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from ruamel.yaml import YAML

from polar_iac.errors import DiagnosticError
from polar_iac.yaml import tree, write
from polar_iac.yaml.data import same, values
from polar_iac.yaml.edit import Editor
from polar_iac.yaml.parse import parse
from tests.support import strategies
from tests.support.styled_yaml import manifests

MANIFEST = """\
# What we bill.
version: 1 # the format
project: acme

# Shared by all.
x-ai: &ai {team: ai, pager: on-call}

meters:
  calls: # the first one
    name: "API calls" # on invoices
    metadata: *ai # everybody's
    filter:
      conjunction: and
      clauses:
        - {property: name, operator: eq, value: call} # our events
        - property: status # of the answer
          operator: lt
          value: 500
    aggregation: {func: count}
  # The second one.
  tokens:
    name: 'It''s tokens'
    metadata:
      <<: *ai
      tier: 2
    filter: {conjunction: and, clauses: []}
    aggregation: {func: sum, property: tokens}
    # No more.

# The end.
x-end: {}
"""


def edited(edit: Callable[[Editor], None], text: str = MANIFEST) -> str:
    editor = Editor(text.encode(), "meters.yaml")
    edit(editor)
    return editor.finish().decode()


def changed(edit: Callable[[Editor], None], text: str = MANIFEST) -> tuple[list[str], list[str]]:
    """The lines that an edit takes out, and those that it puts in."""
    before, after = text.splitlines(), edited(edit, text).splitlines()
    while before and after and before[0] == after[0]:
        del before[0], after[0]
    while before and after and before[-1] == after[-1]:
        del before[-1], after[-1]
    return before, after


class TestSet:
    def test_a_scalar_keeps_its_quotes_and_its_comment(self) -> None:
        assert changed(lambda e: e.set(("meters", "calls", "name"), "Calls: all")) == (
            ['    name: "API calls" # on invoices'],
            ['    name: "Calls: all" # on invoices'],
        )

    def test_a_text_that_looks_like_a_number_is_quoted(self) -> None:
        path = ("meters", "calls", "filter", "clauses", 1, "value")
        assert changed(lambda e: e.set(path, "500"))[1] == ['          value: "500"']
        assert changed(lambda e: e.set(path, 50))[1] == ["          value: 50"]

    def test_an_alias_is_overridden_where_it_stands(self) -> None:
        assert changed(lambda e: e.set(("meters", "calls", "metadata", "team"), "core")) == (
            ["    metadata: *ai # everybody's"],
            ["    metadata: {team: core, pager: on-call} # everybody's"],
        )

    def test_what_a_merge_key_brings_is_overridden_beside_it(self) -> None:
        assert changed(lambda e: e.set(("meters", "tokens", "metadata", "team"), "core")) == (
            [],
            ["      team: core"],
        )

    @pytest.mark.parametrize("mark", ["|-", ">", "|+"])
    def test_a_text_of_several_lines_keeps_the_comment_behind_its_indicator(self, mark: str) -> None:
        text = f"a: {mark} # why\n  one\n  two\nb: 1\n"
        assert edited(lambda e: e.set(("a",), "three"), text) == "a: three # why\nb: 1\n"

    def test_a_value_in_flow_style_stays_so(self) -> None:
        some = {"conjunction": "or", "clauses": [{"property": "a", "operator": "eq", "value": True}]}
        assert changed(lambda e: e.set(("meters", "tokens", "filter"), some))[1] == [
            "    filter: {conjunction: or, clauses: [{property: a, operator: eq, value: true}]}"
        ]

    def test_a_value_in_block_style_stays_so(self) -> None:
        some = {"conjunction": "or", "clauses": [{"property": "a", "operator": "eq", "value": True}]}
        assert changed(lambda e: e.set(("meters", "calls", "filter"), some))[1] == [
            "      conjunction: or",
            "      clauses:",
            "        - {property: a, operator: eq, value: true}",
        ]

    def test_an_empty_map_gets_lines_of_its_own_below_its_comment(self) -> None:
        text = "version: 1\nmeters: {} # none yet\nx-a: 1"
        block = {"name": "A", "filter": {"conjunction": "and", "clauses": [{"property": "a"}]}}
        assert edited(lambda e: e.add(("meters",), {"a": block}), text) == (
            "version: 1\nmeters: # none yet\n  a:\n    name: A\n    filter:\n      conjunction: and\n"
            "      clauses:\n        - {property: a}\nx-a: 1"
        )


class TestSeveralEdits:
    def test_the_later_one_sees_the_earlier_one(self) -> None:
        def both(editor: Editor) -> None:
            editor.set(("meters", "calls", "metadata", "team"), "core")
            editor.set(("meters", "calls", "metadata", "pager"), "nobody")
            editor.set(("meters", "tokens", "metadata", "team"), "one")
            editor.set(("meters", "tokens", "metadata", "team"), "two")
            editor.set(("meters", "tokens", "metadata", "pager"), "nobody")

        after = edited(both)
        assert "    metadata: {team: core, pager: nobody} # everybody's\n" in after
        assert "      tier: 2\n      team: two\n      pager: nobody\n" in after


class TestRemove:
    def test_an_entry_goes_with_its_lines(self) -> None:
        gone, new = changed(lambda e: e.remove(("meters", "calls", "filter")))
        assert (len(gone), new) == (7, [])

    @pytest.mark.parametrize(
        ("text", "rest"),
        [
            ("a: {x: 1, y: 2}", "a: {y: 2}"),
            ("a: {y: 1, x: 2}", "a: {y: 1}"),
            ("a: {x: 1} # c", "a: {} # c"),
            ("a:\n  x: 1 # c\n  y: 2\n", "a:\n  y: 2\n"),
            ("a:\n  y: 1\n  x: |+\n    k\n\nb: 1", "a:\n  y: 1\nb: 1"),
            ("a:\n  x: 1\nb: 1", "a: {}\nb: 1"),
            ("- x: 1\n  y: 2\n", "- y: 2\n"),
        ],
    )
    def test_the_styles_of_maps(self, text: str, rest: str) -> None:
        path = (0, "x") if text.startswith("-") else ("a", "x")
        assert edited(lambda e: e.remove(path), text) == rest

    @pytest.mark.parametrize(
        ("text", "rest"),
        [
            ("- 1 # a\n- 2 # b\n- 3 # c\n", "- 1 # a\n- 3 # c\n"),
            ("a:\n  - x: 1\n    y: 2\n  -\n    x: 2 # b\n    y: 2\nb: 1\n", "a:\n  - x: 1\n    y: 2\nb: 1\n"),
            ("[1, 2, 3]", "[1, 3]"),
            ("[1, 2]", "[1]"),
        ],
    )
    def test_the_second_item_of_a_list(self, text: str, rest: str) -> None:
        path = ("a", 1) if text.startswith("a") else (1,)
        assert edited(lambda e: e.remove(path), text) == rest

    def test_beside_a_merge_key_the_map_is_written_anew(self) -> None:
        gone, new = changed(lambda e: e.remove(("meters", "tokens", "metadata", "pager")))
        assert (gone, new) == (["      <<: *ai"], ["      team: ai"])


class TestAnchors:
    """Values that others have through an anchor stay: where one changes, it is written out there."""

    def test_aliases_are_written_out(self) -> None:
        after = edited(lambda e: e.set(("x-ai", "team"), "core"))
        assert "x-ai: &ai {team: core, pager: on-call}\n" in after
        assert "    metadata: {team: ai, pager: on-call} # everybody's\n" in after
        assert "      <<: *ai\n      tier: 2\n      team: ai\n" in after

    def test_a_map_in_brackets_is_written_anew_where_its_keys_would_change(self) -> None:
        text = "a: &a {x: 1, w: 2}\nb: {<<: *a, z: 3} # b\n"
        assert edited(lambda e: e.remove(("a", "x")), text) == "a: &a {w: 2}\nb: {x: 1, w: 2, z: 3} # b\n"

    def test_an_anchor_that_nobody_uses_stays(self) -> None:
        assert edited(lambda e: e.set(("a",), 2), "a: &a 1 # c\n") == "a: &a 2 # c\n"


class TestAdd:
    def test_an_entry_follows_the_comments_of_the_last_one(self) -> None:
        after = edited(lambda e: e.add(("meters",), {"c": {"a": 1}})).splitlines()
        assert after[after.index("    # No more.") + 1] == "  c: {a: 1}"

    def test_an_entry_at_the_top_stands_before_the_key_that_is_named(self) -> None:
        entries = {"import": [write.OneLine(to="a", id={"sandbox": "1f"})]}
        assert changed(lambda e: e.add((), entries, before="meters")) == (
            [],
            ["import:", "  - {to: a, id: {sandbox: 1f}}", ""],
        )

    def test_entries_are_separated_as_they_are_already(self) -> None:
        text = "a:\n  b: 1\n\n  c: 2\n"
        assert edited(lambda e: e.add(("a",), {"d": 3}), text) == "a:\n  b: 1\n\n  c: 2\n\n  d: 3\n"

    def test_a_list_keeps_its_indentation(self) -> None:
        text = "moved:\n- {a: b} # c\n# d\nmeters: {}"
        assert changed(lambda e: e.append(("moved",), [{"c": 1}]), text) == ([], ["- {c: 1}"])

    def test_a_flow_list_of_lines_gets_one_more(self) -> None:
        text = "moved: [\n  {a: b} # c\n]\n"
        assert edited(lambda e: e.append(("moved",), [{"c": 1}]), text) == (
            "moved: [\n  {a: b}, # c\n  {c: 1}\n]\n"
        )

    def test_json_stays_json(self) -> None:
        text = '{"version": 1,\n "meters": {\n  "a": {"name": "x"}\n }}'
        after = edited(lambda e: e.add(("meters",), {"b": {"name": "y"}}), text)
        assert json.loads(after)["meters"] == {"a": {"name": "x"}, "b": {"name": "y"}}
        assert after == text.replace('"x"}', '"x"},\n  "b": {"name": "y"}')


class TestRefusals:
    def test_what_cannot_be_edited_alone_is_refused_at_its_place(self) -> None:
        text = "a: &a\n  x: 1\nb:\n  <<: *a # everything\n  y: 2\n"
        # `b` would have a `z` as well, and only another map without the merge key would have none.
        with pytest.raises(DiagnosticError) as caught:
            edited(lambda e: e.set(("a", "z"), 3), text)
        (diagnostic,) = caught.value.diagnostics
        assert str(diagnostic.span) == "meters.yaml:2:3"
        assert "&a" in diagnostic.message
        assert "edit it by hand" in diagnostic.message

    def test_an_edit_inside_of_what_another_one_wrote_is_refused(self) -> None:
        def both(editor: Editor) -> None:
            editor.set(("meters", "calls", "metadata"), {"a": {"b": 1}})
            editor.set(("meters", "calls", "filter"), {"clauses": []})
            editor.set(("meters", "calls", "filter", "clauses"), [1])

        with pytest.raises(DiagnosticError):
            edited(both)

    def test_a_text_that_is_wrong_already_is_not_edited(self) -> None:
        with pytest.raises(DiagnosticError, match="twice"):
            Editor(b"a: 1\na: 2\n", "meters.yaml")


def paths(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all values that are no root."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, inner in pairs:
        yield (*path, step)
        yield from paths(inner, (*path, step))


def value_at(data: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        data = data[step]
    return data


_meters = st.dictionaries(st.sampled_from(strategies.KEYS), strategies.blocks(), max_size=3)
_new = st.one_of(
    st.sampled_from(["new", "5", "yes", "a: b", "x #y", "", " ", "é\u2028\x85", "- a", "*a", "<<", "\n"]),
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    strategies.filters,
    strategies.metadata,
)


def node_at(document: tree.Document, path: tuple[str | int, ...]) -> tree.Node:
    node = document.root
    for step in path:
        if isinstance(node, tree.Map):
            node = node.entries[str(step)]
        else:
            assert isinstance(node, tree.List)
            node = node.children[int(step)]
    return node


def finished(editor: Editor, source: bytes) -> bytes:
    """Return the edited text; without an example where the edit is refused in plain words.

    That may be where other places have the value through an anchor, and only there.
    """
    try:
        return editor.finish()
    except DiagnosticError as error:
        is_refusal = "cannot be edited here by itself" in error.diagnostics[0].message
    assert is_refusal
    assert b"&" in source
    return reject()


def place_of_meters(document: tree.Document) -> int:
    assert isinstance(document.root, tree.Map)
    return document.root.key("meters").start


@given(data=st.data())
def test_an_edit_changes_what_is_meant_and_nothing_else(data: st.DataObject) -> None:
    source = data.draw(_meters.flatmap(manifests))
    editor = Editor(source, "meters.yaml")
    document = parse(source, "meters.yaml")
    before = values(document.root)
    path = data.draw(st.sampled_from([p for p in paths(before) if p[0] != "x-shared"]))
    new = data.draw(_new)
    editor.set(path, new)
    after = finished(editor, source)
    assert same(value_at(values(parse(after, "meters.yaml").root), path), new)
    node = node_at(document, path)
    # Anchors stand before the meters: what begins there is not written at the path.
    here = path[0] != "meters" or node.start > place_of_meters(document)
    if here and isinstance(node, tree.Scalar) and not isinstance(new, dict | list):
        text = after.decode().lstrip("\ufeff")
        assert text.startswith(document.text[: node.start])
        assert text.endswith(document.text[node.end :].lstrip("\r\n"))
    comments = [
        line.partition("# comment")[2] for line in source.decode().splitlines() if "# comment" in line
    ]
    kept = [line.partition("# comment")[2] for line in after.decode().splitlines() if "# comment" in line]
    assert set(kept) <= set(comments)
    assert kept == [comment for comment in comments if comment in kept]
    if not isinstance(value_at(before, path), dict | list) and not isinstance(new, dict | list):
        assert kept == comments
    assert (b"\r\n" in after) == (b"\r\n" in source)
    assert after.count(b"\n") - after.count(b"\r\n") in (0, after.count(b"\n"))
    assert after.startswith("\ufeff".encode()) == source.startswith("\ufeff".encode())


@given(data=st.data())
def test_what_is_added_is_put_in_and_nothing_is_taken_out(data: st.DataObject) -> None:
    source = data.draw(_meters.filter(bool).flatmap(manifests))
    editor = Editor(source, "meters.yaml")
    added = data.draw(st.dictionaries(st.sampled_from(["new-1", "new-2"]), strategies.specs(), min_size=1))
    editor.add(("meters",), added)
    editor.add((), {"import": [write.OneLine(to=key, id={"sandbox": "x"}) for key in added]}, before="meters")
    after = editor.finish()
    found = values(parse(after, "meters.yaml").root)
    assert [entry["to"] for entry in found["import"]] == [*added]
    assert {*found["meters"]} > {*added}
    # Every byte that was there still is, in order.
    rest = iter(after)
    assert all(byte in rest for byte in source)


_texts = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    st.text("aZ5 :#,[]{}'\"&*!|>%@`-?.\\/=<~+é", max_size=8),
    st.lists(st.sampled_from(["a", "1", "yes", ":", "#", ",", " ", "-", "'", "]", "{", "e5", "."])).map(
        "".join
    ),
)


@given(st.one_of(strategies.metadata_values, _texts))
def test_a_scalar_is_read_as_it_was_written(value: Any) -> None:
    for text in (
        f"{write.entry('a', value, 0)[0]}\n",
        f"{{a: {write.scalar(value)}}}",
        write.flow({"a": value}),
    ):
        assert same(values(parse(text.encode(), "x.yaml").root), {"a": value})
    for text in (write.item(value, 0)[0], write.flow([value])):
        assert same(values(parse(text.encode(), "x.yaml").root), [value])


@pytest.mark.parametrize("version", ["1.1", "1.2"])
@given(text=_texts.filter(lambda text: text.isprintable() and len(text) < 100))
def test_another_parser_reads_the_same(version: str, text: str) -> None:
    for written in (write.entry("a", text, 0)[0], write.flow({"a": text})):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = version
        assert yaml.load(written) == {"a": text}


@given(_texts.filter(lambda text: len(text) < 100))
def test_a_key_is_read_as_it_was_written(key: str) -> None:
    for text in (write.entry(key, 1, 0)[0], write.flow({key: 1})):
        assert same(values(parse(text.encode(), "x.yaml").root), {key: 1})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("LLM tokens (Pro)", "LLM tokens (Pro)"),
        ("/v1/chat", "/v1/chat"),
        ("gpt-4.1", "gpt-4.1"),
        ("it's", "it's"),
        ("5", '"5"'),
        ("1.0", '"1.0"'),
        ("yes", '"yes"'),
        ("n", '"n"'),
        ("null", '"null"'),
        ("2026-01-01", '"2026-01-01"'),
        ("a: b", '"a: b"'),
        ("image:v2", '"image:v2"'),
        ("a #1", '"a #1"'),
        ("C#", "C#"),
        ("1:30", '"1:30"'),
        ("a, b", '"a, b"'),
        ("a ", '"a "'),
        ("Größe → 🚀", "Größe → 🚀"),
        ('say "a"', 'say "a"'),
        ('"a"', "'\"a\"'"),
        ("a\nb", '"a\\nb"'),
        (5, "5"),
        (5.0, "5.0"),
        (True, "true"),
    ],
)
def test_quotes_are_only_where_they_are_needed(value: Any, text: str) -> None:
    assert write.scalar(value) == text


@pytest.mark.parametrize("text", ["Storage, peak", "image:v2", "https://a.example/b", "a[0]{b}"])
def test_some_need_quotes_only_between_brackets(text: str) -> None:
    assert write.entry("name", text, 0) == [f"name: {text}"]
    assert write.entry("a", {"name": text}, 0) == [f'a: {{name: "{text}"}}']
