#!/usr/bin/env bash
# matrix.sh USER_HOME: sanity, unit and integration tests on every supported Python that is installed, each with its newest
# ansible-core, and on the oldest ansible-core. PYTHONS="3.12 3.11/2.19.0" selects fewer; missing Pythons are named.
set -euo pipefail

user_home=$1

find_python() { # a name on the PATH proves nothing: pyenv has shims for versions that are not switched on
    local candidate
    for candidate in "python$1" "$user_home/.pyenv/versions/$1".*/bin/"python$1" "/usr/bin/python$1"; do
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# One Python also runs modules on real devices: ansible-core versions call a connection plugin differently.
with_devices=3.13
devices=(tests/e2e/test_connection*.py tests/e2e/test_terminal.py)
# It runs campaigns and rollouts on PostgreSQL as well.
with_ledgers=(tests/integration/test_{send_campaign,campaign_control,campaign_slices,rollout}.py)

check() { # PYTHON[/CORE] EXECUTABLE: everything, in a virtual environment of its own
    local name=${1//\//-core-} tests=(tests/unit tests/integration) core_wanted=()
    local venv=$PWD/.build/matrix/$name
    [[ $1 != */* ]] || core_wanted=("ansible-core==${1#*/}")
    [[ $1 != "$with_devices" ]] || tests+=("${devices[@]}")
    [[ -x $venv/bin/python ]] || "$2" -m venv "$venv"
    tests/checks/run.sh "pip install $name" "$venv/bin/python" -m pip install --disable-pip-version-check --upgrade \
        --upgrade-strategy eager -r requirements.txt -r tests/requirements.txt "${core_wanted[@]}" || return
    export PATH=$venv/bin:$PATH
    core=$(python -c 'from ansible.release import __version__; print(__version__)')
    tests/checks/artifact.sh || return
    tests/checks/run.sh "pytest $name" python -m pytest --numprocesses 3 "${tests[@]}" || return
    [[ $1 == "$with_devices" ]] || return 0
    LEDGERS=postgresql tests/checks/run.sh "pytest $name postgresql" python -m pytest --numprocesses 3 "${with_ledgers[@]}"
}

failed=0
summary=()
for version in ${PYTHONS:-3.11/2.19.0 3.11 3.12 3.13}; do
    if ! python=$(find_python "${version%/*}"); then
        summary+=("absent  Python ${version%/*}")
        continue
    fi
    path=$PATH core="no ansible-core"
    what="sanity, unit and integration tests"
    [[ $version != "$with_devices" ]] || what+=", modules on real devices, and ledgers in PostgreSQL"
    if check "$version" "$python"; then
        summary+=("ok      Python ${version%/*}, ansible-core $core: $what")
    else
        summary+=("FAILED  Python ${version%/*}, ansible-core $core")
        failed=1
    fi
    PATH=$path
done
printf '%s\n' "${summary[@]}"
if [[ ${summary[*]} != *ansible-core* ]]; then
    echo "make: none of these is installed" >&2
    exit 1
fi
exit "$failed"
