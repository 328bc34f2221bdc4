#!/usr/bin/env bash
# Plan every environment in one run: to the log, to a comment's file, and to saved plans.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

enter
authenticate

case $INPUT_FAIL_ON in
  refused | blocked | never) ;;
  *) fail "fail-on: $INPUT_FAIL_ON is none of refused, blocked and never" ;;
esac

reports=$(mktemp -d "$RUNNER_TEMP/polar-iac-plan.XXXXXX")
arguments=(plan --file "$INPUT_FILE" --detailed-exitcode)
arguments+=(--out "$reports/{env}.json" --report "markdown=$reports/comment.md")
for environment in "${environments[@]}"; do
  arguments+=(--env "$environment")
done
[[ $INPUT_ALLOW_ARCHIVE != true ]] || arguments+=(--allow-archive)

offline=$(without_secrets)
if [[ -n $offline ]]; then
  arguments+=(--offline)
  offline+=", so there is no token of Polar: it is planned offline, against the lockfile. What someone changed at Polar is not seen, and there is no comment."
  notice "$offline"
  summarize "> $offline"
fi

# Where a branch is planned, what an apply on it would do now counts: with the lockfiles that were committed
# since this run began. An old commit may be planned all the same.
if [[ -z $PULL_REQUEST && $GITHUB_REF == "refs/heads/$branch" ]]; then
  catch_up || true
fi
read_state

code=0
"$polar_iac" "${arguments[@]}" || code=$?
[[ -f $reports/comment.md ]] || exit "$code"

# Those whose token is missing, or whose Polar does not answer, hide no other.
planned=()
unplanned=()
for environment in "${environments[@]}"; do
  if [[ -f $reports/$environment.json ]]; then
    planned+=("$environment")
  else
    unplanned+=("$environment")
  fi
done
output unplanned "${unplanned[*]+"${unplanned[*]}"}"
output refused "$([[ $code == 5 ]] && echo true || echo false)"
output report "$reports/comment.md"
output plans "$reports/{env}.json"
# `digest` is what the action apply takes: bare for one environment, else one for each.
"$python" -I - "$reports" "${planned[@]}" >>"$GITHUB_OUTPUT" <<'PYTHON'
import json
import pathlib
import sys

directory, *environments = sys.argv[1:]
plans = {e: json.loads(pathlib.Path(directory, f"{e}.json").read_text()) for e in environments}
differs = any(plan["changes"] for plan in plans.values())
needed = any(plan["changes"] or plan["bookkeeping"] for plan in plans.values())
digests = [f"{e}={plan['digest']}" for e, plan in plans.items()]
print("differs=" + ("true" if differs else "false"))
print("needed=" + ("true" if needed else "false"))
print("digests=" + (" ".join(digests) if len(digests) > 1 else digests[0].partition("=")[2]))
PYTHON

# The commit from which two others went apart; a shallow checkout is deepened until it is found.
merge_base() {
  local depth
  git merge-base "$1" "$2" 2>/dev/null && return
  if [[ $(git rev-parse --is-shallow-repository) != true ]]; then
    git fetch --quiet --no-tags origin "$1" "$2" || return
    git merge-base "$1" "$2"
    return
  fi
  for depth in 50 1000 2147483647; do
    git fetch --quiet --no-tags --depth="$depth" origin "$1" "$2" || return
    git merge-base "$1" "$2" && return
  done
  return 1
}

# A meter that somebody else's change has blocked is no reason to stop this one. On a branch each one counts.
saved=()
for environment in "${planned[@]}"; do
  saved+=("$reports/$environment.json")
done
if [[ -n $BASE_SHA ]] && grep -Eq '"action": ?"blocked"' "${saved[@]}"; then
  if base=$(merge_base "$BASE_SHA" "$HEAD_SHA"); then
    git cat-file blob "$base:$repository_file" >"$reports/base.yaml" 2>/dev/null || rm -f "$reports/base.yaml"
  else
    notice "what this pull request changes could not be found out, so each blocked meter counts"
  fi
fi
"$python" -I -m polar_iac.ci.blocked "$INPUT_FILE" "$reports/base.yaml" "${saved[@]}" >>"$GITHUB_OUTPUT"

# A refused plan fails the check after the comment, which says why.
((code != 2 && code != 5)) || code=0
exit "$code"
