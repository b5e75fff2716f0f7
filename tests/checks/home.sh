#!/usr/bin/env bash
# home.sh USER_HOME: copies the user's pip configuration to the private HOME, where pip finds it. ansible-test
# runs pip without the environment's PIP_* variables, so they are also written to a file.
set -euo pipefail

mkdir -p "$HOME/.pip" "$HOME/.config/pip" "$TMPDIR"
rm -f "$HOME/.pip/pip.conf"
for config in "${PIP_CONFIG_FILE:-}" "$1/.config/pip/pip.conf" "$1/.pip/pip.conf" \
    "$1/Library/Application Support/pip/pip.conf"; do
    if [[ -f $config && ! $config -ef $HOME/.config/pip/pip.conf ]]; then
        ln -s "$config" "$HOME/.pip/pip.conf"
        break
    fi
done

umask 077
{
    echo "[global]"
    for name in $(compgen -e PIP_); do
        [[ $name == PIP_CONFIG_FILE || -z ${!name} ]] && continue
        echo "${name#PIP_} = ${!name//$'\n'/ }"
    done
} >"$HOME/.config/pip/pip.conf"
