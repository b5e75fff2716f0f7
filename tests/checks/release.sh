#!/usr/bin/env bash
# Checks that galaxy.yml's version can be released: its changelog is made, and all that users get builds and passes.
set -euo pipefail

version=$(python -c 'import yaml; print(yaml.safe_load(open("galaxy.yml"))["version"])')

if compgen -G "changelogs/fragments/*.yml" >/dev/null; then
    echo "make: there are fragments that are not in the changelog: run make changelog" >&2
    exit 1
fi
if [[ -n $(git tag --list "v$version") ]]; then
    echo "make: version $version is released: raise the version in galaxy.yml" >&2
    exit 1
fi
python - "$version" <<'CHECK'
import sys
import semantic_version
import yaml

version = sys.argv[1]
releases = yaml.safe_load(open("changelogs/changelog.yaml"))["releases"]
try:
    wanted = semantic_version.Version(version)
except ValueError:
    sys.exit(f"make: version {version} of galaxy.yml is no semantic version")
newest = max(releases, key=semantic_version.Version, default="none")
if newest != version:
    sys.exit(f"make: version {version} of galaxy.yml is not the newest of the changelog, which is {newest}")
CHECK

# The tool generates CHANGELOG.rst from changelogs/changelog.yaml: generate it again, in a copy.
copy=$PWD/.build/release
rm -rf "$copy"
mkdir -p "$copy/ansible_collections/fleetops/environments"
git ls-files -z | xargs -0 cp --parents -t "$copy/ansible_collections/fleetops/environments"
(
    run=$PWD/tests/checks/run.sh made=$PWD/CHANGELOG.rst
    cd "$copy/ansible_collections/fleetops/environments"
    ANSIBLE_COLLECTIONS_PATH=$copy "$run" "changelog" antsibull-changelog generate
    diff "$made" CHANGELOG.rst
)
tests/checks/artifact.sh
tests/checks/docs.sh
echo "Version $version can be released: $(grep -c '^- ' CHANGELOG.rst) changes"
