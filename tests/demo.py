# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job against the sandbox: list a fleet, instruct a group of it, and check that with what arrived.

``make demo`` runs this; ``make demo-devices`` has two real devices in the fleet.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.e2e.device import Device
from tests.sandbox.process import Sandbox

CHECKOUT = Path(__file__).resolve().parents[1]
PLAYBOOK = CHECKOUT / "playbooks" / "instruct.yml"
CONTENT = "Run the test suite and report what fails."
INVENTORY = """\
plugin: fleetops.environments.letta
"""


def main() -> int:
    """Run the demo in its own directory; exit code 0 if the report matches what arrived."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--real-devices", type=int, default=0, metavar="N", help="how many real devices join the fleet")
    real = [f"real-{number}" for number in range(1, parser.parse_args().real_devices + 1)]
    build = CHECKOUT / ".build"
    build.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=build, prefix="demo-") as directory,
        Sandbox.start(devices=20, seed=1) as sandbox,
        contextlib.ExitStack() as devices,
    ):
        for name in real:
            print(f"Starting a real device, {name}", flush=True)
            devices.enter_context(Device.start(sandbox, name, Path(directory) / name))
        (Path(directory) / "fleet.letta.yml").write_text(INVENTORY)
        print(
            f"A sandbox with 20 simulated devices listens at {sandbox.url}. fleet.letta.yml:\n\n{INVENTORY}", flush=True
        )
        sandbox.script("agent-demo", then="All tests pass.")
        return demonstrate(sandbox, Path(directory), real)


def demonstrate(sandbox: Sandbox, directory: Path, real: list[str]) -> int:
    """List the fleet and instruct a group of it: the real devices, if there are any, which then answer."""
    environment = {**os.environ, "LETTA_BASE_URL": sandbox.url, "LETTA_API_KEY": sandbox.api_key}
    if failed := run(["ansible-inventory", "-i", "fleet.letta.yml", "--graph"], directory, environment):
        return failed
    variables = {
        "instruct_hosts": ",".join(real) or "mode_standard",
        "instruct_content": CONTENT,
        "instruct_wait_for_reply": bool(real),
        "instruct_result_file": str(directory / "results.jsonl"),
        "letta_agent_id": "agent-demo",
    }
    play = ["ansible-playbook", "-i", "fleet.letta.yml", str(PLAYBOOK), "-e", json.dumps(variables)]
    failed = run(play, directory, environment)
    if real:
        reload = ["fleetops.environments.environment_command", "-a", "command=reload"]
        failed = (
            run(["ansible", "-i", "fleet.letta.yml", ",".join(real), "-m", *reload], directory, environment) or failed
        )
    if not (directory / "results.jsonl").exists():
        return failed or 1
    lines = (directory / "results.jsonl").read_text().splitlines()
    return compare([json.loads(line) for line in lines], sandbox.received(), failed)


def run(command: list[str], directory: Path, environment: dict[str, str]) -> int:
    """Show a command, run it with its output unchanged, and return its exit code."""
    print(f"$ {shlex.join(command)}", flush=True)
    code = subprocess.run(command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
    print(flush=True)
    return code


def compare(results: list[dict[str, Any]], received: dict[str, dict[str, Any]], failed: int) -> int:
    """Print one total; every instruction reported as sent must have arrived once, and no other."""
    reported = {(row["id"], row["client_message_id"]) for row in results if row["status"] == "sent"}
    arrived = [
        (id_, message["client_message_id"]) for id_, device in received.items() for message in device["messages"]
    ]
    print(
        f"{len(results)} hosts: {len(reported)} sent, {len(results) - len(reported)} not;"
        f" {len(arrived)} instructions arrived at {len(received)} devices"
    )
    posts = sum(device["posts"] for device in received.values())
    if failed or not reported or posts != len(reported) or len(arrived) != posts or set(arrived) != reported:
        print(f"DIFFERENT: playbook exit {failed}, only reported {reported - set(arrived)}, arrived {sorted(arrived)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
