# What the scripts of the actions share; to be sourced. Inputs come as INPUT_… through the environment, so
# that none of them is ever part of a script.
# shellcheck shell=bash
set -euo pipefail

escaped() {
  local text=${1//'%'/%25}
  text=${text//$'\r'/%0D}
  printf '%s' "${text//$'\n'/%0A}"
}

error() {
  printf '::error title=polar-iac::%s\n' "$(escaped "$1")" >&2
}

notice() {
  printf '::notice title=polar-iac::%s\n' "$(escaped "$1")" >&2
}

# fail MESSAGE [CODE]
fail() {
  error "$1"
  exit "${2:-1}"
}

output() {
  printf '%s=%s\n' "$1" "$2" >>"$GITHUB_OUTPUT"
}

summarize() {
  printf '%s\n\n' "$1" >>"$GITHUB_STEP_SUMMARY"
}

# shellcheck disable=SC2034  # these are for whoever sources this
python=$RUNNER_TEMP/polar-iac/bin/python
# shellcheck disable=SC2034
polar_iac=$RUNNER_TEMP/polar-iac/bin/polar-iac
environments=()

# Set git's configuration through the environment, also for the git of other commands.
configure_git() {
  local count=${GIT_CONFIG_COUNT:-0}
  export "GIT_CONFIG_KEY_$count=$1" "GIT_CONFIG_VALUE_$count=$2" GIT_CONFIG_COUNT=$((count + 1))
}

# In a container's job the checkout belongs to another user, and git refuses to read it.
trust_checkout() {
  local directory
  directory=$(pwd -P)
  while [[ ! -e $directory/.git && $directory != / ]]; do
    directory=$(dirname -- "$directory")
  done
  [[ $directory == / ]] || configure_git safe.directory "$directory"
}

# Go where the manifest is, and check the inputs that all actions have.
enter() {
  command -v git >/dev/null || fail "there is no git on this runner: install it in a step before actions/checkout (GitHub's own runners have it)"
  cd -- "$GITHUB_WORKSPACE/$INPUT_WORKING_DIRECTORY" 2>/dev/null || fail "working-directory: there is no $INPUT_WORKING_DIRECTORY in the workspace: check out the repository first, or correct the input"
  trust_checkout
  [[ -f $INPUT_FILE ]] || fail "there is no $INPUT_FILE in ${INPUT_WORKING_DIRECTORY:-.}: check out the repository first, or set the inputs file and working-directory"
  local environment name prefix
  # The branch whose manifest is meant: the one that is merged into, or the one that this run is on.
  branch=${GITHUB_BASE_REF:-${MERGE_GROUP_BASE:-$GITHUB_REF}}
  branch=${branch#refs/heads/}
  read -r -d '' -a environments <<<"$INPUT_ENVIRONMENTS" || true
  ((${#environments[@]})) || fail "say which environments are meant, for example environments: sandbox"
  for environment in "${environments[@]}"; do
    case $environment in
      production | sandbox | local) ;;
      *) fail "environments: $environment is none of production, sandbox and local" ;;
    esac
  done
  case $INPUT_PERSIST in
    commit) state_branch='' ;;
    branch) state_branch=${INPUT_STATE_BRANCH:-polar-iac-state} ;;
    # One for each branch: an open pull request belongs to the branch that it is to be merged into.
    pull-request) state_branch=${INPUT_STATE_BRANCH:-polar-iac-lockfile-${branch//\//-}} ;;
    *) fail "persist: $INPUT_PERSIST is none of commit, branch and pull-request" ;;
  esac
  if [[ -n $state_branch ]]; then
    git check-ref-format --branch "$state_branch" >/dev/null || fail "state-branch: $state_branch is no name of a branch"
  fi
  name=$(basename -- "$INPUT_FILE")
  lockfile_stem=$(dirname -- "$INPUT_FILE")/${name%.*}
  prefix=$(git -C "$(dirname -- "$INPUT_FILE")" rev-parse --show-prefix) || fail "git cannot read the checkout, for the reason above: let actions/checkout make it in a step before this one"
  repository_stem=$prefix${name%.*}
  # shellcheck disable=SC2034
  repository_file=$prefix$name
}

# The lockfile of an environment, from here and from the top of the repository.
lockfile() {
  printf '%s.%s.lock.json' "$lockfile_stem" "$1"
}
in_repository() {
  printf '%s.%s.lock.json' "$repository_stem" "$1"
}

# Let git and gh use the token. It goes through the environment: arguments are seen by every process. The
# empty header first takes away the one that actions/checkout may have left: two of them are an error 400.
authenticate() {
  local server=${GITHUB_SERVER_URL:-https://github.com} basic
  export GIT_TERMINAL_PROMPT=0 GH_PROMPT_DISABLED=1 GH_HOST=${server#*://} GH_ENTERPRISE_TOKEN=${GH_TOKEN:-}
  [[ -n ${GH_TOKEN:-} ]] || return 0
  basic=$(printf 'x-access-token:%s' "$GH_TOKEN" | base64 | tr -d '\n')
  printf '::add-mask::%s\n' "$basic"
  configure_git "http.$server/.extraheader" ''
  configure_git "http.$server/.extraheader" "AUTHORIZATION: basic $basic"
}

# need_gh FOR [INSTEAD]
need_gh() {
  command -v gh >/dev/null || fail "there is no gh, GitHub's command line, on this runner, and $1 needs it: install it in a step before this one (GitHub's own runners have it)${2:-}"
}

# Ask GitHub's API. What it says against it is also kept, for `refused_by_github`.
ask_github() {
  local code=0
  gh api "$@" 2>"$RUNNER_TEMP/polar-iac-gh" || code=$?
  cat "$RUNNER_TEMP/polar-iac-gh" >&2
  return "$code"
}

# refused_by_github WHAT REMEDY: tell a token that may not from GitHub that does not answer.
refused_by_github() {
  local said
  said=$(tail -n 1 "$RUNNER_TEMP/polar-iac-gh")
  if [[ $said =~ HTTP\ 40[134]|not\ accessible|not\ permitted ]]; then
    error "GitHub refused $1 ($said). $2"
  else
    error "$1 failed, since GitHub did not answer as it should: ${said:-it said nothing}. Run the job again."
  fi
}

# Why this run has no token of Polar, and one of GitHub that can write nothing; empty if it has both.
without_secrets() {
  [[ -n $PULL_REQUEST ]] || return 0
  if [[ $HEAD_REPOSITORY != "$GITHUB_REPOSITORY" ]]; then
    printf 'This pull request comes from a fork'
  elif [[ $ACTOR == 'dependabot[bot]' ]]; then
    printf "This pull request is Dependabot's"
  fi
}

# Functions that are called in $(…) say themselves where they stop: `set -e` does not hold there.

# The commit that a branch of the remote stands on, fetched; nothing when there is no such branch.
remote_tip() {
  local code=0
  git ls-remote --quiet --exit-code origin "refs/heads/$1" >/dev/null || code=$?
  ((code != 2)) || return 0
  ((code == 0)) || return "$code"
  git fetch --quiet --no-tags origin "refs/heads/$1" || return
  git rev-parse FETCH_HEAD
}

# Go on to the tip of this run's branch, if only lockfiles were committed since: those commits are our own, of
# the environment before this one, say. Sets `tip`; code 1 when there is more that is new.
catch_up() {
  local head newer
  head=$(git rev-parse HEAD) || return
  tip=$(remote_tip "$branch") || return
  [[ $head != "$tip" ]] || return 0
  [[ -n $tip ]] || return 1
  git merge-base --is-ancestor "$head" "$tip" 2>/dev/null || return 1
  newer=$(git diff --name-only "$head" "$tip" -- ':(top,exclude,glob)**/*.lock.json') || return
  [[ -z $newer ]] || return 1
  git merge --quiet --ff-only "$tip"
}

# The number of the open pull request that brings lockfiles to the branch; nothing when there is none.
lockfile_pull_request() {
  need_gh "persist: pull-request"
  ask_github --method GET "repos/$GITHUB_REPOSITORY/pulls" -f state=open -f base="$branch" \
    -f head="${GITHUB_REPOSITORY%%/*}:$state_branch" --jq '.[0].number // empty' && return
  refused_by_github "the list of pull requests with lockfiles" "The job needs the permission pull-requests: read (to apply, pull-requests: write)."
  return 1
}

# The commit that has the lockfiles, apart from the branch; nothing when there is none (yet).
state_tip() {
  case $INPUT_PERSIST in
    commit) return 0 ;;
    pull-request)
      local number
      number=$(lockfile_pull_request) || return
      [[ -n $number ]] || return 0
      ;;
  esac
  remote_tip "$state_branch"
}

# Put the lockfiles of the state branch beside the manifest.
read_state() {
  local tip environment path
  tip=$(state_tip)
  [[ -n $tip ]] || return 0
  for environment in "${environments[@]}"; do
    path=$(in_repository "$environment")
    if git cat-file -e "$tip:$path" 2>/dev/null; then
      git cat-file blob "$tip:$path" >"$(lockfile "$environment")"
    fi
  done
}

# A part of a marker: nothing in it ends an HTML comment, and no two texts give the same.
encoded() {
  local LC_ALL=C text=$1 character index
  for ((index = 0; index < ${#text}; index++)); do
    character=${text:index:1}
    case $character in
      [A-Za-z0-9_./]) printf '%s' "$character" ;;
      *) printf ':%02x' "$(($(printf '%d' "'$character") & 255))" ;;
    esac
  done
}

# The hidden line by which a comment or an issue is found again. It needs neither the manifest, which may be
# gone, nor anything installed.
marker() {
  local path=$INPUT_WORKING_DIRECTORY/$INPUT_FILE names=()
  # `./eu/`, `eu` and `eu/.` are one directory.
  path=$(printf '/%s' "$path" | sed -e ':a' -e 's,/\./,/,;ta' -e 's,//*,/,g' -e 's,^/,,')
  read -r -d '' -a names <<<"$INPUT_ENVIRONMENTS" || true
  printf '<!-- polar-iac:%s:+%s -->' "$(encoded "$path")" \
    "$(encoded "$(printf '%s\n' ${names[@]+"${names[@]}"} | LC_ALL=C sort -u | paste -sd ' ' -)")"
}

# with_own_marker REPORT [MORE]: a report of polar-iac with the marker of these inputs in the place of its
# own, which is its last line.
with_own_marker() {
  sed '$d' "$1"
  [[ -z ${2:-} ]] || printf '%s\n\n' "$2"
  marker
  printf '\n'
}

# Of lines `number<TAB>last line of the text`, the first number whose text ends with the marker `$1`.
with_marker() {
  local number last found=''
  while IFS=$'\t' read -r number last; do
    if [[ -z $found && $last == "$1" ]]; then
      found=$number
    fi
  done
  printf '%s' "$found"
}

# `viewerDidAuthor` knows the bot by any token's name, and no one else can plant a marker.
# shellcheck disable=SC2034
own_and_last='select(.viewerDidAuthor) | [.number, (.body | gsub("\r"; "") | sub("\\s+$"; "") | split("\n") | last // "")] | join("\t")'
