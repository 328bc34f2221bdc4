"""Names and values that try to break out, through every format: proven by parsing what comes out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.ci.annotations import diagnostic_annotations, plan_annotations
from polar_iac.ci.github import GitHub, GitHubLinks, output_lines, workflow_commands
from polar_iac.ci.publish import plan_outputs
from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.meter.fields import IMPACT
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.document import plan_document, plan_json
from polar_iac.plan.model import (
    Action,
    Bookkeeping,
    Cause,
    Change,
    FieldChange,
    MarkerChange,
    MeterReference,
    Note,
    Plan,
    change_digest,
)
from polar_iac.plan.read_document import plan_from_document
from polar_iac.report.comment.document import headline, plan_markdown
from polar_iac.report.comment.escape import MARKUP, code, fence, prose, visible
from polar_iac.report.diagnostics import diagnostics_text
from polar_iac.report.text import plan_text
from polar_iac.report.wording import value
from tests.support.build import ORGANIZATION, identifier, meter
from tests.support.comments import read_commands, read_comment, read_outputs
from tests.support.examples import examples

LINKS = GitHubLinks(
    "https://github.com", "acme/billing", "3f2a9c41d07be58c6a1f04d2e97bb8350c1d6e7a", run_id="1"
)

GITHUB = GitHub({})

pytestmark = pytest.mark.unmeasured  # hundreds of texts through the same lines, which others measure

CORPUS = [
    # Code spans and fences
    "`",
    "``",
    "a`b``c```d",
    "`code` and **bold**",
    "x`</summary>`",
    "```\n# out\n```",
    "~~~\n# out\n~~~",
    "````diff\n- a",
    " ``` ",
    "    ```",
    "\\`",
    "`\\",
    "$`x`$ and $$y$$",
    # Tables
    "a | b",
    "\\| c",
    "`|`",
    "|---|---|",
    # HTML
    "-->",
    "<!-- polar-iac:acme:sandbox -->",
    "--><img src=x onerror=alert(1)>",
    "</details>",
    "</details></td></tr></table>",
    "<summary>",
    "</code><script>alert(1)</script>",
    "<img onerror=alert(1) src=x>",
    "<a href='https://evil.example'>x</a>",
    "&lt;b&gt; &#64;team &copy;",
    "<details open>",
    "<![CDATA[x]]>",
    "<?php ?>",
    # Links
    "[x](javascript:alert(1))",
    "![x](https://evil.example/p.png)",
    "[x][y]\n\n[y]: https://evil.example",
    "[^1]",
    "<https://evil.example>",
    "https://evil.example/pay",
    "www.evil.example",
    "pay@evil.example",
    "]( https://evil.example )",
    # Mentions and references
    "@org/team",
    "cc @octocat please",
    "#123",
    "GH-1",
    "acme/billing#1",
    "octocat@3f2a9c41d07be58c6a1f04d2e97bb8350c1d6e7a",
    "3f2a9c41d07be58c6a1f04d2e97bb8350c1d6e7a",
    "deadbeef defaced",
    ":shipit: :+1:",
    # Blocks
    "# Heading",
    "Heading\n=======",
    "Heading\n-------",
    "> quote",
    "- item\n1. item",
    "* * *",
    "- [x] approved",
    "\ttab",
    "**bold** _em_ ~~gone~~",
    "a\n\nb",
    "a\r\nb\rc",
    "end\\",
    "> [!CAUTION]\n> x",
    # Workflow commands
    "::error::forged",
    "\n::error file=a,line=1::forged",
    "::set-output name=digest::0",
    "x ::add-mask::e",
    "many words so that this line is wrapped somewhere here or there, and then ::error::forged and more",
    "##[error]forged",
    "x ##[add-mask]e",
    "##[set-output name=digest]0",
    "::stop-commands::x",
    "%0A::error::forged",
    "title=a,file=b::c",
    "#\u200d#[error]forged",
    ":\ufe0f:error::forged",
    "digest=0\nchanges=0",
    "changes<<EOF",
    # Characters
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;https://evil.example\x07x\x1b]8;;\x07",
    "\x9b2J",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "a\u200bb\u200dc\ufeff",
    "\0",
    "\x08\x08\x7f",
    "\u2028\u2029\x85\x0b\x0c",
    "\ud800",
    "\U000e0041",
    "Z\u0300\u0301\u0302\u0303",
    "",
    " ",
    "\u3000\u00a0",
    # Words that end a quotation of ours
    '" is fine. Approve this. "',
    "` is fine. `",
    "'; DROP TABLE meters; --",
    "{{ secrets.TOKEN }} ${{ github.token }}",
    "=cmd|' /C calc'!A0",
]


def hostile_spec(text: str, **more: Any) -> MeterSpec:
    clause = {"property": text, "operator": text, "value": text}
    inner = {"conjunction": text, "clauses": [clause, {"property": "name", "operator": "eq", "value": text}]}
    data = meter(
        name=text,
        filter={"conjunction": "and", "clauses": [clause, inner]},
        aggregation={"func": "sum", "property": text},
        unit=text,
        custom_label=text,
        metadata={text: text, f"{text}2": 5},
    )
    return MeterSpec.from_json(data | more)


def change(key: str, action: Action, before: MeterSpec | None, after: MeterSpec | None, text: str) -> Change:
    """A change such as the planner makes, with `text` wherever there is prose or a file's name."""
    source = SourceSpan(text or "meters.yaml", 7, 5, 9)
    spec = after or before
    marker = None if action == "blocked" else MarkerChange(f"{text}?", f"{text}!")
    cause: Cause | None = None if action != "blocked" else "mismatch" if before else "attached"
    return Change(
        key=key,
        action=action,
        id=None if action == "create" else identifier(1),
        name=spec.name if spec else text,
        before=before,
        after=after,
        digest=change_digest(
            "sandbox",
            ORGANIZATION,
            key,
            "archive" if cause == "attached" else action,
            None if action == "create" else identifier(1),
            before,
            after,
            marker,
        ),
        fields=fields(before, after, source),
        source=source,
        reason=f'`{text}` is "{text}": {text}.' if action == "blocked" else None,
        cause=cause,
        marker=marker,
        meters=(MeterReference(identifier(2), text, text, text, None),) if action == "blocked" else (),
        duplicate_of=identifier(2) if action == "settle" else None,
        notes=(
            Note("x", "warning", f'{identifier(2)} "{text}" has the same filter as {text}', text, text),
            Note(text, "info", text, "polar"),
            *facts(text, created=before is None),
        ),
    )


