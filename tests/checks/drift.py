"""What the newest client and SDKs have that the collection does not know: `make drift`.

`python -m tests.checks.drift` installs the newest `letta`, `letta-client` and `qca-sdk` into .build/drift, which is
made anew each time. It prints each name that is not in drift.txt: fields of rows, parameters of requests, words of an
enumeration, commands and frames of a device. The exit code is 0 if there is none, 1 if there are some, and 2 if the
packages cannot be installed or read. `--accept` writes all names into drift.txt, once they have been looked at.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
KNOWN = Path(__file__).with_name("drift.txt")
PACKAGES = ("letta", "letta-client", "qca-sdk")
# The modules of each SDK whose names the collection uses. A new one that matches is new, too.
SDKS = {
    "letta-client": (
        "letta_client/types",
        (
            "environment_*.py", "conversation_create_params.py", "conversation_list_params.py",
            "conversation_cancel_params.py", "conversations/message_list_params.py", "agent_list_params.py",
            "agents/message_list_params.py", "agents/message_cancel_params.py", "agents/message_type.py",
            "agents/run.py", "stop_reason_type.py",
        ),
    ),
    "qca-sdk": (
        "qca/managed/types",
        (
            "environment.py", "environment_config_union.py", "environment_list_params.py",
            "environment_retrieve_params.py", "cloud_config_networking_union.py", "session.py",
            "session_create_params.py", "session_event*.py", "session_stream_event*.py",
            "user_message_event_params.py",
        ),
    ),
}  # fmt: skip
# The words of the device's own code: the name of the fact, and where it stands.
DEVICE_WORDS = {
    "mode": r'(?:\w+ === "\w+" \|\| )*\w+ === "acceptEdits"(?: \|\| \w+ === "\w+")*',
    "command": r"SUPPORTED_REMOTE_COMMANDS = \[[^\]]*\]",
    "frame": r'\btype(?: ===|:) "[a-z][a-z_]+"',
    "loop status": r'setTurnLoopStatus\([^()]*"[A-Z_]+"',
    "lifecycle message": r'createLifecycleMessageBase\("\w+"',
}


def read_module(source: str) -> Iterator[str]:
    """The fields of a module's classes under the names of the API, and the words that they may have."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            for field in (line for line in node.body if isinstance(line, ast.AnnAssign)):
                name = f"{node.name}.{_find_alias(field) or ast.unparse(field.target)}"
                yield name
                yield from (f"{name} = {word}" for word in _list_words(field.annotation))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from (f"{ast.unparse(node.target)} = {word}" for word in _list_words(node.value))


def _find_alias(field: ast.AnnAssign) -> str | None:
    calls = (node for node in ast.walk(field) if isinstance(node, ast.Call))
    keywords = (keyword for call in calls for keyword in call.keywords if keyword.arg == "alias")
    return next((ast.literal_eval(keyword.value) for keyword in keywords), None)


def _list_words(annotation: ast.expr) -> Iterator[str]:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
            yield from (str(leaf.value) for leaf in ast.walk(node.slice) if isinstance(leaf, ast.Constant))


def read_device(source: str) -> Iterator[str]:
    """The modes, commands, frames and states in the device's code; of its frames those of its WebSockets.

    Raises ValueError if a kind of word is not there at all, as the code then has another form.
    """
    sections = re.split(r"^// (src/\S+)$", source, flags=re.MULTILINE)
    named = zip(sections[1::2], sections[2::2], strict=True)
    sockets = "".join(text for name, text in named if name.startswith("src/websocket/"))
    for kind, place in DEVICE_WORDS.items():
        found = re.findall(place, sockets if kind == "frame" else source)
        if not found:
            raise ValueError(f"the device's code has no {kind} where one was; DEVICE_WORDS needs another expression")
        yield from (f"{kind} {word}" for text in found for word in re.findall(r'"([^"]*)"', text))


def read_installed(site: Path) -> set[str]:
    """Everything that the installed packages have, each as a line. Raises ValueError and OSError."""
    bundle = site / "letta_code/_payload/app/letta.js"
    facts = {f"letta: {word}" for word in read_device(bundle.read_text(encoding="utf-8"))}
    for package, (folder, patterns) in SDKS.items():
        for pattern in patterns:
            paths = sorted((site / folder).glob(pattern))
            if not paths:
                raise ValueError(f"{package} has no {folder}/{pattern} any more; SDKS needs another name")
            for path in paths:
                module = path.relative_to(site / folder).with_suffix("")
                facts |= {f"{package}: {module} {name}" for name in read_module(path.read_text(encoding="utf-8"))}
    return facts


def find_new(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The names that are not among the others, sorted."""
    return sorted(set(names) - set(others))


def read_known() -> list[str]:
    return [line for line in KNOWN.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def install(venv: Path) -> Path:
    """Install the newest packages into a virtual environment that is made anew; returns its site-packages."""
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, *PACKAGES], check=True)
    [site] = venv.glob("lib/python*/site-packages")
    return site


def main(arguments: list[str]) -> int:
    """Print what is new; the exit code is documented above."""
    try:
        site = install(CHECKOUT / ".build/drift")
        found = read_installed(site)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"drift: {error}", file=sys.stderr)
        return 2
    versions = sorted(path.name.removesuffix(".dist-info") for path in site.glob("*.dist-info"))
    print("Installed:", ", ".join(name for name in versions if not name.startswith(("pip-", "setuptools-"))))
    known = read_known()
    new, gone = find_new(found, known), find_new(known, found)
    for title, names in (("New", new), ("No longer there", gone)):
        if names:
            print(f"{title}:", *names, sep="\n  ")
    if "--accept" in arguments:
        KNOWN.write_text("".join([*_heading(), *(f"{name}\n" for name in sorted(found))]), encoding="utf-8")
        print(f"{KNOWN.relative_to(CHECKOUT)} has them now")
        return 0
    print(f"{len(new)} new names, {len(gone)} are no longer there")
    return 1 if new else 0


def _heading() -> list[str]:
    return ["# What of Letta's client and of both SDKs has been looked at; tests/checks/drift.py writes it.\n"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
