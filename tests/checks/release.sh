#!/usr/bin/env bash
# Whether galaxy.yml's version can be released: its changelog can be made, and all that users get can be built and passes.
set -euo pipefail

run=$PWD/tests/checks/run.sh
version=$(python -c 'import yaml; print(yaml.safe_load(open("galaxy.yml"))["version"])')

if ! compgen -G "changelogs/fragments/*.yml" >/dev/null; then
    echo "make: there is nothing to release: changelogs/fragments is empty" >&2
    exit 1
fi
python - "$version" <<'CHECK'
import sys
import semantic_version
import yaml

version = sys.argv[1]
releases = yaml.safe_load(open("changelogs/changelog.yaml"))["releases"] or {}
try:
    wanted = semantic_version.Version(version)
except ValueError:
    sys.exit(f"make: version {version} of galaxy.yml is no semantic version")
newer = [known for known in releases if semantic_version.Version(known) >= wanted]
if newer:
    sys.exit(f"make: version {version} of galaxy.yml is not newer than {max(newer, key=semantic_version.Version)}, which was released")
CHECK

# As the release will make it, in a copy.
copy=$PWD/.build/release
rm -rf "$copy"
mkdir -p "$copy/ansible_collections/fleetops/environments"
git ls-files -z | xargs -0 cp --parents -t "$copy/ansible_collections/fleetops/environments"
(
    cd "$copy/ansible_collections/fleetops/environments"
    ANSIBLE_COLLECTIONS_PATH=$copy "$run" "changelog" antsibull-changelog release --version "$version"
    grep -q "^v$version$" CHANGELOG.rst
)
tests/checks/artifact.sh
tests/checks/docs.sh
echo "Version $version can be released: $(grep -c '^- ' "$copy/ansible_collections/fleetops/environments/CHANGELOG.rst") changes"
