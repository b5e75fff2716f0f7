# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection plugin: commands and files over a terminal that Letta's relay carries."""

from __future__ import annotations

DOCUMENTATION = r"""
name: letta
short_description: Run any module on a Letta device, over Letta's relay
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Runs commands and copies files on devices that only dial out, over a terminal that Letta's relay carries. Modules,
    roles, C(become), C(async) and pipelining work as over SSH.
  - Nothing uses it until it is asked for. O(fleetops.environments.letta#inventory:connection=relay) of
    P(fleetops.environments.letta#inventory) sets C(ansible_connection) for its hosts, and the variable
    C(ansible_connection=fleetops.environments.letta) does so for any of them.
  - Commands run as the user who runs Letta Code there, with that user's environment, in the home directory and without
    a terminal. C(ansible_user) and the C(remote_user) of a play mean nothing here; use C(become).
  - A terminal is outside of what the agent's permission mode allows. Devices in another mode than C(unrestricted), or
    its older words C(bypassPermissions) and C(fullAccess), are therefore left alone, unless
    O(allow_outside_permission_mode) says otherwise. This and O(allow_connection) keep a run from doing what nobody
    meant. They do not keep out who holds the API key, with which a terminal can be had without Ansible.
  - POSIX systems with C(base64), C(head), C(mkfifo) and C(stty) only. The device's user may have bash, zsh, fish or a
    shell like C(sh), but not C(csh) or C(tcsh); commands are run by C(/bin/sh).
  - The output of a command is kept in files on the device until it ends, and so is its standard input. What a process
    that it leaves in the background prints is waited for until nothing has come for three seconds.
  - No fact of a host steers its connection. The variables of these options are as the operator sets them, also where a
    module on the device has returned a fact of the same name. C(set_fact) with C(cacheable) looks like such a fact in
    the next run. What else a device may return, such as C(ansible_stats), is Ansible's own to judge.
  - A device that is offline or does not answer is unreachable. The connection is tried again, a command is not. Where
    the connection ends in the middle of one, it is ended on the device, within 26 seconds where the device hears of
    nothing and 5 more where the command holds on, and its files are removed. As over SSH, one that C(become) has made
    another user's may go on.
options:
  environment:
    description:
      - What the inventory says of the host.
      - P(fleetops.environments.letta#inventory) sets this variable.
    type: raw
    vars:
      - name: fleetops_environment
  timeout:
    description:
      - Seconds to wait for a connection, for the device's shell to start, and for each sign of life of it. A device of
        which nothing is heard for longer is unreachable. A command that runs on quietly gives such signs.
    type: float
    default: 30
    env:
      - name: LETTA_TIMEOUT
    cli:
      - name: timeout
    vars:
      - name: letta_timeout
  relay_timeout:
    description:
      - Seconds in which the device must give its first answer over the relay. After that it is unreachable.
    type: float
    default: 10
    env:
      - name: LETTA_RELAY_TIMEOUT
    vars:
      - name: letta_relay_timeout
  allow_connection:
    description:
      - Whether anything may be run over this connection.
      - The environment variable E(LETTA_ALLOW_CONNECTION), set to V(false), forbids it whatever the variable says.
    type: bool
    default: true
    vars:
      - name: letta_allow_connection
  allow_outside_permission_mode:
    description: Whether commands run also on devices in whose mode the agent may not do all that a terminal can.
    type: bool
    default: false
    vars:
      - name: letta_allow_outside_permission_mode
  max_output:
    description:
      - Most megabytes that a command may print on standard output, and as many on standard error. A command that prints
        more is ended, and the task fails.
      - What a module returns is such an output, as the file that M(ansible.builtin.slurp) reads is.
    type: int
    default: 100
    vars:
      - name: letta_max_output
  max_file:
    description:
      - Most megabytes of a file that is copied from the device, as M(ansible.builtin.fetch) does. The task fails for a
        longer one, of which it leaves the beginning.
      - Files that are copied to the device have no limit.
    type: int
    default: 1000
    vars:
      - name: letta_max_file
extends_documentation_fragment:
  - fleetops.environments.letta.plugins
  - ansible.builtin.connection_pipelining
seealso:
  - plugin: fleetops.environments.letta
    plugin_type: inventory
"""

