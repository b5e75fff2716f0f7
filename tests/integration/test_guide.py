"""docs/guide: the files of each page are written, all of its commands run, and the output is what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn, ErrorTurn, LongTurn, ReplyTurn

from .conftest import CHECKOUT

GUIDE = CHECKOUT / "docs/guide"
INDEX, FIRST = "README.md", "first-fleet.md"
PAGES = sorted(page.name for page in GUIDE.glob("*.md"))
# Pages whose commands need real devices: tests/e2e/test_guide_devices.py.
ON_REAL_DEVICES = ("modules.md",)
AGENT, OTHER_AGENT = "agent-1234", "agent-5678"

# The guide keeps the default times, which real devices need.
SHORT_TIMES = {"self_update_soak": 0.3, "self_update_soak_grace": 60, "self_update_poll_interval": 0.2}
# Separates the output of a command, its exit code, and the output of the next one.
MARK = "\x1e"
# Newer releases of ansible-core print this about their own collection when they look up a role.
CORE_WARNING = re.compile(r"^\[WARNING\]: Collection at '\S+/ansible/_protomatter' does not have .+\n", re.MULTILINE)


@dataclass
class Command:
    """A command of a page, and its expected output lines."""

    text: str
    shown: list[str] = field(default_factory=list)


def _blocks(page: str) -> Iterator[tuple[str, str, str]]:
    """Language, text, and the preceding sentence of each code block of a page."""
    before = ""
    for token in MarkdownIt().parse((GUIDE / page).read_text(encoding="utf-8")):
        if token.type == "inline":
            before = token.content
        elif token.type in ("fence", "code_block"):
            yield token.info, token.content, before


def _files(page: str) -> dict[str, str]:
    """The files that a reader of a page writes: the sentence before each block other than a console names the file."""
    files: dict[str, str] = {}
    for language, text, before in _blocks(page):
        if language != "console":
            named = re.search(r"`([\w/-]+\.\w[\w.]*)`:$", before)
            assert named, f"{page}: which file is this, after {before!r}?\n{text}"
            assert named[1] not in files, f"{page}: {named[1]} is there twice"
            files[named[1]] = text
    return files


def _commands(page: str) -> list[Command]:
    commands: list[Command] = []
    for language, text, _before in _blocks(page):
        if language == "console":
            assert text.startswith("$ "), f"{page}: a console begins with a command:\n{text}"
            for line in text.splitlines():
                if line.startswith("$ "):
                    commands.append(Command(line.removeprefix("$ ")))
                elif commands[-1].text.endswith("\\") and not commands[-1].shown:
                    commands[-1].text += f"\n{line}"
                else:
                    commands[-1].shown.append(line)
    return commands


def _pattern(shown: list[str]) -> str:
    """A pattern for the lines shown: `...` matches any part of a line, or any lines if it stands alone."""
    lines = [line for line in shown if line.strip()]
    return "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else ".*".join(map(re.escape, line.rstrip().split("..."))) + r"\n"
        for line in lines
    )


def _plain(output: str) -> str:
    """An output without empty lines, trailing blanks, and the warning that is not from this collection."""
    said = CORE_WARNING.sub("", output)
    return "".join(f"{line.rstrip()}\n" for line in said.splitlines() if line.strip())


def _outputs(commands: list[Command], directory: Path, env: dict[str, str], typed: str) -> list[tuple[str, int]]:
    """Run commands in one shell; return the output and exit code of each."""
    script = "".join(f"{command.text}\ncode=$?; printf '{MARK}%s{MARK}' $code; (exit $code)\n" for command in commands)
    done = subprocess.run(
        ["bash", "-c", script], cwd=directory, env=env, input=typed,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    parts = done.stdout.split(MARK)
    assert len(parts) == 2 * len(commands) + 1, done.stdout
    return [(parts[at], int(parts[at + 1])) for at in range(0, len(parts) - 1, 2)]


def _replying(sandbox: Sandbox) -> None:
    sandbox.script(AGENT, then="None failed.")


def _failing(sandbox: Sandbox) -> None:
    """One message is refused; the fifth message that arrives begins a turn that fails."""
    refused = next(entry["id"] for entry in sandbox.fleet() if entry["name"] == "elm-0005")
    sandbox.add_fault("status", route="messages", target=refused, status=422, message="The agent is locked", times=1)
    sandbox.script(AGENT, *[ReplyTurn()] * 4, ErrorTurn(message="no credit"))


def _busy(sandbox: Sandbox) -> None:
    for agent in (AGENT, OTHER_AGENT):
        sandbox.script(agent, then=LongTurn(seconds=3600))


def _asking(sandbox: Sandbox) -> None:
    sandbox.script(AGENT, ApprovalTurn(tool_name="Bash", arguments={"command": "uptime"}))


# The setup of a page, if it differs from the usual one.
PREPARED: dict[str, Callable[[Sandbox], None]] = {
    "replies.md": _replying,
    "retrying.md": _failing,
    "stopping.md": _busy,
    "watching.md": _asking,
    "recipes.md": _replying,
}


@pytest.fixture(scope="module")
def ten() -> Iterator[Sandbox]:
    """The fleet that the guide describes."""
    with Sandbox.start(devices=10, seed=1, qoder_environments=4) as sandbox:
        yield sandbox


@pytest.fixture
def home(tmp_path: Path, ten: Sandbox) -> Path:
    ten.reset()
    # The tests may run in a container, where a ledger in an empty directory is a warning.
    (tmp_path / "home/.local/state/fleetops").mkdir(parents=True)
    (tmp_path / "home/.local/state/fleetops/another").touch()
    return tmp_path / "home"


def environment(home: Path, sandbox: Sandbox) -> dict[str, str]:
    """The environment of a user's shell, without the Ansible settings of the checkout."""
    ours = ("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_HOME")
    return {
        **{name: value for name, value in os.environ.items() if name not in ours},
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "ANSIBLE_NOCOLOR": "1",
        "LETTA_BASE_URL": sandbox.url,
        "LETTA_API_KEY": sandbox.api_key,
        "QODER_MANAGED_BASE_URL": sandbox.qoder.url,
        "QODER_ACCESS_TOKEN": sandbox.qoder.key,
    }


