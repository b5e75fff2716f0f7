"""What the project says about itself: the make targets and paths that its pages name, its versions, its CI."""

from __future__ import annotations

import re
import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import semantic_version
import yaml

from tests.sandbox.process import CHECKOUT

PAGES = ["README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "docs/testing.md", "docs/releasing.md"]
LINKED = sorted({*PAGES, *(str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("docs/**/*.md"))})
GALAXY = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())
MAKEFILE = (CHECKOUT / "Makefile").read_text()
TARGETS = set(re.findall(r"[a-z][\w-]*", re.findall(r"^\.PHONY: (help .+)$", MAKEFILE, flags=re.MULTILINE)[0])) - {
    "linters"
}
LINTERS = set(re.findall(r"^(lint-[\w-]+): ", MAKEFILE, flags=re.MULTILINE))
# Paths on a page that no checkout has: they are generated, or stand for a name.
NOT_THERE = re.compile(r"^group/|^\.(venv|build|home)\b|NAME|VERSION")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PLACE = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:md|yml|yaml|txt|toml|rst))`")


def text_of(page: str) -> str:
    return (CHECKOUT / page).read_text()


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_a_make_target_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"(?:`|\$ )make ([a-z][a-z0-9-]*)", text_of(page)))

    assert named <= TARGETS | LINTERS


def test_every_target_is_in_makes_help() -> None:
    shown = set(re.findall(r"echo 'make ([\w-]+) ", MAKEFILE))

    assert shown == TARGETS - {"help", "home", "chromium", "shells", "openssh", "postgresql"}


@pytest.mark.parametrize("page", PAGES)
def test_a_path_that_a_page_names_exists(page: str) -> None:
    for place in PLACE.findall(text_of(page)):
        if NOT_THERE.search(place):
            continue
        # Some pages name files beside them.
        assert (CHECKOUT / place).exists() or (CHECKOUT / page).parent.joinpath(place).exists(), place


@pytest.mark.parametrize("page", LINKED)
def test_a_link_leads_somewhere(page: str) -> None:
    for link in LINK.findall(text_of(page)):
        own = link.removeprefix(f"{GALAXY['repository']}/blob/main/")
        if own == link and "://" in link:
            continue
        path, _hash, anchor = own.partition("#")
        # An absolute link starts at the top of the repository.
        start = CHECKOUT if own != link else (CHECKOUT / page).parent
        found = start / path if path else CHECKOUT / page
        assert found.exists(), link
        assert not anchor or anchor in anchors(found), link


def test_the_links_of_the_readme_work_on_a_page_of_galaxy() -> None:
    """Galaxy shows only the README, so a link to a file of the repository has to be absolute."""
    assert [link for link in LINK.findall(text_of("README.md")) if not link.startswith(("https://", "#"))] == []


def test_pre_commit_runs_the_tools_of_make_lint() -> None:
    [repository] = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    listed = re.findall(r"^linters := (.+)$", MAKEFILE, flags=re.MULTILINE)

    assert repository["repo"] == "local"
    assert [f"make {name}" for name in listed[0].split()] == [hook["entry"] for hook in repository["hooks"]]
    assert set(listed[0].split()) == LINTERS


def _steps_of_ci() -> list[dict[str, Any]]:
    jobs = yaml.safe_load(text_of(".github/workflows/ci.yml"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_ci_runs_make_targets_and_installs_debian_packages_and_nothing_else() -> None:
    commands = [step["run"] for step in _steps_of_ci() if "run" in step]

    for command in commands:
        first, target, *_arguments = shlex.split(command)
        assert (first, target) == ("sudo", "apt-get") or (first == "make" and target in TARGETS), command
    assert {"make lint", "make sanity", "make test-unit", "make test-integration", "make test-e2e"} <= set(commands)


def test_ci_has_the_pythons_of_the_matrix() -> None:
    jobs = yaml.safe_load(text_of(".github/workflows/ci.yml"))["jobs"]
    [lines] = re.findall(r"\$\{PYTHONS:-([^}]+)\}", text_of("tests/checks/matrix.sh"))

    assert jobs["test"]["strategy"]["matrix"]["python"] == [line for line in lines.split() if "/" not in line]
    [oldest] = [line for line in lines.split() if "/" in line]
    assert f"make test-matrix PYTHONS={oldest}" in [step.get("run") for step in jobs["oldest"]["steps"]]
    assert f'requires_ansible: ">={oldest.partition("/")[2]}"' in text_of("meta/runtime.yml")


def test_the_changelog_is_of_no_newer_version_than_the_collection() -> None:
    releases = yaml.safe_load(text_of("changelogs/changelog.yaml"))["releases"]
    versions = sorted(map(semantic_version.Version, releases), reverse=True)

    assert versions[0] <= semantic_version.Version(GALAXY["version"])
    assert re.findall(r"^v(\S+)\n=+$", text_of("CHANGELOG.rst"), flags=re.MULTILINE) == [*map(str, versions)]


def test_files_that_only_a_checkout_needs_are_not_in_the_collection() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    hidden = {match[1] for match in re.finditer(r"^((?:.*/)?\.[^/\n]+)", tracked, flags=re.MULTILINE)}

    assert hidden
    # As in ansible-galaxy: a pattern matches the whole path, and `*` also matches slashes.
    assert [
        path for path in sorted(hidden) if not any(fnmatch(path, pattern) for pattern in GALAXY["build_ignore"])
    ] == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("ansible.cfg", "inject_facts_as_vars = false"),
        ("docs/guide/first-fleet.md", "inject_facts_as_vars = false"),
        ("docs/guide/modules.md", "inject_facts_as_vars = false"),
        ("examples/awx/project/ansible.cfg", "inject_facts_as_vars = false"),
        ("examples/execution-environment/execution-environment.yml", "ANSIBLE_INJECT_FACT_VARS=false"),
        ("examples/schedulers/ci-workflow.yml", 'ANSIBLE_INJECT_FACT_VARS: "false"'),
        ("examples/schedulers/fleetops-run", "ANSIBLE_INJECT_FACT_VARS:-false"),
        ("extensions/molecule/config.yml", "inject_facts_as_vars: false"),
    ],
)
def test_a_configuration_keeps_facts_apart_and_says_what_roles_read_then(path: str, line: str) -> None:
    before, found, _after = text_of(path).partition(line)

    assert found
    assert "ansible_facts.os_family" in before.rpartition("\n\n")[2]
