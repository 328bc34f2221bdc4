#!/usr/bin/env bash
# Keep the lockfiles that apply has written, where the input `persist` says. Each is merged into what the
# remote has now and pushed with a lease: a compare-and-swap against whoever else pushes.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

enter
authenticate
target=${state_branch:-$branch}
scratch=$(mktemp -d "$RUNNER_TEMP/polar-iac-persist.XXXXXX")
export GIT_AUTHOR_NAME='github-actions[bot]' GIT_AUTHOR_EMAIL='41898282+github-actions[bot]@users.noreply.github.com'
export GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
healed="Nothing is lost: what was applied bears its ownership marker, so the next apply finds it again, creates nothing twice and records it."

written=()
for environment in "${environments[@]}"; do
  [[ ! -f $(lockfile "$environment") ]] || written+=("$environment")
done
((${#written[@]})) || exit 0

# A commit on `$1` (or on nothing) with our lockfiles merged in, made without the working tree, which may
# hold anything. Prints it, or nothing when it would change nothing. Code 9: two sides changed the same lines.
commit_on() {
  local tip=$1 environment path blob tree names=()
  export GIT_INDEX_FILE=$scratch/index
  rm -f "$GIT_INDEX_FILE"
  if [[ -n $tip ]]; then
    git read-tree "$tip" || return
  fi
  for environment in "${written[@]}"; do
    path=$(in_repository "$environment")
    : >"$scratch/theirs"
    if [[ -n $tip ]] && git cat-file -e "$tip:$path" 2>/dev/null; then
      git cat-file blob "$tip:$path" >"$scratch/theirs" || return
    fi
    git merge-file -p --quiet "$(lockfile "$environment")" "$BASE/$environment" "$scratch/theirs" >"$scratch/merged" || return 9
    if ! cmp -s "$scratch/merged" "$scratch/theirs"; then
      blob=$(git hash-object -w --no-filters -- "$scratch/merged") || return
      git update-index --add --cacheinfo "100644,$blob,$path" || return
      names+=("$environment")
    fi
  done
  ((${#names[@]})) || return 0
  tree=$(git write-tree) || return
  git commit-tree "$tree" ${tip:+-p "$tip"} -m "Record the meters applied to ${names[*]}" -m "By ${GITHUB_WORKFLOW:-polar-iac}, run ${GITHUB_RUN_ID:-unknown}, at ${GITHUB_SHA:0:12}."
}

# Where the lockfiles go on top of, and what the remote's branch must still stand on for the push.
look() {
  lease=$(remote_tip "$target") || return
  onto=$lease
  case $INPUT_PERSIST in
    branch)
      [[ -n $onto ]] || return 0
      git ls-tree -r -z --full-tree --name-only "$onto" >"$scratch/names" || return
      local name
      while IFS= read -r -d '' name; do
        [[ $name == *.lock.json ]] || fail "state-branch: $target holds more than lockfiles ($name), and only a branch of its own may be used. $healed"
      done <"$scratch/names"
      ;;
    pull-request)
      pull_request=$(lockfile_pull_request) || return
      # A branch without an open pull request is a leftover of one that was merged or turned down.
      [[ -n $pull_request ]] || onto=$(remote_tip "$branch") || return
      ;;
  esac
}

explain_refusal() {
  local said
  said=$(sed -n 's/^remote: *//p; s/.*\[remote rejected\] *//p; /^fatal:/p; /^error:/p' "$scratch/push" | grep -v '^ *$' | head -n 12)
  local message="The lockfile could not be kept: the push to the branch $target was refused.
$said
$healed"
  if grep -Eq 'error: 403|Permission to|not granted|denied to' "$scratch/push"; then
    message+="
The token may not write. Give the job permissions: {contents: write}, or pass another github-token."
  elif [[ $INPUT_PERSIST == commit ]]; then
    message+="
The branch is protected. Do one of these:
- persist: branch, on every step of polar-iac: lockfiles are then kept on the unprotected branch polar-iac-state.
- persist: pull-request: they then come as a pull request to $branch.
- Let a GitHub App (or a deploy key) bypass the rule, under Settings, Rules, Rulesets, Bypass list, and pass the App's token as github-token (or check out with the deploy key as ssh-key). GitHub's own Actions bot cannot be put on that list."
  else
    message+="
The branch $target must be free to push to: exempt it from the rules, or choose another one with state-branch."
  fi
  summarize "### 🛑 The lockfile was not kept

$message"
  fail "$message"
}

settled=''
pushed=''
for try in 1 2 3 4 5 6; do
  ((try < 3)) || sleep $((try - 2))
  look || continue
  code=0
  new=$(commit_on "$onto") || code=$?
  if ((code == 9)); then
    fail "The lockfile could not be kept: another run changed the same meters in it, on $target. $healed"
  fi
  ((code == 0)) || exit "$code"
  if [[ -z $new ]]; then
    echo "The lockfile on $target is up to date."
    settled=yes
    break
  fi
  if LC_ALL=C git push --porcelain --no-verify --force-with-lease="refs/heads/$target:$lease" origin "$new:refs/heads/$target" >"$scratch/push" 2>&1; then
    echo "The lockfile is kept on $target, as ${new:0:12}."
    settled=yes
    pushed=$new
    break
  fi
  cat "$scratch/push" >&2
  if grep -Eq '\[rejected\]|cannot lock ref|failed to update ref|incorrect old value|reference already exists' "$scratch/push"; then
    echo "$target has moved on: merging with what is there now" >&2
  elif grep -Eq '\[remote rejected\]|error: 403|Permission to|not granted|denied to' "$scratch/push"; then
    explain_refusal
  fi
done
[[ -n $settled ]] || fail "The lockfile could not be kept on $target, in $try tries; the log says why. $healed"

if [[ $INPUT_PERSIST == commit && -n $pushed ]]; then
  # Take this checkout along, for a step after this one; not to what others pushed apart from lockfiles.
  if [[ -z $(git diff --name-only HEAD "$pushed" -- ':(top,exclude,glob)**/*.lock.json') ]]; then
    before=$(git rev-parse HEAD)
    git reset --quiet "$pushed"
    git diff -z --name-only --diff-filter=d "$before" "$pushed" | (cd "$(git rev-parse --show-toplevel)" && xargs -0 git checkout --quiet --)
  fi
fi

if [[ $INPUT_PERSIST == pull-request && -n $pushed ]]; then
  cat >"$scratch/body" <<BODY
What \`apply\` did is recorded in these lockfiles: which Polar meter each key became, and what was applied last.

Merge this before the next change of the manifest. It changes nothing at Polar. While it is open, \`plan\` and \`apply\` read the lockfiles from this branch.
BODY
  title="Record the meters applied to ${written[*]}"
  if [[ -n $pull_request ]]; then
    asked=(--method PATCH "repos/$GITHUB_REPOSITORY/pulls/$pull_request")
  else
    asked=(--method POST "repos/$GITHUB_REPOSITORY/pulls" -f head="$target" -f base="$branch")
  fi
  if ! ask_github --silent "${asked[@]}" -f title="$title" -F body=@"$scratch/body"; then
    refused_by_github "the pull request" "The job needs permissions: {contents: write, pull-requests: write}, and Settings, Actions, General must allow GitHub Actions to create pull requests."
    fail "The lockfile stands on the branch $target, without a pull request: run the job again, or open it by hand. $healed"
  fi
fi