def install_checkout(home: Path) -> None:
    """Put this checkout where `ansible-galaxy` installs the collection."""
    place = home / ".ansible/collections/ansible_collections/fleetops"
    place.mkdir(parents=True)
    (place / "environments").symlink_to(CHECKOUT)


def _built(directory: Path, env: dict[str, str]) -> None:
    """Provide the collection as a file to install."""
    build = ["ansible-galaxy", "collection", "build", "--output-path", str(directory), str(CHECKOUT)]
    subprocess.run(build, env=env, check=True, capture_output=True)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in (INDEX, *ON_REAL_DEVICES)])
def test_the_commands_of_a_page_print_what_it_shows(page: str, home: Path, ten: Sandbox) -> None:
    directory = home / "fleet"
    directory.mkdir()
    env = environment(home, ten)
    if page == FIRST:
        _built(directory, env)
        del env["LETTA_API_KEY"]
    else:
        install_checkout(home)
    if page in PREPARED:
        PREPARED[page](ten)

    check_page(page, directory, env, typed=f"{ten.api_key}\n")


def check_page(page: str, directory: Path, env: dict[str, str], *, typed: str = "") -> None:
    """Write the files of a page after those of the first page, run its commands there, and compare the output."""
    for name, text in {**_files(FIRST), "group_vars/all.yml": yaml.safe_dump(SHORT_TIMES), **_files(page)}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    commands = _commands(page)
    assert commands
    outputs = _outputs(commands, directory, env, typed)

    looked_at = [command.text == "echo $?" for command in commands[1:]] + [False]
    for command, (output, code), code_is_shown in zip(commands, outputs, looked_at, strict=True):
        report = f"{page}: $ {command.text}\nexit code {code}\n{output}"
        assert code == 0 or code_is_shown, report
        assert "Traceback" not in output, report
        assert re.fullmatch(_pattern(command.shown), _plain(output)), "\n".join(
            [report, "does not print what is shown:", *command.shown]
        )


def test_the_index_names_every_page() -> None:
    linked = re.findall(r"\]\(([\w-]+\.md)\)", (GUIDE / INDEX).read_text(encoding="utf-8"))
    assert sorted(linked) == [page for page in PAGES if page != INDEX]
