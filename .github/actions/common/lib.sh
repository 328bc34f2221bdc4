# What the scripts of the actions share; to be sourced. Inputs come as INPUT_… through the environment, so
# that none of them is ever part of a script. What the inputs mean, `polar-iac ci` knows.
# shellcheck shell=bash
set -euo pipefail

# shellcheck disable=SC2034  # these are for whoever sources this
python=$RUNNER_TEMP/polar-iac/bin/python
# shellcheck disable=SC2034
polar_iac=$RUNNER_TEMP/polar-iac/bin/polar-iac
# shellcheck disable=SC2034
checkout=$(cd -- "$GITHUB_ACTION_PATH/../../.." && pwd)

# fail MESSAGE, of one line
fail() {
  printf '::error title=polar-iac::%s\n' "$1" >&2
  exit 1
}