EXAMPLES = r"""
# fleet.letta.yml: an inventory whose hosts any module can be run on.
plugin: fleetops.environments.letta
connection: relay
filters:
  - effective_mode == 'unrestricted'

---
# group_vars/mode_standard.yml: nothing is ever run on these.
letta_allow_connection: false

---
# A play for any hosts of the inventory, without the option of its source.
- hosts: mode_unrestricted
  vars:
    ansible_connection: fleetops.environments.letta
  tasks:
    - ansible.builtin.setup:
    - ansible.builtin.package:
        name: ripgrep
      become: true
"""

import os
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.connection import ConnectionBase

from ..module_utils.errors import OptionError
from ..module_utils.options import SETTINGS_SPEC, drop_blanks
from ..plugin_utils.core_internals import read_connection_variables
from ..plugin_utils.options import forget_blank_environment

if TYPE_CHECKING:
    from ..plugin_utils.connection import Device

_FORBIDDEN_BY = "LETTA_ALLOW_CONNECTION"


class Connection(ConnectionBase):  # type: ignore[misc]
    """One WebSocket and one shell on the device for a task. The calls of the base connect first."""

    transport = "fleetops.environments.letta"
    has_pipelining = True
    # Commands have no terminal, so core refuses the become plugins that need one.
    has_tty = False

    _variables: dict[str, Any]
    _device: Device

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        """Read the options without blank ones, which Ansible would take for false or reject."""
        forget_blank_environment(f"LETTA_{name}".upper() for name in SETTINGS_SPEC)
        try:
            own = read_connection_variables(var_options or {}, (task_keys or {}).get("delegate_to"))
        except OptionError as error:
            raise AnsibleError(str(error)) from None
        self._variables = drop_blanks(own)
        # Core takes a task's keywords for options of the same names: its environment, and a time-out of 10 s.
        super().set_options(var_options=self._variables, direct=direct)

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        self._display.vvv(f"EXEC {to_text(cmd)}", host=self._host)
        become = self.become if sudoable and self.become and self.become.expect_prompt() else None
        return self._device.run(to_bytes(cmd), in_data or b"", become)

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        self._display.vvv(f"PUT {to_text(in_path)} TO {to_text(out_path)}", host=self._host)
        self._device.put(to_bytes(in_path), to_bytes(out_path))

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        self._display.vvv(f"FETCH {to_text(in_path)} TO {to_text(out_path)}", host=self._host)
        self._device.fetch(to_bytes(in_path), to_bytes(out_path))

    def close(self) -> None:
        if self._connected:
            self._connected = False
            self._device.close()

    def reset(self) -> None:
        """Connect again with the next command. Each task has its own connection anyway."""
        self.close()

    def _connect(self) -> Connection:
        if not self._connected:
            self._require_allowed()
            # Ansible imports this file in every worker, also for tasks that never connect.
            from ..plugin_utils.connection import Device  # noqa: PLC0415 - a hundred times what the rest takes

            self._display.vvv("ESTABLISH A SHELL OVER LETTA'S RELAY", host=self._host)
            self._device = Device(
                self.get_option("environment"),
                {**self._variables, "letta_timeout": self.get_option("timeout")},
                any_mode=self.get_option("allow_outside_permission_mode"),
                max_output=self.get_option("max_output"),
                max_file=self.get_option("max_file"),
            )
            self._device.open()
            self._connected = True
        return self

    def _require_allowed(self) -> None:
        value = os.environ.get(_FORBIDDEN_BY, "").strip()
        try:
            forbidden = bool(value) and not boolean(value)
        except TypeError:
            raise AnsibleError(f"{_FORBIDDEN_BY}: must be true or false, got {value!r}") from None
        if forbidden:
            raise AnsibleError(f"the environment variable {_FORBIDDEN_BY} forbids commands on devices")
        if not self.get_option("allow_connection"):
            raise AnsibleError("the variable letta_allow_connection forbids commands on this device")

    @property
    def _host(self) -> str:
        return str(self._play_context.remote_addr)
