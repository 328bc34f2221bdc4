#!/usr/bin/env bash
# Apply one environment after the other. What may be applied, and how, `polar-iac ci begin` says.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

# A cancelled run first ends what it has begun and records it. It is signaled once: a second signal would make it quit at once.
child=''
stop() {
  trap '' INT TERM
  [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
}
trap stop INT TERM
run() {
  local code=0
  "$@" </dev/null &
  child=$!
  wait "$child" || code=$?
  while kill -0 "$child" 2>/dev/null; do
    code=0
    wait "$child" || code=$?
  done
  child=''
  return "$code"
}

begun=$(mktemp -d "$RUNNER_TEMP/polar-iac-apply.XXXXXX")
run "$polar_iac" ci begin "$begun"
cd -- "$GITHUB_WORKSPACE/$INPUT_WORKING_DIRECTORY"
for file in "$begun"/*; do
  arguments=()
  while IFS= read -r -d '' word; do
    arguments+=("$word")
  done <"$file"
  code=0
  run "$polar_iac" "${arguments[@]}" || code=$?
  if ((code)); then
    "$polar_iac" ci stopped "${file##*-}" "$code"
    exit "$code"
  fi
done
