#!/usr/bin/env bash
# Open the issue, bring it up to date, or close it: there is never more than one.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

authenticate
marker=$(marker_of "$REPORT")

explain() {
  fail "GitHub refused to tell of the drift. The job needs permissions: {contents: read, issues: write}, and the repository must have issues enabled."
}

# shellcheck disable=SC2016  # the query's own variables
query='query($owner: String!, $name: String!, $endCursor: String) {
  repository(owner: $owner, name: $name) { issues(first: 100, after: $endCursor, states: OPEN) {
    nodes { number body viewerDidAuthor } pageInfo { hasNextPage endCursor }
  } } }'
existing=$(gh api graphql --paginate -f query="$query" -f owner="${GITHUB_REPOSITORY%%/*}" \
  -f name="${GITHUB_REPOSITORY#*/}" \
  --jq ".data.repository.issues.nodes[] | $own_and_last" | with_marker "$marker") || explain

if [[ $DRIFT == true ]]; then
  body=$(mktemp "$RUNNER_TEMP/polar-iac-issue.XXXXXX")
  {
    printf 'Meters at Polar are not as they were last recorded: someone changed them, or an apply could not record what it did. Take the change into the manifest by a pull request, or run the apply workflow to put back what the manifest says. '
    printf 'Seen last in [this run](%s/%s/actions/runs/%s). This issue closes when the difference is gone.\n\n' \
      "${GITHUB_SERVER_URL:-https://github.com}" "$GITHUB_REPOSITORY" "${GITHUB_RUN_ID:-}"
    cat -- "$REPORT"
  } >"$body"
  if [[ -n $existing ]]; then
    gh api --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/$existing" -F body=@"$body" || explain
    echo "Issue #$existing is up to date."
  else
    gh api --silent --method POST "repos/$GITHUB_REPOSITORY/issues" \
      -f title="Polar meters are not as they were last applied" -F body=@"$body" || explain
    echo "Opened an issue."
  fi
elif [[ -n $existing ]]; then
  gh api --silent --method POST "repos/$GITHUB_REPOSITORY/issues/$existing/comments" \
    -f body="Polar's meters are as they were applied again." || explain
  gh api --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/$existing" \
    -f state=closed -f state_reason=completed || explain
  echo "Closed issue #$existing."
fi
