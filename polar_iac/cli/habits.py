"""Habits of other tools' command lines: each gets an answer that names the option that is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

_SINGLE_DASH = re.compile(r"-([a-z][a-z-]*)(=.*)?", re.DOTALL)
_ANSWERS = {
    "o": "write --out FILE (for a plan), or --report FORMAT=FILE",
    "out": "`plan` takes --out FILE",
    "target": "`plan` and `apply` take --target KEY",
    "auto-approve": "`apply` takes -y or --auto-approve",
    "json": "write --format json",
    "destroy": "set `archived: true`, or remove meters from the manifest and pass --allow-archive",
    "chdir": "write -f DIRECTORY/meters.yaml",
}
"""Answers to options that a command does not have, mostly Terraform's."""


class Command(click.Command):
    """Command that knows Terraform's way to write options: `-out=FILE` for `--out FILE`.

    Click would read `-out` as `-o -u -t`, and say that there is no `-o`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for param in self.get_params(ctx) for name in param.opts}
        for written in _options(args):
            match = _SINGLE_DASH.fullmatch(written)
            if match is None or f"-{match[1]}" in own:
                continue
            answer = f"write --{match[1]}" if f"--{match[1]}" in own else _ANSWERS.get(match[1])
            if answer:
                raise click.UsageError(f"-{match[1]}: {answer}", ctx)
        return super().parse_args(ctx, args)


def _options(args: Sequence[str]) -> Sequence[str]:
    """Return the arguments before `--`, after which nothing is an option."""
    return args[: args.index("--")] if "--" in args else args
