#!/usr/bin/env bash
# Checks the collection as users get it: built, and installed alone.
set -euo pipefail

run=$PWD/tests/checks/run.sh
root=$PWD/.build/artifact
collection=$root/ansible_collections/fleetops/environments
version=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# ansible-test fetches a get-pip.py from outside for its virtual environments. Python brings a pip: use that.
pip=$(python -c '
import sys, types
from ansible_test._internal.python_requirements import get_venv_packages
print(get_venv_packages(types.SimpleNamespace(version=sys.argv[1]))["pip"])' "$version")
mkdir -p "$HOME/.ansible/test/cache"
printf 'import ensurepip\n\nensurepip.bootstrap()\n' >"$HOME/.ansible/test/cache/get_pip_${pip//./_}.py"

# No tool may treat the copy as part of the checkout around it, where it is ignored and so appears empty.
export ANSIBLE_COLLECTIONS_PATH=$root ANSIBLE_TEST_CONTENT_ROOT=$collection GIT_CEILING_DIRECTORIES=$root

rm -rf "$root"
mkdir -p "$root"
"$run" "collection build" ansible-galaxy collection build --output-path "$root"
artifact=$(echo "$root"/*.tar.gz)
"$run" "collection install" ansible-galaxy collection install --offline --no-deps -p "$root" "$artifact"

failed=0
cd "$root"
# It ends its own ansible-lint after three minutes, which is too short on a busy machine.
GALAXY_IMPORTER_RUN_ANSIBLE_LINT=false REJECT="^(WARNING|ERROR|CRITICAL)" \
    "$run" "galaxy-importer" python -m galaxy_importer.main "$artifact" || failed=1
cd "$collection"
"$run" "ansible-lint artifact" ansible-lint --nocolor --profile production --offline || failed=1
"$run" "antsibull-docs" antsibull-docs lint-collection-docs --plugin-docs . || failed=1
REJECT="All targets skipped|Required program" SHOW="^(ERROR|FATAL|WARNING: .*Required program|WARNING: (Unable|Reviewing))" \
    "$run" "ansible-test sanity" ansible-test sanity --color no --python "$version" || failed=1
exit "$failed"
