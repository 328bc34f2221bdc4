"""GitHub's API, over the standard library alone: no `gh` on the runner, and nothing installed, is needed.

Python 3.7: see `polar_iac.ci.marker`. The token comes from the environment, and goes into a header only.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Iterator, Mapping, Optional, Tuple  # noqa: UP035  Python 3.7 runs this

_SECONDS = 30
_DENIED = re.compile(r"HTTP 40[134]|not accessible|not permitted")


class GitHubError(Exception):
    """A request that GitHub refused, or did not answer. The text is what it said, without a token."""

    def explained(self, subject: str, remedy: str) -> str:
        """Tell a token that may not from a GitHub that does not answer."""
        if _DENIED.search(str(self)):
            return f"GitHub refused {subject} ({self}). {remedy}"
        return f"{subject} failed, since GitHub did not answer as it should: {self}. Run the job again."


class GitHubApi:
    """GitHub's API for one repository, as the owner of the token in `GH_TOKEN`."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.repository = variables["GITHUB_REPOSITORY"]
        self._api = variables.get("GITHUB_API_URL") or "https://api.github.com"
        self._graphql = variables.get("GITHUB_GRAPHQL_URL") or f"{self._api}/graphql"
        self._token = variables.get("GH_TOKEN", "")

    def rest(self, method: str, path: str, **fields: Any) -> Any:
        """Send a request about the repository, and return the data of the answer. Raises GitHubError."""
        return self._send(method, f"{self._api}/repos/{self.repository}/{path}", fields or None)

    def texts(self, query: str, path: Tuple[str, ...], **variables: Any) -> Iterator[Tuple[str, str, bool]]:  # noqa: UP006
        """Yield `(number, body, is by us)` of the nodes that a GraphQL query leads to, page after page.

        `viewerDidAuthor` knows us by any token's name. Raises GitHubError.
        """
        owner, _, name = self.repository.partition("/")
        cursor: Optional[str] = None  # noqa: UP045
        while True:
            asked = {"owner": owner, "name": name, "cursor": cursor, **variables}
            answer = self._send("POST", self._graphql, {"query": query, "variables": asked})
            try:
                if answer.get("errors"):
                    raise GitHubError(answer["errors"][0]["message"])
                connection = answer["data"]
                for step in path:
                    connection = connection[step]
                for node in connection["nodes"]:
                    yield str(node["number"]), node["body"], node["viewerDidAuthor"]
                cursor = (
                    connection["pageInfo"]["endCursor"] if connection["pageInfo"]["hasNextPage"] else None
                )
            except (AttributeError, LookupError, TypeError) as error:
                raise GitHubError("it sent something else than was asked for") from error
            if cursor is None:
                return

    def _send(self, method: str, url: str, data: Any) -> Any:
        headers = {"Accept": "application/vnd.github+json", "User-Agent": "polar-iac"}
        body = None if method == "GET" or data is None else json.dumps(data).encode()
        if method == "GET" and data:
            url += "?" + urllib.parse.urlencode(data)
        try:
            request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310  the runner's
            if self._token:  # to no other host that GitHub may send us to
                request.add_unredirected_header("Authorization", f"Bearer {self._token}")
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                text = answer.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                raise GitHubError(f"HTTP {error.code}: {_message(error)}") from error
        except (OSError, http.client.HTTPException) as error:
            raise GitHubError(str(getattr(error, "reason", error)) or type(error).__name__) from error
        except ValueError as error:
            raise GitHubError("it sent no JSON") from error


def _message(error: urllib.error.HTTPError) -> str:
    """Return what GitHub says against a request, on one line."""
    try:
        return " ".join(str(json.loads(error.read())["message"]).split())
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return str(error.reason)
