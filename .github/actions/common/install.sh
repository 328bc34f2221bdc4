#!/usr/bin/env bash
# Install polar-iac into a virtual environment of its own, once per job.
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ -x $polar_iac && -f $RUNNER_TEMP/polar-iac/installed ]]; then
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
    # Who pins the action pins all that is installed beside its token, what builds polar-iac included.
    "$python" -I -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
      --requirement "$checkout/.github/actions/common/requirements.txt"
    "$python" -I -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation \
      -- "$checkout"
    "$polar_iac" --version
    : >"$RUNNER_TEMP/polar-iac/installed"
    exit 0
  fi
done
fail "polar-iac needs Python 3.11 or newer: add actions/setup-python before this step"