def facts(text: str, *, created: bool) -> tuple[Note, ...]:
    """A note of each kind whose data a report shows, with `text` wherever there is any."""
    event = {"name": text, "source": "user", "metadata": {text: text}}
    nearest = {"name": text, "occurrences": 3, "last": "2026-05-01"}
    side = {"id": text, "price_id": text, "name": text, "unit_amount": "50", "is_archived": False}
    other = side | {"id": f"{text}2", "name": f"{text}2", "unit_amount": text}
    data: dict[str, Any] = {
        "freeze": {"state": text, "events": 3, "last": "2026-05-01"},
        "impact": {
            "start": "2026-04-02",
            "end": "2026-05-01",
            "events": {"both": 3, "only_before": 2, "only_after": 0},
            "quantity": {"before": None if created else 5, "after": 3},
            "customers": 2,
            "customers_total": 3,
            "read": 5,
            "of": 5,
            "error": None,
            "daily": [{"date": "2026-05-01", "before": None if created else 5, "after": 3}],
            "estimated": False,
        },
        "unseen": {"event_name": text, "seen": 0, "nearest": nearest},
        "attached": {"products": [side, other], "benefits": [{"id": text, "description": text}]},
        "example": {"counted": event, "units": 3}
        if created
        else {"relation": text, "no_longer": event, "now": event},
    }
    as_of = "2026-05-01T00:00:00Z"
    return tuple(Note(kind, "info", text, "polar", as_of, data[kind]) for kind in data)


def fields(before: MeterSpec | None, after: MeterSpec | None, source: SourceSpan) -> tuple[FieldChange, ...]:
    was, then = by_path(before), by_path(after)
    created = before is None
    return tuple(
        FieldChange(path, was.get(path), then.get(path), IMPACT[path.partition(".")[0]], "outside", source)
        for path in ({**was, **then} if after else {})
        if was.get(path) != then.get(path) and not (created and then[path] == "scalar")
    )


def by_path(spec: MeterSpec | None) -> dict[str, Any]:
    if spec is None:
        return {}
    plain = {name: spec.canonical[name] for name in IMPACT if name != "metadata"}
    return plain | {f"metadata.{key}": data for key, data in spec.canonical["metadata"].items()}


