#!/usr/bin/env bash
# Plan, and tell what someone changed at Polar from what only waits to be applied.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

enter
authenticate
catch_up || true # a re-run sees what was recorded since
read_state

reports=$(mktemp -d "$RUNNER_TEMP/polar-iac-drift.XXXXXX")
arguments=(plan --file "$INPUT_FILE" --detailed-exitcode)
arguments+=(--out "$reports/{env}.json" --report "markdown=$reports/plan.md")
for environment in "${environments[@]}"; do
  arguments+=(--env "$environment")
done

code=0
"$polar_iac" "${arguments[@]}" || code=$?
[[ -f $reports/plan.md ]] || exit "$code"
lockfiles=()
for environment in "${environments[@]}"; do
  [[ ! -f $reports/$environment.json ]] || lockfiles+=("$reports/$environment.json" "$(lockfile "$environment")")
done
drift=$("$python" -I "$GITHUB_ACTION_PATH/outside.py" "${lockfiles[@]}")
# A plan that apply would refuse shows drift as any other does.
case $code in
  0 | 2 | 5) code=0 ;;
  # Of an environment that could not be planned nobody knows, so no issue is closed.
  *) [[ $drift == true ]] || exit "$code" ;;
esac
output drift "$drift"
output report "$reports/plan.md"
exit "$code"
