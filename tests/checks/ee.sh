#!/usr/bin/env bash
# Builds the example of an execution environment with the current collection; TAG names the image.
set -euo pipefail

for engine in podman docker; do
    if "$engine" info >/dev/null 2>&1; then
        context=$PWD/.build/ee
        rm -rf "$context"
        mkdir -p "$context"
        ansible-galaxy collection build --force --output-path "$context" >/dev/null
        mv "$context"/fleetops-environments-*.tar.gz "$context/fleetops-environments.tar.gz"
        cp examples/execution-environment/execution-environment.yml "$context"
        cd "$context"
        exec ansible-builder build --container-runtime "$engine" --tag "${TAG:-fleetops-ee}" --verbosity 2
    fi
done
echo "make: an execution environment needs a container engine, and neither Podman nor Docker runs here" >&2
exit 1
