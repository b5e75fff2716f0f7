#!/usr/bin/env bash
# home.sh USER_HOME: gives the private HOME the user's pip configuration, which pip would not find there. ansible-test
# runs pip without the environment's PIP_* variables, so they become a file too.
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
