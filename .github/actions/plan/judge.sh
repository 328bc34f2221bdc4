#!/usr/bin/env bash
# Fail the check where the merge would be followed by a failure, as far as the input fail-on says so.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

[[ $INPUT_FAIL_ON != never ]] || exit 0
if [[ $REFUSED == true ]]; then
  fail "apply would refuse this plan as a whole, and change nothing: the plan says what would permit it" 5
fi
if [[ $INPUT_FAIL_ON == blocked && -n $BLOCKED ]]; then
  fail "blocked: ${BLOCKED//'`'/}. apply would leave this undone and fail: the plan says why. (fail-on: refused lets it pass.)" 2
fi
