#!/usr/bin/env bash
# Apply one environment after the other, on the tip of a branch only.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

enter
authenticate

[[ $GITHUB_REF == refs/heads/* ]] || fail "apply runs on a branch, after the merge; this run is on $GITHUB_REF" 5
[[ $state_branch != "$branch" ]] || fail "state-branch: $state_branch is the branch of the manifest: choose another name"

# A malformed digest or number is a mistake in the workflow: report it before anything is asked of Polar.
[[ $INPUT_MAX_CHANGES =~ ^[0-9]*$ ]] || fail "max-changes: $INPUT_MAX_CHANGES is no number of changes"
[[ $INPUT_DEADLINE =~ ^[0-9]*\.?[0-9]*$ ]] || fail "deadline: $INPUT_DEADLINE is no number of seconds"

# A re-run of an old job would roll billing back.
tip=''
if ! catch_up; then
  [[ -n $tip ]] || fail "refused: the branch $branch is gone, or the remote cannot be read" 5
  head=$(git rev-parse HEAD)
  fail "refused: ${head:0:12} is not the tip of $branch any more (${tip:0:12} is), and applying it could roll billing back to what it says.
Nothing was changed. The run of the newer commit applies; if there is none, start the workflow by hand on $branch." 5
fi
read_state

# The digest of an environment, from `DIGEST` or `sandbox=DIGEST production=DIGEST`.
digest_of() {
  local entry entries=()
  read -r -d '' -a entries <<<"$INPUT_DIGEST" || true
  for entry in ${entries[@]+"${entries[@]}"}; do
    if [[ $entry == "$1="?* || ($entry != *=* && ${#entries[@]} == 1 && ${#environments[@]} == 1) ]]; then
      entry=${entry#*=}
      [[ $entry =~ ^[0-9a-f]{32,64}$ ]] || fail "digest: $entry is not a digest: 32 to 64 hexadecimal digits, as the plan shows them"
      printf '%s' "$entry"
      return
    fi
  done
  fail "digest: there is none for $1 in \"$INPUT_DIGEST\": write $1=DIGEST, or leave the input away to apply without"
}
digests=()
for environment in "${environments[@]}"; do
  digest=''
  [[ -z $INPUT_DIGEST ]] || digest=$(digest_of "$environment") || exit
  digests+=("$digest")
done

# What the lockfiles were: the base of the merge when others have pushed.
base=$(mktemp -d "$RUNNER_TEMP/polar-iac-base.XXXXXX")
for environment in "${environments[@]}"; do
  cat -- "$(lockfile "$environment")" >"$base/$environment" 2>/dev/null || true
done
output base "$base"

# One audit record for each environment. No two artifacts of a workflow run have one name.
audit=$(mktemp -d "$RUNNER_TEMP/polar-iac-audit.XXXXXX")
output audit "$audit"
output artifact "polar-iac-audit-$(IFS=- && printf '%s' "${environments[*]}")-${audit##*.}"

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

for index in "${!environments[@]}"; do
  environment=${environments[index]}
  arguments=(apply --file "$INPUT_FILE" --env "$environment" --auto-approve --report "json=$audit/$environment.json")
  [[ -z ${digests[index]} ]] || arguments+=(--digest "${digests[index]}")
  # A saved plan says itself what was allowed.
  [[ $INPUT_ALLOW_ARCHIVE != true || -n $INPUT_PLAN ]] || arguments+=(--allow-archive)
  [[ -z $INPUT_MAX_CHANGES ]] || arguments+=(--max-changes "$INPUT_MAX_CHANGES")
  [[ -z $INPUT_DEADLINE ]] || arguments+=(--deadline "$INPUT_DEADLINE")
  [[ -z $INPUT_PLAN ]] || arguments+=(-- "${INPUT_PLAN//'{env}'/$environment}")
  code=0
  run "$polar_iac" "${arguments[@]}" || code=$?
  case $code in
    0) continue ;;
    4) message="$environment: what would be done now is not what was reviewed, so nothing was done. Run the whole workflow again: it plans afresh, for a new review." ;;
    5) message="$environment: refused before anything was changed; the log says what would permit it." ;;
    *) message="$environment: apply ended with $code; the log says what was done and what was not. What was done is recorded; applying again goes on from there." ;;
  esac
  error "$message"
  summarize "$message"
  if ((index + 1 < ${#environments[@]})); then
    message="Not applied, since $environment comes first: ${environments[*]:index + 1}."
    error "$message"
    summarize "$message"
  fi
  exit "$code"
done
