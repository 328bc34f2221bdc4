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

# Where a branch is planned, what an apply on it would do now counts: with the lockfiles that were committed
# since this run began. An old commit may be planned all the same.
if [[ -z $PULL_REQUEST && $GITHUB_REF == "refs/heads/$branch" ]]; then
  catch_up || true
fi
read_state

output offline "$([[ -z $offline ]] && echo false || echo true)"
code=0
"$polar_iac" "${arguments[@]}" || code=$?
if ((code != 0 && code != 2 && code != 5)); then
  # The comment of an earlier commit would still be taken for this one's.
  quote="[\"']\{0,1\}"
  project=$(sed -n "s/^[[:space:]{]*${quote}project$quote:[[:space:]]*$quote\([A-Za-z0-9_.-]*\).*/\1/p" "$INPUT_FILE" | head -n 1)
  sorted=$(printf '%s\n' "${environments[@]}" | LC_ALL=C sort -u | paste -sd + -)
  output marker "<!-- polar-iac:$project:$sorted -->"
  exit "$code"
fi

output refused "$([[ $code == 5 ]] && echo true || echo false)"
output marker "$(marker_of "$reports/comment.md")"
output report "$reports/comment.md"
output plans "$reports/{env}.json"
# `digest` is what the action apply takes: bare for one environment, else one for each.
"$python" -I - "$reports" "${environments[@]}" >>"$GITHUB_OUTPUT" <<'PYTHON'
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
