#!/usr/bin/env bash
# Fail the check where an apply would be refused as a whole: the merge would be followed by a failure.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

if [[ $REFUSED == true ]]; then
  fail "apply would refuse this plan as a whole, and change nothing: the plan says what would permit it" 5
fi
