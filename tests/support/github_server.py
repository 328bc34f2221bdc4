"""A stand-in for GitHub's API: answers what the actions ask, over HTTP, and remembers each question.

It knows as much of GitHub as the actions use, pages of two entries included.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.served_polar import Answer

PAGE = 2


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class GitHubServer:
    """A repository's comments, issues and pull requests. `meanwhile` runs before a push."""

    def __init__(self, repository: str, viewer: str) -> None:
        self.state: dict[str, Any] = {
            "comments": [],
            "issues": [],
            "pulls": [],
            "asked": [],
            "last": 100,
            "forbidden": False,
        }
        self.meanwhile: Callable[[], object] = lambda: None
        self._repository, self._viewer = repository, viewer
        self._lock = threading.Lock()

    def __call__(self, method: str, path: str, body: bytes) -> Answer:
        try:
            if path == "/meanwhile":  # not GitHub: the git of a runner asks what others do
                self.meanwhile()
                return 200, {}, b"{}"
            with self._lock:
                data = self._answer(method, path, json.loads(body) if body else {})
        except _RefusedError as refused:
            return refused.status, {}, json.dumps({"message": str(refused)}).encode()
        return 200, {"content-type": "application/json"}, json.dumps(data).encode()

    def _answer(self, method: str, path: str, fields: dict[str, Any]) -> Any:
        parts = urlsplit(path)
        fields |= dict(parse_qsl(parts.query))
        self.state["asked"].append({"method": method, "path": parts.path} | fields)
        if self.state["forbidden"] == "down":
            raise _RefusedError(502, "Bad Gateway")
        if parts.path == "/graphql":
            return self._graphql(fields["query"], fields["variables"])
        return self._rest(method, parts.path.strip("/").split("/"), fields)

    def _graphql(self, query: str, variables: dict[str, Any]) -> Any:
        assert "pageInfo { hasNextPage endCursor }" in query
        assert f"{variables['owner']}/{variables['name']}" == self._repository
        assert set(variables) == {
            word.partition(":")[0] for word in query.partition("(")[2].split("$")[1:]
        } & {*variables}
        if "pullRequest(number: $issue)" in query:
            entries = [c for c in self.state["comments"] if c["issue"] == variables["issue"]]
        else:
            assert "states: OPEN" in query
            entries = [i for i in self.state["issues"] if i["state"] == "open"]
        start = int(variables["cursor"] or 0)
        nodes = [
            {
                "number": entry["number"],
                "body": entry["body"].rstrip("\n").replace("\n", "\r\n"),
                "viewerDidAuthor": entry["author"] == self._viewer,
            }
            for entry in entries[start : start + PAGE]
        ]
        more = len(entries) > start + PAGE
        page = {"nodes": nodes, "pageInfo": {"hasNextPage": more, "endCursor": str(start + PAGE)}}
        return {"data": {"repository": {"pullRequest": {"comments": page}, "issues": page}}}

    def _rest(self, method: str, path: list[str], fields: dict[str, Any]) -> Any:
        if self.state["forbidden"] and (method != "GET" or self.state["forbidden"] == "reading"):
            raise _RefusedError(403, "Resource not accessible by integration")
        assert "/".join(path[:3]) == f"repos/{self._repository}"
        match [method, *path[3:]]:
            case ["POST", "issues", number, "comments"]:
                return self._add("comments", {"issue": int(number), "body": fields["body"]})
            case ["PATCH", "issues", "comments", number]:
                return self._change("comments", number, {"body": fields["body"]})
            case ["POST", "issues"]:
                return self._add("issues", {"state": "open"} | fields)
            case ["PATCH", "issues", number]:
                return self._change("issues", number, fields)
            case ["GET", "pulls"]:
                wanted = fields | {"head": fields["head"].removeprefix(f"{path[1]}:")}
                return [pull for pull in self.state["pulls"] if wanted.items() <= pull.items()]
            case ["POST", "pulls"]:
                return self._add("pulls", {"state": "open"} | fields)
            case ["PATCH", "pulls", number]:
                return self._change("pulls", number, fields)
        raise _RefusedError(404, f"unknown request {method} {path}")

    def _add(self, kind: str, fields: dict[str, Any]) -> Any:
        self.state["last"] += 1
        entry = {"number": self.state["last"], "author": self._viewer} | fields
        self.state[kind].append(entry)
        return entry

    def _change(self, kind: str, number: str, fields: dict[str, Any]) -> Any:
        entries = [entry for entry in self.state[kind] if entry["number"] == int(number)]
        if not entries:
            raise _RefusedError(404, "Not Found")
        entries[0].update(fields)
        return entries[0]
