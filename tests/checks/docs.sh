#!/usr/bin/env bash
# Builds the pages of all plugins, modules and roles from their own documentation, into .build/docs/html.
set -euo pipefail

venv=$PWD/.build/docs-venv docs=$PWD/.build/docs
if [[ ! -e $venv/.ready || tests/docs.txt -nt $venv/.ready ]]; then
    rm -rf "$venv"
    python -m venv "$venv"
    tests/checks/run.sh "pip install docs" "$venv/bin/python" -m pip install --disable-pip-version-check \
        -r requirements.txt -r tests/docs.txt
    touch "$venv/.ready"
fi
export PATH=$venv/bin:$PATH
rm -rf "$docs"
mkdir -p "$docs/rst"
chmod 755 "$docs/rst"
tests/checks/run.sh "antsibull-docs pages" antsibull-docs collection --use-current --fail-on-error --squash-hierarchy \
    --dest-dir "$docs/rst" fleetops.environments
cat >"$docs/conf.py" <<'CONF'
project = "fleetops.environments"
extensions = ["sphinx_antsibull_ext"]
html_theme = "sphinx_ansible_theme"
html_show_copyright = False
nitpicky = False
CONF
tests/checks/run.sh "sphinx" sphinx-build -q -c "$docs" "$docs/rst" "$docs/html"
echo "The pages are in .build/docs/html"
