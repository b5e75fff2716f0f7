#!/usr/bin/env bash
# programs.sh WHAT_FOR PROGRAM[=PACKAGE]...: makes sure that programs are installed; PACKAGE is Debian's name if it differs.
set -euo pipefail

what_for=$1
shift
PATH=$PATH:/usr/sbin

missing() { # the packages of the programs that are not there
    local program
    for program in "$@"; do
        command -v "${program%=*}" >/dev/null || echo "${program#*=}"
    done
}

mapfile -t wanted < <(missing "$@")
[[ ${#wanted[@]} -gt 0 ]] || exit 0
tests/checks/debian.sh "$what_for" "${wanted[@]}" || true
[[ -n $(missing "$@") ]] || exit 0
echo "make: ${wanted[*]} is missing, $what_for (on Debian: sudo apt-get install ${wanted[*]})" >&2
exit 1
