#!/usr/bin/env bash
# Adds the fragments to CHANGELOG.rst and changelogs/changelog.yaml, under the version in galaxy.yml. Until that version is
# tagged, this can be repeated: new fragments are added to the existing ones.
set -euo pipefail

version=$(python -c 'import yaml; print(yaml.safe_load(open("galaxy.yml"))["version"])')

if [[ -n $(git tag --list "v$version") ]]; then
    echo "make: version $version is released: raise the version in galaxy.yml first" >&2
    exit 1
fi
if ! compgen -G "changelogs/fragments/*.yml" >/dev/null; then
    echo "make: changelogs/fragments is empty: there is nothing to take into the changelog" >&2
    exit 1
fi
tests/checks/run.sh "antsibull-changelog" antsibull-changelog lint
tests/checks/run.sh "changelog" antsibull-changelog release --version "$version" --update-existing --reload-plugins
