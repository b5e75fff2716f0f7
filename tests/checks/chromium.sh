#!/usr/bin/env bash
# Sees to it that there is a Chromium for the tests of the report's page; CHROMIUM names another.
set -euo pipefail

for program in ${CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
    ! command -v "$program" >/dev/null || exit 0
done
if [[ -z ${CHROMIUM:-} && $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "Installing chromium, which the tests of the report's page open it with"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends chromium >/dev/null || true
    ! command -v chromium >/dev/null || exit 0
fi
echo "make: the tests of the report's page need ${CHROMIUM:-Chromium or Chrome}" \
    "(on Debian: sudo apt-get install chromium; elsewhere make CHROMIUM=/path/to/chromium)" >&2
exit 1
