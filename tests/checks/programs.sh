#!/usr/bin/env bash
# Makes sure that the shells and the sudo are installed that devices have in the tests of the connection plugin.
set -euo pipefail

missing() {
    local program
    for program in zsh fish sudo busybox; do
        command -v "$program" >/dev/null || echo "$program"
    done
}

mapfile -t wanted < <(missing)
[[ ${#wanted[@]} -gt 0 ]] || exit 0
tests/checks/debian.sh "which devices have in the tests of the connection plugin" "${wanted[@]}" || true
[[ -n $(missing) ]] || exit 0
echo "make: the tests of the connection plugin need ${wanted[*]} (on Debian: sudo apt-get install ${wanted[*]})" >&2
exit 1
