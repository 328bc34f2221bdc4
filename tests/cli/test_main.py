"""The group `polar-iac`: its table of commands, against the commands themselves."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

import polar_iac.cli
from polar_iac.cli.main import COMMANDS, cli
from polar_iac.cli.options import FORMATS
from polar_iac.report.formats import RENDERERS

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
    with_command = {file.stem for file in files if "\n@command\n" in file.read_text(encoding="utf-8")}
    assert with_command == set(COMMANDS)
    assert cli.list_commands(CONTEXT) == sorted(COMMANDS)


def test_help_lists_every_command() -> None:
    text = cli.get_help(CONTEXT)
    for name, (_, help_) in COMMANDS.items():
        assert any(line.split() == [name, *help_.split()] for line in text.splitlines()), text


def test_an_unknown_command_is_not_loaded() -> None:
    assert cli.get_command(CONTEXT, "nonsense") is None


def test_options_offer_every_output_format() -> None:
    assert tuple(RENDERERS) == FORMATS
