"""The group `polar-iac`: its table of commands, against the commands themselves."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

import polar_iac
import polar_iac.cli
from polar_iac.cli.ci.main import STEPS
from polar_iac.cli.main import COMMANDS, FLAGS, cli
from polar_iac.cli.options import FORMATS
from polar_iac.report.formats import RENDERERS
from tests.support.command import Workspace, on_terminal
from tests.support.fork_server import ForkServer

CONTEXT = click.Context(cli)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_has_the_help_of_each_command(name: str) -> None:
    command = cli.get_command(CONTEXT, name)
    assert command is not None
    assert command.name == name
    assert command.help is not None
    assert command.help.partition("\n")[0] == COMMANDS[name][1]


def test_the_table_has_every_command() -> None:
    files = Path(polar_iac.cli.__file__).parent.glob("*.py")
    # `import_.py`, since `import` is no name in Python.
    with_command = {
        file.stem.rstrip("_") for file in files if "\n@command\n" in file.read_text(encoding="utf-8")
    }
    assert with_command == set(COMMANDS)
    assert cli.list_commands(CONTEXT) == sorted(COMMANDS)


def test_help_lists_every_command() -> None:
    text = cli.get_help(CONTEXT)
    for name, (_, help_) in COMMANDS.items():
        assert any(line.split() == [name, *help_.split()] for line in text.splitlines()), text


def test_the_steps_of_the_actions_are_commands_that_help_does_not_list() -> None:
    assert " ci " not in cli.get_help(CONTEXT)
    group = cli.get_command(CONTEXT, "ci")
    assert isinstance(group, click.Group)
    for name, (_, help_) in STEPS.items():
        step = group.get_command(CONTEXT, name)
        assert step is not None
        assert (step.name, (step.help or "").partition("\n")[0]) == (name, help_)
    # A step that an action names is there.
    actions = (Path(polar_iac.__file__).parents[1] / ".github" / "actions").glob("*/*")
    used = {
        name for file in actions for name in re.findall(r'polar_?-?iac"? ci (\w+)', file.read_text("utf-8"))
    }
    assert used == set(STEPS)


def test_an_unknown_command_is_not_loaded() -> None:
    assert cli.get_command(CONTEXT, "nonsense") is None


def test_options_offer_every_output_format() -> None:
    assert tuple(RENDERERS) == FORMATS


def test_the_group_knows_which_options_take_no_value() -> None:
    flags = set[str]()
    for name in COMMANDS:
        command = cli.get_command(CONTEXT, name)
        assert command is not None
        for param in command.params:
            if isinstance(param, click.Option) and param.is_flag:
                flags |= {f"--{option.lstrip('-')}" for option in param.opts}
    assert flags == FLAGS


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("-e sandbox plan --out p", "plan -e sandbox --out p"),
        ("-q --file=x -f plan validate y", "validate -q --file=x -f plan y"),
        ("-auto-approve --target plan apply plan", "apply -auto-approve --target plan plan"),
        ("plan -e sandbox", "plan -e sandbox"),
    ],
)
def test_options_before_the_command_are_the_commands(before: str, after: str) -> None:
    context = click.Context(cli)
    cli.parse_args(context, before.split())
    assert [*context._protected_args, *context.args] == after.split()


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("plan -out=p", "-out: write --out"),
        ("plan -out p", "-out: write --out"),
        ("-out=p plan", "-out: write --out"),
        ("plan -o p", "-o: write --out FILE"),
        ("apply -target=calls", "-target: write --target"),
        ("apply -auto-approve", "-auto-approve: write --auto-approve"),
        ("plan -auto-approve", "-auto-approve: `apply` takes -y"),
        ("validate -json", "-json: write --format json"),
        ("plan -detailed-exitcode", "-detailed-exitcode: write --detailed-exitcode"),
        ("plan -file=x", "-file: write --file"),
        ("plan --nonsense", "no such option"),
        ("nonsense", "no such command 'nonsense'"),
        ("drfit", "no such command 'drfit': did you mean `drift`?"),
        ("-e sandbox palan --out p", "no such command 'palan': did you mean `plan`?"),
        ("--nonsense", "no such option"),
        ("plan -e ../staging", "invalid value for '-e' / '--env'"),
    ],
)
def test_what_is_not_understood_is_answered_under_the_usage(
    tmp_path: Path, warmed: ForkServer, written: str, answer: str
) -> None:
    done = Workspace(tmp_path, {}, warmed).run(*written.split())
    assert (done.returncode, done.stdout) == (1, "")
    usage, *_, message = done.stderr.splitlines()
    assert usage.startswith("Usage: ")
    assert message.startswith(f"error: {answer}")


@pytest.mark.parametrize("written", ["plan", "validate", "apply none", "plan -e local --target x"])
def test_other_errors_show_no_usage(tmp_path: Path, warmed: ForkServer, written: str) -> None:
    workspace = Workspace(tmp_path, {}, warmed)
    if "--target" in written:
        workspace.write({})
    done = workspace.run(*written.split())
    assert done.returncode == 1
    assert re.match(r"(\S+: )?error: ", done.stderr)
    assert "Usage" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "colored"),
    [
        ([], {}, False),
        (["--color=always"], {}, True),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
        (["--no-color"], {"FORCE_COLOR": "1"}, False),
        (["--color=always"], {"NO_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ([], {"FORCE_COLOR": "0"}, False),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colors_are_chosen(
    tmp_path: Path, warmed: ForkServer, arguments: list[str], variables: dict[str, str], colored: bool
) -> None:
    done = Workspace(tmp_path, {}, warmed).run("validate", *arguments, **variables)
    assert ("\x1b[" in done.stderr) == colored


def test_a_dumb_terminal_has_no_colors(tmp_path: Path) -> None:
    assert "\x1b[" in on_terminal(Workspace(tmp_path, {"TERM": "xterm"}, measures=False), "validate")[1]
    assert "\x1b[" not in on_terminal(Workspace(tmp_path, {"TERM": "dumb"}, measures=False), "validate")[1]
