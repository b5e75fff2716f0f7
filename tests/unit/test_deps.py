"""Without its packages the collection still imports, and says in one line what is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.sandbox.process import CHECKOUT

PACKAGES = ("aiohttp", "httpx", "jmespath", "pydantic", "semantic_version")

# Imports every module below plugins/ while the packages named in the arguments cannot be imported.
SCRIPT = """
import importlib, json, pathlib, sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
sys.path.insert(0, ".build/collections")
imported = []
for path in sorted(pathlib.Path("plugins").rglob("*.py")):
    module = ".".join(path.with_suffix("").parts)
    importlib.import_module(f"ansible_collections.fleetops.environments.{module}")
    imported.append(str(path))
from ansible_collections.fleetops.environments.plugins.module_utils import _deps, errors
message = None
try:
    _deps.require_packages()
except errors.FleetError as error:
    message = str(error)
print(json.dumps({"imported": imported, "message": message}))
"""


def imported_without(*packages: str) -> tuple[list[str], str | None]:
    """The modules that can be imported without these packages, and the error of `require`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *packages],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    return answer["imported"], answer["message"]


@pytest.mark.parametrize("packages", [*((package,) for package in PACKAGES), PACKAGES], ids="+".join)
def test_every_module_imports_and_one_line_names_the_packages_and_the_python(packages: tuple[str, ...]) -> None:
    imported, message = imported_without(*packages)

    assert imported == sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "plugins").rglob("*.py"))
    assert message == (
        f"missing Python package(s): {', '.join(packages)}; "
        f"install with: {sys.executable} -m pip install {' '.join(packages)}"
    )


def test_with_all_packages_there_is_no_error() -> None:
    assert imported_without()[1] is None


def test_the_packages_are_those_that_the_collection_requires() -> None:
    lines = (CHECKOUT / "requirements.txt").read_text().splitlines()

    assert sorted(line.split(">")[0] for line in lines if line and not line.startswith("#")) == sorted(PACKAGES)