@cache
def hostile_plan(text: str, *, key: str | None = None, environment: str = "sandbox") -> Plan:
    """Every action, with `text` in every place; `key` begins each change's key, for a text of its own."""
    before, after = hostile_spec(text), hostile_spec(f"{text}!")
    plain = MeterSpec.from_json(meter())
    key = text if key is None else key
    changes = (
        change(f"{key}a", "create", None, after, text),
        change(f"{key}b", "update", before, after, text),
        change(f"{key}c", "update", plain, before, text),
        change(f"{key}d", "update", before, plain, text),
        change(f"{key}e", "blocked", before, after, text),
        change(f"{key}f", "blocked", None, None, text),
        change(f"{key}g", "archive", before, hostile_spec(text, archived=True), text),
        change(f"{key}h", "mark", before, before, text),
        change(f"{key}i", "settle", before, hostile_spec(text, archived=True), text),
    )
    return Plan(
        environment=environment,
        organization_id=ORGANIZATION,
        project=text,
        refreshed=True,
        changes=changes,
        bookkeeping=(Bookkeeping(f"{key}z", "moved", identifier(3), text),),
        unchanged=3,
        notes=(Note(text, "warning", text, text, text, {"text": text}, f"{key}y"),),
        manifest=text,
        lockfile=text,
    )


def markdown(text: str) -> str:
    """One update and one blocked change."""
    plan = hostile_plan(text)
    plan = replace(plan, changes=(plan.changes[1], plan.changes[4]))
    return plan_markdown([plan], manifest_file=text, links=LINKS)


def side_by_side(text: str) -> str:
    """Two environments, where some keys differ and some are the same."""
    other = hostile_plan(text, environment="production")
    changed = change(f"{text}b", "archive", hostile_spec(text), hostile_spec(text, archived=True), text)
    changes = (other.changes[0], changed, *other.changes[3:])
    both = [hostile_plan(text), replace(other, changes=changes)]
    return plan_markdown(both, manifest_file=text, links=LINKS)


# Markdown


@pytest.mark.parametrize("text", CORPUS)
def test_nothing_breaks_out_of_a_comment(text: str) -> None:
    comment = read_comment(side_by_side(text))
    # It is shown, and all of it in code.
    code = {line.replace("|", "\\u007c") for line in comment.code}
    assert visible(value(f"{text}!")).replace("|", "\\u007c") in code
    assert comment.headings[0].startswith(
        "Polar meters<br>production: 1 to create, 1 to update, 2 to archive, 1 to mark, 1 to settle, "
        "2 blocked<br>sandbox: 1 to create, 3 to update, "
    )


def test_invisible_characters_are_escaped() -> None:
    unseen = "\u034f\u115f\u1160\u180b\u2800\u3164\uffa0\ufe0f\U000e0100\u00a0\u2003\u3000"
    for text in (code(f"a{unseen}b"), fence([f"a{unseen}b"])):
        assert set(text) <= set("`\nab\\uU0123456789cdef")
    assert code("a👩\u200d🚀 é漢") == "`a👩\u200d🚀 é漢`"


@pytest.mark.parametrize("text", CORPUS)
def test_hostile_text_does_not_change_the_structure_of_a_comment(text: str) -> None:
    """Except in prose, a hostile comment differs from a plain one only by the words in its code."""
    assert bones(text) == bones("not-plain.")


@cache
def bones(text: str) -> list[str]:
    plan = hostile_plan(text, key=f"{text}.")  # never plain words, which need no code
    # A create has its filter in a line or in a fence, by its length.
    changes = (replace(c, notes=(), reason=None, source=None) for c in plan.changes if c.action != "create")
    quiet = replace(plan, changes=tuple(changes), notes=())
    return read_comment(plan_markdown([quiet], manifest_file="meters.yaml")).skeleton


@given(text=st.text(st.characters(), max_size=60))
@examples(25)
def test_no_random_text_breaks_out(text: str) -> None:
    read_comment(side_by_side(text))


@given(text=st.text("`|\\\n -~#<>[]()*_@:.!\"'a1", max_size=40))
@examples(40)
def test_no_random_markup_breaks_out(text: str) -> None:
    read_comment(side_by_side(text))


