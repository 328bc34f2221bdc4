"""Prints true if saved plans show that someone changed meters at Polar, else false.

`outside.py PLAN LOCKFILE [PLAN LOCKFILE]...`. What merely waits to be applied is in a plan too, and no drift.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def changed_outside(change: dict[str, Any], recorded: dict[str, Any] | None) -> bool:
    """Tell whether a change undoes what was done at Polar since the lockfile was written."""
    if any(field["origin"] != "manifest" for field in change["fields"]):
        return True
    if change["action"] == "blocked" and change["after"] is None:
        return True  # Another meter bears the marker, or the recorded one is unknown or someone else's.
    if change["action"] != "create" and change["marker"] and change["marker"]["before"] is None:
        return True  # Someone took the ownership marker off.
    before = change["before"]
    spec = (recorded or {}).get("spec")
    return bool(before and spec and before["archived"] != spec["archived"])


def main(arguments: list[str]) -> bool:
    """Tell whether a plan shows a change made outside. `arguments`: plan files, each before its lockfile."""
    for plan_file, lockfile in zip(arguments[::2], arguments[1::2], strict=True):
        plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
        try:
            meters = json.loads(Path(lockfile).read_text(encoding="utf-8-sig"))["meters"]
        except FileNotFoundError:
            meters = {}
        if any(changed_outside(change, meters.get(change["key"])) for change in plan["changes"]):
            return True
    return False


if __name__ == "__main__":
    sys.stdout.write("true\n" if main(sys.argv[1:]) else "false\n")
