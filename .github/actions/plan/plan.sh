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
# A refused plan fails the check after the comment, which says why.
((code != 2 && code != 5)) || code=0
exit "$code"