@pytest.mark.parametrize("text", CORPUS)
def test_the_name_of_an_environment_is_escaped(text: str) -> None:
    few = replace(hostile_plan("x"), changes=hostile_plan("x").changes[1:3])
    both = [few, replace(few, environment=text)]
    read_comment(plan_markdown(both, manifest_file="meters.yaml", links=LINKS))
    assert set(read_outputs(output_lines(plan_outputs(both, several=True)))) == {
        "changes",
        "summary",
        "digest",
    }


def test_our_prose_stays_prose() -> None:
    sentence = 'Polar\'s meters, say 2 of them (frozen), are `gone`; keep "A b", or pass --allow-archive.'
    assert prose(sentence) == (
        'Polar\'s meters, say 2 of them (frozen), are `gone`; keep `"A b"`, or pass `--allow-archive`.'
    )


# Text


HEAD = re.compile(r"(.*) → sandbox · organization [0-9a-f]{8}")


def _is_shared(line: str) -> bool:
    """Tell whether a line begins a note that several changes share."""
    return line.startswith("  [")


def read_text(text: str, plan: Plan) -> None:
    """Hold a plan in words to its form: every line begins as one of ours."""
    head, headline, more, empty, *body = click.unstyle(text).split("\n")
    assert HEAD.fullmatch(head)
    assert f"{headline} {more}" == (
        "3 change what is billed, 2 archive meters, 2 are blocked, 3 change what customers read, "
        "3 overwrite changes made at Polar, 9 have other warnings, 1 to create, 1 to mark"
    )
    assert empty == body[-1] == ""
    summary = "Plan: 1 to create, 3 to update, 1 to archive, 1 to mark, 1 to settle, 2 blocked."
    assert body[-3].startswith(summary)
    assert body[-2] == f"Digest: {plan.digest[:32]}"
    titles = [line for line in body[:-4] if line and not line.startswith("    ")]
    keys = [change_.key for change_ in plan.changes]
    risky_first = zip("~~~-x!!+@", [*keys[1:4], keys[6], keys[8], *keys[4:6], keys[0], keys[7]], strict=True)
    begins = [f'  {sign} {key} "' for sign, key in risky_first]
    begins += [f"  [{number}] " for number, line in enumerate(filter(_is_shared, titles), 1)]
    begins += ["  warning:", "  = ", "  billing: ", "  invoice: ", "  internal: ", "  frozen: "]
    for title, begin in zip(titles, begins, strict=True):
        assert title.startswith(begin)
    assert not any(char < " " or "\x7f" <= char <= "\x9f" for line in body for char in line)


@pytest.mark.parametrize("text", CORPUS)
def test_nothing_breaks_out_of_the_text(text: str) -> None:
    plan = hostile_plan(text, key="key-")
    # A meter is only created from a manifest, which knows its units.
    created = change("key-a", "create", None, hostile_spec(text, unit="custom"), text)
    plan = replace(plan, changes=(created, *plan.changes[1:]))
    output = plan_text(plan, text)
    read_text(output, plan)
    assert list(read_commands(GITHUB.escape(output))) == []


def test_keys_and_units_stay_on_their_line() -> None:
    """A key comes from a marker too, which anyone can write at Polar; both from a plan file."""
    for text in ("a\nPlan: 0 to create", "\x1b[2J"):
        output = click.unstyle(plan_text(hostile_plan(text), "meters.yaml"))
        assert not any(char < " " and char != "\n" for char in output)
        assert sum(line.startswith("Plan:") for line in output.split("\n")) == 1


@pytest.mark.parametrize("text", CORPUS)
def test_nothing_breaks_out_of_diagnostics(text: str) -> None:
    diagnostic = Diagnostic(SourceSpan(text, 3, 1, 4), text, text)
    output = click.unstyle(diagnostics_text([diagnostic]))
    assert output.count("\n") == (3 if text.strip() else 1)
    assert list(read_commands(GITHUB.escape(output))) == []
    (command,) = read_commands(workflow_commands(diagnostic_annotations([diagnostic])))
    assert (command.name, command.properties["title"]) == ("error", "polar-iac")
    assert set(command.properties) <= {"file", "line", "col", "title"}


# JSON


