#!/usr/bin/env bash
# Open the issue, bring it up to date, or close it: there is never more than one.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

need_gh "the issue"
authenticate

explain() {
  refused_by_github "the issue" "The job needs permissions: {contents: read, issues: write}, and the repository must have issues enabled."
  exit 1
}

# shellcheck disable=SC2016  # the query's own variables
query='query($owner: String!, $name: String!, $endCursor: String) {
  repository(owner: $owner, name: $name) { issues(first: 100, after: $endCursor, states: OPEN) {
    nodes { number body viewerDidAuthor } pageInfo { hasNextPage endCursor }
  } } }'
existing=$(ask_github graphql --paginate -f query="$query" -f owner="${GITHUB_REPOSITORY%%/*}" \
  -f name="${GITHUB_REPOSITORY#*/}" \
  --jq ".data.repository.issues.nodes[] | $own_and_last" | with_marker "$(marker)") || explain

if [[ $DRIFT == true ]]; then
  body=$(mktemp "$RUNNER_TEMP/polar-iac-issue.XXXXXX")
  {
    printf 'Meters at Polar are not as they were last recorded: someone changed them, or an apply could not record what it did. Take the change into the manifest by a pull request, or run the apply workflow to put back what the manifest says. '
    printf 'Seen last in [this run](%s/%s/actions/runs/%s). This issue closes when the difference is gone.\n\n' \
      "${GITHUB_SERVER_URL:-https://github.com}" "$GITHUB_REPOSITORY" "${GITHUB_RUN_ID:-}"
    with_own_marker "$REPORT"
  } >"$body"
  if [[ -n $existing ]]; then
    ask_github --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/$existing" -F body=@"$body" || explain
    echo "Issue #$existing is up to date."
  else
    ask_github --silent --method POST "repos/$GITHUB_REPOSITORY/issues" \
      -f title="Polar meters are not as they were last applied" -F body=@"$body" || explain
    echo "Opened an issue."
  fi
elif [[ -n $existing ]]; then
  ask_github --silent --method POST "repos/$GITHUB_REPOSITORY/issues/$existing/comments" \
    -f body="Polar's meters are as they were applied again." || explain
  ask_github --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/$existing" \
    -f state=closed -f state_reason=completed || explain
  echo "Closed issue #$existing."
fi
