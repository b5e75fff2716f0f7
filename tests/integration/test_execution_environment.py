"""The collection in an execution environment: what ansible-builder makes of the real artifact, without an engine."""

from __future__ import annotations

import os
import re
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
    files = ("requirements.txt", "requirements-postgresql.txt")
    required = [line for file in files for line in (CHECKOUT / file).read_text().split()]
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


def test_the_containerfile_is_of_stages_and_files_that_are_there(workplace: Path) -> None:
    """As far as it shows without an engine: what each stage copies, and what the last one has."""
    run("ansible-builder", "create", "--output-filename", "Containerfile", cwd=workplace)
    lines = (workplace / "context/Containerfile").read_text().splitlines()
    stages: dict[str, list[str]] = {}
    for words in filter(None, map(str.split, lines)):
        if words[0] == "FROM":
            assert words[1] in {"$EE_BASE_IMAGE", *stages}
            stages[words[3]] = []
        elif stages:
            stages[[*stages][-1]].append(" ".join(words))
        if words[0] == "COPY":
            source = words[1].removeprefix("--from=")
            assert source in stages if source != words[1] else (workplace / "context" / source).exists()

    [image] = re.findall(r'^ARG EE_BASE_IMAGE="(.+)"$', "\n".join(lines), flags=re.MULTILINE)
    assert image == yaml.safe_load(EXAMPLE.read_text())["images"]["base_image"]["name"]
    assert [*stages] == ["base", "galaxy", "builder", "final"]
    for line in ("COPY --from=galaxy /usr/share/ansible /usr/share/ansible", "ENV ANSIBLE_INJECT_FACT_VARS=false"):
        assert line in stages["final"]
