#!/usr/bin/env bash
# Install polar-iac into a virtual environment of its own, once per job.
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

what=$(cd -- "$GITHUB_ACTION_PATH/../../.." && pwd)
if [[ -n $INPUT_VERSION ]]; then
  [[ $INPUT_VERSION =~ ^[0-9][0-9A-Za-z.+!-]*$ ]] || fail "version: $INPUT_VERSION is no version, write for example 0.1.0"
  what=polar-iac==$INPUT_VERSION
fi
# What it is, so that a step that asks for another version gets it.
stamp=$RUNNER_TEMP/polar-iac/installed
if [[ -x $polar_iac && -f $stamp && $(<"$stamp") == "$what" ]]; then
  echo "polar-iac is installed already."
  exit 0
fi
rm -rf -- "$RUNNER_TEMP/polar-iac"

# Isolated: what lies in the repository is no module of ours.
for candidate in python3 python; do
  if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    # What is half made must not be taken for installed.
    trap 'rm -rf -- "$RUNNER_TEMP/polar-iac"' ERR
    "$candidate" -I -m venv "$RUNNER_TEMP/polar-iac"
    "$python" -I -m pip install --quiet --disable-pip-version-check -- "$what"
    "$polar_iac" --version
    printf '%s\n' "$what" >"$stamp"
    exit 0
  fi
done
fail "polar-iac needs Python 3.11 or newer: add actions/setup-python before this step"
