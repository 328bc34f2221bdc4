#!/usr/bin/env bash
# Plan every environment in one run: to the log, to a comment's file, and to saved plans.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

enter
authenticate

reports=$(mktemp -d "$RUNNER_TEMP/polar-iac-plan.XXXXXX")
arguments=(plan --file "$INPUT_FILE" --detailed-exitcode)
arguments+=(--out "$reports/{env}.json" --report "markdown=$reports/comment.md")
for environment in "${environments[@]}"; do
  arguments+=(--env "$environment")
done
[[ $INPUT_ALLOW_ARCHIVE != true ]] || arguments+=(--allow-archive)

# Neither has secrets, and their token can write nothing.
offline=''
if [[ -n $PULL_REQUEST ]]; then
  if [[ $HEAD_REPOSITORY != "$GITHUB_REPOSITORY" ]]; then
    offline="This pull request comes from a fork"
  elif [[ $ACTOR == 'dependabot[bot]' ]]; then
    offline="This pull request is Dependabot's"
  fi
fi
if [[ -n $offline ]]; then
  arguments+=(--offline)
  offline+=", so there is no token of Polar: it is planned offline, against the lockfile. What someone changed at Polar is not seen, and there is no comment."
  notice "$offline"
  summarize "> $offline"
fi

branch=${GITHUB_BASE_REF:-${GITHUB_REF_NAME:-}}
read_state "$branch"

code=0
"$polar_iac" "${arguments[@]}" || code=$?
((code == 0 || code == 2)) || exit "$code"

output offline "$([[ -z $offline ]] && echo false || echo true)"
output report "$reports/comment.md"
output plans "$reports/{env}.json"
# `digest` is what the action apply takes: bare for one environment, else one for each.
"$python" - "$reports" "${environments[@]}" >>"$GITHUB_OUTPUT" <<'PYTHON'
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
