#!/usr/bin/env bash
# Put the plan into the pull request's one comment, or that there is none. Nothing to say and nothing said
# before: stay silent.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

if [[ -z $PULL_REQUEST || $INPUT_COMMENT != true || $OFFLINE == true ]]; then
  exit 0
fi
authenticate

explain() {
  fail "GitHub refused the comment. The job that plans needs permissions: {contents: read, pull-requests: write}; or set comment: false on the step, the plan stands in the job summary too."
}

# shellcheck disable=SC2016  # the query's own variables
query='query($owner: String!, $name: String!, $number: Int!, $endCursor: String) {
  repository(owner: $owner, name: $name) { pullRequest(number: $number) {
    comments(first: 100, after: $endCursor) {
      nodes { number: databaseId body viewerDidAuthor } pageInfo { hasNextPage endCursor }
    } } } }'
existing=$(gh api graphql --paginate -f query="$query" -f owner="${GITHUB_REPOSITORY%%/*}" \
  -f name="${GITHUB_REPOSITORY#*/}" -F number="$PULL_REQUEST" \
  --jq ".data.repository.pullRequest.comments.nodes[] | $own_and_last" | with_marker "$COMMENT_MARKER") || explain

if [[ -z $REPORT ]]; then
  [[ -n $existing ]] || exit 0
  REPORT=$(mktemp "$RUNNER_TEMP/polar-iac-comment.XXXXXX")
  cat >"$REPORT" <<COMMENT
### Polar meters: the plan failed at \`${HEAD_SHA:0:12}\`

[The run](${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY/actions/runs/${GITHUB_RUN_ID:-}) says why. What stood here was the plan of an earlier commit.

$COMMENT_MARKER
COMMENT
fi
if [[ -n $existing ]]; then
  gh api --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$existing" -F body=@"$REPORT" || explain
  echo "The comment on #$PULL_REQUEST is up to date."
elif [[ $DIFFERS == true ]]; then
  gh api --silent --method POST "repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments" -F body=@"$REPORT" || explain
  echo "Commented on #$PULL_REQUEST."
fi
