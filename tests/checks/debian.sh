#!/usr/bin/env bash
# debian.sh WHAT_FOR PACKAGE...: installs Debian packages, if that is possible; the exit code says whether it was tried.
set -euo pipefail

what_for=$1
shift
[[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || exit 1
echo "Installing $*, $what_for"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends "$@" >/dev/null || true
