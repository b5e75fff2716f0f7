"""The collection in an execution environment: what ansible-builder makes of the real artifact, without an engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import CHECKOUT

EXAMPLE = CHECKOUT / "examples/execution-environment/execution-environment.yml"
ARTIFACT = "fleetops-environments.tar.gz"


def run(*command: str, cwd: Path, **env: str) -> str:
    """Run a program of the virtual environment; return its output."""
    program = str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run(
        [program, *command[1:]], cwd=cwd, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the example and the built collection beside it, as the first lines of the example require."""
    directory = tmp_path_factory.mktemp("execution-environment")
    run("ansible-galaxy", "collection", "build", "--output-path", str(directory), cwd=CHECKOUT)
    [built] = directory.glob("*.tar.gz")
    built.rename(directory / ARTIFACT)
    shutil.copy(EXAMPLE, directory)
    return directory


def install(workplace: Path, target: Path) -> Path:
    """Install from the context, as the build of the image does; return the directory of the collections."""
    files = workplace / "context/_build"
    run(
        "ansible-galaxy", "collection", "install", "--offline", "-r", "requirements.yml",
        "--collections-path", str(target), cwd=files, ANSIBLE_COLLECTIONS_PATH=str(target),
    )  # fmt: skip
    return target


def test_the_example_installs_the_collection_with_its_requirements(workplace: Path, tmp_path: Path) -> None:
    said = run("ansible-builder", "create", cwd=workplace)
    assert "Complete!" in said
    assert "outdated" not in said

    collections = install(workplace, tmp_path / "collections")

    found = yaml.safe_load(run("ansible-builder", "introspect", str(collections), cwd=workplace))
    required = (CHECKOUT / "requirements.txt").read_text().split()
    assert [line.partition(" #")[0].strip() for line in found["python"]] == required
    assert found["system"] == []
    # AWX refers to the plugins by name.
    listed = run(
        "ansible-doc", "--type", "inventory", "--list", "fleetops.environments",
        cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=str(collections),
    )  # fmt: skip
    assert {line.split()[0] for line in listed.splitlines()} == {
        "fleetops.environments.letta",
        "fleetops.environments.qoder",
    }
