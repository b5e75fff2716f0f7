#!/usr/bin/env bash
# Creates .build/rulebook, the virtual environment of ansible-rulebook, and makes sure that there is a Java for it.
set -euo pipefail

if ! command -v java >/dev/null; then
    tests/checks/debian.sh "the Java runtime that ansible-rulebook needs" default-jre-headless || true
    if ! command -v java >/dev/null; then
        echo "make: the tests of the event source need Java 17 or later (on Debian: sudo apt-get install default-jre-headless)" >&2
        exit 1
    fi
fi
rm -rf .build/rulebook
python -m venv .build/rulebook
tests/checks/run.sh "pip install ansible-rulebook" .build/rulebook/bin/python -m pip install --disable-pip-version-check \
    -r requirements.txt -r tests/rulebook.txt
touch .build/rulebook/.ready
