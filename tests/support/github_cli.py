"""A stand-in for GitHub's `gh`: answers from a JSON file what the actions ask, and remembers each question.

`python -m tests.support.github_cli STATE ARGUMENTS...`. It knows as much of GitHub as the actions use,
pages of two entries included, and `--jq` is the real thing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import jq  # type: ignore[import-not-found]

PAGE = 2


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"gh: {message}\n")
    sys.exit(1)


def _number(state: dict[str, Any]) -> int:
    state["last"] += 1
    return int(state["last"])


class Gh:
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def answer(self, arguments: list[str]) -> None:
        self.state["asked"].append(arguments)
        if self.state["forbidden"] == "down":
            _refuse("HTTP 502: Bad Gateway (https://api.github.com/graphql)")
        match arguments:
            case ["api", *rest]:
                self._api(rest)
            case _:
                _refuse(f"unknown command {arguments}")

    def _api(self, arguments: list[str]) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("endpoint")
        parser.add_argument("--method")
        parser.add_argument("-f", action="append", default=[], dest="raw")
        parser.add_argument("-F", action="append", default=[], dest="typed")
        parser.add_argument("--jq")
        parser.add_argument("--paginate", action="store_true")
        parser.add_argument("--silent", action="store_true")
        asked = parser.parse_args(arguments)
        fields: dict[str, Any] = dict(text.split("=", 1) for text in asked.raw)
        for text in asked.typed:
            name, _, value = text.partition("=")
            typed: Any = int(value) if value.isdigit() else value
            fields[name] = Path(value[1:]).read_text(encoding="utf-8") if value.startswith("@") else typed
        if asked.endpoint == "graphql":
            self._graphql(fields, asked.jq, asked.paginate)
        else:
            self._rest(asked.method or "GET", asked.endpoint.split("/"), fields, asked.jq)

    def _graphql(self, fields: dict[str, Any], query: str, paginate: bool) -> None:
        assert "pageInfo { hasNextPage endCursor }" in fields["query"]
        assert f"{fields['owner']}/{fields['name']}" == self.state["repository"]
        if "pullRequest(number: $number)" in fields["query"]:
            entries = [c for c in self.state["comments"] if c["issue"] == fields["number"]]
        else:
            assert "states: OPEN" in fields["query"]
            entries = [i for i in self.state["issues"] if i["state"] == "open"]
        nodes = [
            {
                "number": entry["number"],
                "body": entry["body"].rstrip("\n").replace("\n", "\r\n"),
                "viewerDidAuthor": entry["author"] == self.state["viewer"],
            }
            for entry in entries
        ]
        pages = [nodes[at : at + PAGE] for at in range(0, len(nodes), PAGE)] or [[]]
        for page in pages if paginate else pages[:1]:
            connection = {"nodes": page}
            repository = {"pullRequest": {"comments": connection}, "issues": connection}
            self._print({"data": {"repository": repository}}, query)

    def _rest(self, method: str, path: list[str], fields: dict[str, Any], query: str | None) -> None:
        if self.state["forbidden"] and (method != "GET" or self.state["forbidden"] == "reading"):
            _refuse("Resource not accessible by integration (HTTP 403)")
        assert "/".join(path[:3]) == f"repos/{self.state['repository']}"
        author = self.state["viewer"]
        match [method, *path[3:]]:
            case ["POST", "issues", number, "comments"]:
                entry = {"number": _number(self.state), "issue": int(number), "author": author}
                self.state["comments"].append(entry | {"body": fields["body"]})
            case ["PATCH", "issues", "comments", number]:
                self._one("comments", number)["body"] = fields["body"]
            case ["POST", "issues"]:
                entry = {"number": _number(self.state), "author": author, "state": "open"}
                self.state["issues"].append(entry | fields)
            case ["PATCH", "issues", number]:
                self._one("issues", number).update(fields)
            case ["GET", "pulls"]:
                wanted = fields | {"head": fields["head"].removeprefix(f"{path[1]}:")}
                assert query
                self._print([pull for pull in self.state["pulls"] if wanted.items() <= pull.items()], query)
            case ["POST", "pulls"]:
                self.state["pulls"].append({"number": _number(self.state), "state": "open"} | fields)
            case ["PATCH", "pulls", number]:
                self._one("pulls", number).update(fields)
            case other:
                _refuse(f"unknown request {other}")

    def _one(self, kind: str, number: str) -> dict[str, Any]:
        entries = [entry for entry in self.state[kind] if entry["number"] == int(number)]
        if not entries:
            _refuse("Not Found (HTTP 404)")
        first: dict[str, Any] = entries[0]
        return first

    @staticmethod
    def _print(data: Any, query: str) -> None:
        for value in jq.compile(query).input_value(data):
            print(value if isinstance(value, str) else json.dumps(value))


if __name__ == "__main__":
    if os.environ.get("GH_TOKEN") != "ghs_secret" or os.environ.get("GH_HOST") != "github.com":
        _refuse("To use GitHub CLI in a GitHub Actions workflow, set the GH_TOKEN environment variable.")
    file = Path(sys.argv[1])
    stand_in = Gh(json.loads(file.read_text(encoding="utf-8")))
    try:
        stand_in.answer(sys.argv[2:])
    finally:
        file.write_text(json.dumps(stand_in.state, indent=1), encoding="utf-8")
