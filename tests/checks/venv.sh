#!/usr/bin/env bash
# Creates or updates .venv with the first suitable Python; PYTHON names another.
set -euo pipefail

venv=.venv

fail() {
    echo "make: $*" >&2
    exit 1
}

runs() { # a name on the PATH proves nothing: pyenv has shims for versions that are not switched on
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

choose() {
    local candidates=(python3 python3.13 python3.12 python3.11 python3.14) python found
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for python in "${candidates[@]}"; do
        if runs "$python"; then
            echo "$python"
            return
        fi
    done
    python=${candidates[0]}
    if found=$("$python" -V 2>&1); then
        found="$python is $found"
    else
        found="there is no $python that runs"
    fi
    fail "Python 3.11 or later is needed, and $found (make PYTHON=/path/to/python3 chooses another)"
}

need_venv_module() {
    local package
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        echo "Installing $package, which $1 lacks"
        export DEBIAN_FRONTEND=noninteractive
        if apt-get update -qq >/dev/null && apt-get install -y -qq "$package" >/dev/null; then
            "$1" -c 'import ensurepip, venv' 2>/dev/null && return
        fi
    fi
    fail "$1 has no venv and ensurepip modules (on Debian or Ubuntu: sudo apt-get install $package)"
}

if [[ -n ${PYTHON:-} ]] || ! runs "$venv/bin/python"; then
    python=$(choose)
    need_venv_module "$python"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
tests/checks/run.sh "pip install" "$venv/bin/python" -m pip install --disable-pip-version-check \
    -r requirements.txt -r tests/requirements.txt
touch "$venv/.ready"
