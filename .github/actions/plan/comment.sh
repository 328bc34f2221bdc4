#!/usr/bin/env bash
# Put the plan into the pull request's one comment, or that there is none. Nothing to say and nothing said
# before: stay silent.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

if [[ -z $PULL_REQUEST || $INPUT_COMMENT != true || -n $(without_secrets) ]]; then
  exit 0
fi
run="[The run](${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY/actions/runs/${GITHUB_RUN_ID:-}) says why."
body=$(mktemp "$RUNNER_TEMP/polar-iac-comment.XXXXXX")
tell_failure() {
  cat >"$body" <<COMMENT
### Polar meters: the plan failed at \`${HEAD_SHA:0:12}\`

$run What stood here was the plan of an earlier commit.

$(marker)
COMMENT
}

# The check is red then, and no comment is made; one that is there must not outlive its plan all the same.
if ! command -v gh >/dev/null; then
  tell_failure
  python3 -I "$GITHUB_ACTION_PATH/edit_comment.py" "$(marker)" "$body" || true
fi
need_gh "the comment" "; or set comment: false on the step, the plan stands in the job summary too"
authenticate

explain() {
  refused_by_github "the comment" "The job that plans needs permissions: {contents: read, pull-requests: write}; or set comment: false on the step, the plan stands in the job summary too."
  exit 1
}

# shellcheck disable=SC2016  # the query's own variables
query='query($owner: String!, $name: String!, $number: Int!, $endCursor: String) {
  repository(owner: $owner, name: $name) { pullRequest(number: $number) {
    comments(first: 100, after: $endCursor) {
      nodes { number: databaseId body viewerDidAuthor } pageInfo { hasNextPage endCursor }
    } } } }'
existing=$(ask_github graphql --paginate -f query="$query" -f owner="${GITHUB_REPOSITORY%%/*}" \
  -f name="${GITHUB_REPOSITORY#*/}" -F number="$PULL_REQUEST" \
  --jq ".data.repository.pullRequest.comments.nodes[] | $own_and_last" | with_marker "$(marker)") || explain
[[ -n $existing || $DIFFERS == true ]] || exit 0

if [[ -z $REPORT ]]; then
  tell_failure
else
  if [[ -n $UNPLANNED ]]; then
    cat >"$body" <<COMMENT
### Polar meters: no plan for ${UNPLANNED// / and } at \`${HEAD_SHA:0:12}\`

$run What could be planned follows.

COMMENT
  fi
  with_own_marker "$REPORT" "${BLOCKED_BEFORE:+> Blocked, and not by this pull request, so its check does not fail for it: $BLOCKED_BEFORE.}" >>"$body"
fi
if [[ -n $existing ]]; then
  ask_github --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$existing" -F body=@"$body" || explain
  echo "The comment on #$PULL_REQUEST is up to date."
else
  ask_github --silent --method POST "repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments" -F body=@"$body" || explain
  echo "Commented on #$PULL_REQUEST."
fi
