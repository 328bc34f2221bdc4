#!/usr/bin/env bash
# Put the plan into the pull request's one comment, or that there is none. The comment must not outlive its
# plan where nothing could be installed, so any Python runs it from the action's own checkout.
# shellcheck source=../common/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common/lib.sh"

program='import sys
if sys.version_info < (3, 7):
    sys.exit(79)
sys.path.insert(0, sys.argv[1])
from polar_iac.ci.comment import main
sys.exit(main())'
for candidate in python3 python "$python"; do
  [[ -n $(command -v "$candidate") ]] || continue
  # Isolated: what lies in the repository is no module of ours. And the checkout stays as it is.
  code=0
  "$candidate" -I -B -c "$program" "$checkout" || code=$?
  ((code == 79)) || exit "$code"
done
fail "there is no Python on this runner to comment with: add actions/setup-python before this step"
