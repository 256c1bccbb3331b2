# shellcheck shell=bash disable=SC2034
# common.sh - what the scripts share: where things lie, and how they speak. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/jang

# fail TEXT: says why and ends.
fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

# check_sha256 FILE SUM: whether the file is there and has this checksum.
check_sha256() {
    local sum
    [ -f "$1" ] || return 1
    if command -v sha256sum >/dev/null; then
        sum=$(sha256sum "$1")
    else
        sum=$(shasum -a 256 "$1")
    fi
    [ "${sum%% *}" = "$2" ]
}
