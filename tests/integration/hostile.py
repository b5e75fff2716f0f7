"""Devices that describe themselves with harmful values."""

from __future__ import annotations

from typing import Any

from tests.sandbox.process import Sandbox

CODE = "lookup('ansible.builtin.pipe', 'touch PWNED')"
TEMPLATE = "{{ " + CODE + " }}"
NAMES = [
    "localhost", "LocalHost", "127.0.0.1", "::1", "all", "ungrouped", "_meta", "a:b", "a:22", "user@host",
    TEMPLATE, CODE, "{% for x in [1] %}{% endfor %}", "{# x #}", "../..", "..", ".", "/etc/passwd", "x" * 600,
    "nul\0byte", "\0", "🦊", "naïve", "\u202eevil", "", " ", "\n", "two\nlines", "-rf", "--list-hosts", "-",
    "twin", "twin", "TWIN", "mode_standard", "letta", "online", "version_0_34", "arch_x64", "builders", "all:!web",
    "a[0:9]", "web*", "~web.*", "!web1", "&web", "a,b", "@hosts", "$(touch PWNED)", "`touch PWNED`", "; touch PWNED",
    "<script>", "%s", "\\", "'\"", "null", "true", "0", "web1", "web", "site.example.com",
]  # fmt: skip
METADATA: dict[str, Any] = {
    "gitBranch": TEMPLATE,
    "workingDirectory": TEMPLATE,
    "os": TEMPLATE,
    "lettaCodeVersion": TEMPLATE,
    "nodeVersion": CODE,
    "supported_commands": [TEMPLATE, CODE, "init"],
    "self_update": {"supported": True, "writable": True, "manual_command": TEMPLATE, "install_path": CODE},
    "machine": {"architecture": "x64", TEMPLATE: {TEMPLATE: [TEMPLATE, {CODE: CODE}]}},
    TEMPLATE: TEMPLATE,
}


def become_hostile(sandbox: Sandbox) -> dict[str, str]:
    """Create a fleet of hostile devices only; return the name that each id has."""
    for entry in sandbox.fleet():
        sandbox.remove(entry["id"])
    fleet = {sandbox.add_environment(connectionName=name, metadata=METADATA)["id"]: name for name in NAMES}
    for identity, mode, branch in (("../..", TEMPLATE, CODE), (TEMPLATE, CODE, TEMPLATE), ("localhost", "a\0b", CODE)):
        row: dict[str, Any] = {"id": identity, "deviceId": TEMPLATE, "connectionName": "", "currentMode": mode}
        sandbox.add_environment(**row, metadata=METADATA | {"gitBranch": branch}, **{TEMPLATE: TEMPLATE})
        fleet[identity] = ""
    return fleet