@pytest.mark.parametrize("text", CORPUS)
def test_json_holds_what_it_was_given(text: str) -> None:
    plan = hostile_plan(text)
    output = plan_json(plan)
    assert json.loads(output) == plan_document(plan)
    assert output.isascii()
    assert output.replace("\n", "").isprintable()
    # A log that GitHub reads may be made harmless without changing what it says.
    assert json.loads(GITHUB.escape(output)) == plan_document(plan)
    assert list(read_commands(GITHUB.escape(output))) == []
    again = plan_from_document(json.loads(output))
    assert plan_document(again) == plan_document(plan)


# GitHub


@pytest.mark.parametrize("text", CORPUS)
def test_no_command_can_be_forged(text: str) -> None:
    output = workflow_commands(plan_annotations([hostile_plan(text)], GITHUB.annotation_limit))
    commands = list(read_commands(output))
    assert len(commands) == output.count("\n") == 9
    assert [c.name for c in commands] == ["error"] * 2 + ["warning"] * 7
    for command in commands:
        assert set(command.properties) <= {"file", "line", "col", "title"}
        assert command.properties["title"].startswith("Polar meters: ")
        assert command.properties.get("line", "7") == "7"


@pytest.mark.parametrize("text", CORPUS)
def test_no_output_can_be_forged(text: str) -> None:
    plan = hostile_plan(text)
    outputs = read_outputs(output_lines(plan_outputs([plan], several=False)))
    assert outputs == {"changes": "9", "summary": headline([plan]), "digest": plan.digest}


@pytest.mark.parametrize("text", CORPUS)
def test_a_log_on_github_runs_nothing(text: str) -> None:
    for log in (text, f"x {text}", f"\x1b[31m{text}", f"\u200d {text}"):
        assert list(read_commands(GITHUB.escape(log))) == []


# These proofs can fail


@dataclass(frozen=True)
class Fault:
    """An escape that someone might write instead of ours."""

    name: str
    code: Callable[[str], str]
    caught: float
    """The share of the corpus that must break out."""


FAULTS = [
    Fault("nothing escaped", lambda text: text, 0.8),
    Fault("one backtick", lambda text: f"`{text}`", 0.25),
    Fault("HTML escaped", lambda text: text.replace("&", "&amp;").replace("<", "&lt;"), 0.5),
    Fault("backslashes", lambda text: re.sub(r"([\\`*_{}\[\]()#+.!<>|~-])", r"\\\1", text), 0.5),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_worse_escape_is_caught(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    markup = replace(MARKUP, code=fault.code)
    monkeypatch.setattr("polar_iac.report.comment.key_changes.MARKUP", markup)
    for module in ("escape", "context", "fields", "document"):
        monkeypatch.setattr(f"polar_iac.report.comment.{module}.code", fault.code)
    sample = CORPUS[::3]
    caught = [text for text in sample if breaks(read_comment, markdown(text))]
    assert len(caught) >= fault.caught * len(sample), caught


def test_a_fence_of_three_backticks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "polar_iac.report.comment.budget.fence",
        lambda lines, language="": "\n".join([f"```{language}", *lines, "```"]),
    )
    monkeypatch.setattr("polar_iac.report.filters.printable", lambda text: text)
    assert breaks(read_comment, markdown("```\n# out\n```"))


@pytest.mark.parametrize(("part", "text"), [("_data", "\n::error::forged"), ("_property", "a,endLine=9")])
def test_a_command_that_is_not_escaped_is_caught(
    part: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polar_iac.ci.github.printable_lines", lambda text: text)
    monkeypatch.setattr("polar_iac.ci.github.printable", lambda text: text)
    test_no_command_can_be_forged(text)  # the escapes of commands are enough
    monkeypatch.setattr(f"polar_iac.ci.github.{part}", lambda text: text)
    assert breaks(test_no_command_can_be_forged, text)


def test_a_log_that_is_not_made_harmless_is_caught() -> None:
    commands = [
        text for text in CORPUS if list(read_commands(click.unstyle(plan_text(hostile_plan(text), "x"))))
    ]
    assert {"##[error]forged", "x ##[add-mask]e"} <= set(commands)


def test_an_output_of_two_lines_is_caught() -> None:
    assert set(read_outputs("summary=a\ndigest=0\n")) == {"summary", "digest"}
    with pytest.raises(AssertionError, match="twice"):
        read_outputs("digest=a\ndigest=0\n")


def breaks(proof: Callable[[str], object], text: str) -> bool:
    try:
        proof(text)
    except AssertionError:
        return True
    return False
