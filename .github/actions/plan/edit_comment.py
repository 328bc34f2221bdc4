"""Edits the comment that ends with a marker, where there is no `gh` to do so. Makes none.

`edit_comment.py MARKER FILE`, with the text in the file. Python 3.7 runs it: nothing may be installed.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

FIND = """query($owner: String!, $name: String!, $number: Int!, $cursor: String) {
  repository(owner: $owner, name: $name) { pullRequest(number: $number) {
    comments(first: 100, after: $cursor) { nodes { id body viewerDidAuthor } pageInfo { endCursor } } } } }"""
EDIT = """mutation($id: ID!, $body: String!) {
  updateIssueComment(input: {id: $id, body: $body}) { clientMutationId } }"""


def ask(query: str, variables: dict[str, Any]) -> Any:
    """Ask GitHub's GraphQL API, and return the data of its answer."""
    request = urllib.request.Request(  # noqa: S310  the runner's own variable
        os.environ.get("GITHUB_GRAPHQL_URL") or "https://api.github.com/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Authorization": "bearer " + os.environ["GH_TOKEN"], "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        document = json.load(answer)
    if "errors" in document:
        raise OSError(document["errors"][0].get("message"))
    return document["data"]


def find(marker: str) -> str | None:
    """Return the id of this token's own comment that ends with the marker, or None."""
    owner, _, name = os.environ["GITHUB_REPOSITORY"].partition("/")
    variables = {"owner": owner, "name": name, "number": int(os.environ["PULL_REQUEST"]), "cursor": None}
    while True:
        comments = ask(FIND, variables)["repository"]["pullRequest"]["comments"]
        for comment in comments["nodes"]:
            if comment["viewerDidAuthor"] and comment["body"].rstrip().endswith("\n" + marker):
                return str(comment["id"])
        variables["cursor"] = comments["pageInfo"]["endCursor"]
        if variables["cursor"] is None:
            return None


def main(marker: str, file: str) -> None:
    """Edit the comment, if there is one."""
    found = find(marker)
    if found is not None:
        ask(EDIT, {"id": found, "body": Path(file).read_text(encoding="utf-8")})


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.exit(f"the comment of an earlier commit could not be edited: {error}")
