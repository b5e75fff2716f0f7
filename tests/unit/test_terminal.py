"""What a terminal shows, told apart; the shell on the device has tests on real ones."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import become_loader, shell_loader
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils import terminal
from ansible_collections.fleetops.environments.plugins.plugin_utils.device import Prompts

MARK = "0123456789abcdef0123456789abcdef"
# What a user's shell may show before, and what runs beside ours at any time.
NOISE = st.text(alphabet="ab<> \r\n\x1b[0;31m" + MARK[:4], max_size=40)


def pieces(text: str, cuts: list[int]) -> list[str]:
    """A text cut at these places."""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


@given(before=NOISE, stdout=st.binary(max_size=300), cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_an_answer_is_the_same_however_it_is_cut(before: str, stdout: bytes, cuts: list[int]) -> None:
    encoded = terminal._encoded(stdout)
    shown = f"{before}<{MARK} out ->{encoded}<{MARK} err><{MARK} end 0>"

    marks, out, err = terminal._Marks(MARK), bytearray(), bytearray()
    answer = terminal._Answer(out.extend, err.extend)
    for piece in pieces(shown, cuts):
        for part in marks.split(piece):
            answer.take(part)

    assert (bytes(out), bytes(err), answer.status, answer.note) == (stdout, b"", "0", "-")


@pytest.mark.parametrize("encoded", ["aGk", "a\x1b[0m", "aGk=aGk=", "äöü="])
def test_what_is_no_base64_is_an_error_and_never_output(encoded: str) -> None:
    parts = terminal._Marks(MARK).split(f"<{MARK} out ->{encoded}<{MARK} err>")
    answer = terminal._Answer(bytearray().extend, bytearray().extend)

    def taken() -> None:
        for part in parts:
            answer.take(part)

    with pytest.raises(ValueError, match=r"."):
        taken()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_shell_on_the_device_is_one_line_that_shells_understand(shell: str) -> None:
    script = terminal._script()

    assert "\n" not in script
    subprocess.run([shell, "-n", "-c", script], check=True)


@pytest.mark.parametrize(
    ("permissions", "mode"),
    [("-rw-r--r--", 0o644), ("-rwsr-x--t", 0o751), ("-rw-------+", 0o600), ("lrwxrwxrwx", 0o777), ("", 0)],
)
def test_permissions_are_read_as_ls_shows_them(permissions: str, mode: int) -> None:
    assert terminal._mode(permissions) == mode


@pytest.fixture
def sudo() -> Any:
    """Ansible's own become plugin, with a password."""
    plugin = become_loader.get("sudo")
    plugin.set_options(direct={"become_pass": "open sesame"})
    plugin.build_become_command("id", shell_loader.get("sh"))
    return plugin


def test_the_password_goes_to_the_prompt_once(sudo: Any) -> None:
    prompts, prompt = Prompts(sudo), sudo.prompt.encode()

    assert prompts(b"") is None
    assert prompts(prompt) == b"open sesame\n"
    assert prompts(prompt) is None
    assert prompts(prompt + sudo.success.encode() + b"\n") == b""
    assert prompts.removed_from(prompt + b"err\n") == b"err\n"


def test_no_password_is_given_where_nobody_asks(sudo: Any) -> None:
    prompts = Prompts(sudo)

    assert prompts(sudo.success.encode() + b"\n") == b""
    assert prompts.removed_from(b"err\n") == b"err\n"


@pytest.mark.parametrize("after", [b"Sorry, try again.\n", b"\nNochmal:\nPROMPT"])
def test_a_second_prompt_means_that_the_password_is_wrong(sudo: Any, after: bytes) -> None:
    prompts, prompt = Prompts(sudo), sudo.prompt.encode()
    prompts(prompt)

    with pytest.raises(AnsibleError, match=r"^Incorrect sudo password, see become_pass$"):
        prompts(prompt + after.replace(b"PROMPT", prompt))
