#!/usr/bin/env bash
# Makes sure that there is a Chromium for the tests of the report's page; CHROMIUM names another.
set -euo pipefail

for program in ${CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
    ! command -v "$program" >/dev/null || exit 0
done
if [[ -z ${CHROMIUM:-} ]] && tests/checks/debian.sh "which the tests of the report's page open it with" chromium; then
    ! command -v chromium >/dev/null || exit 0
fi
echo "make: the tests of the report's page need ${CHROMIUM:-Chromium or Chrome}" \
    "(on Debian: sudo apt-get install chromium; elsewhere make CHROMIUM=/path/to/chromium)" >&2
exit 1
