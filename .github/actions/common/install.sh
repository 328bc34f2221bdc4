#!/usr/bin/env bash
# Install polar-iac into a virtual environment of its own, once per job.
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ -x $polar_iac ]]; then
  echo "polar-iac is installed already."
  exit 0
fi

what=$(cd -- "$GITHUB_ACTION_PATH/../../.." && pwd)
if [[ -n $INPUT_VERSION ]]; then
  [[ $INPUT_VERSION =~ ^[0-9][0-9A-Za-z.+!-]*$ ]] || fail "version: $INPUT_VERSION is no version, write for example 0.1.0"
  what=polar-iac==$INPUT_VERSION
fi
for candidate in python3 python; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    # What is half made must not be taken for installed.
    trap 'rm -rf -- "$RUNNER_TEMP/polar-iac"' ERR
    "$candidate" -m venv "$RUNNER_TEMP/polar-iac"
    "$python" -m pip install --quiet --disable-pip-version-check -- "$what"
    "$polar_iac" --version
    exit 0
  fi
done
fail "polar-iac needs Python 3.11 or newer: add actions/setup-python before this step"
