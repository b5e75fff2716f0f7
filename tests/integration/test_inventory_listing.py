"""What an inventory source lists."""

from __future__ import annotations

from .conftest import Ansible


def test_a_source_with_nothing_but_the_plugin_lists_the_whole_fleet(ansible: Ansible) -> None:
    hosts = ansible.hosts()

    assert {host["letta_id"] for host in hosts.values()} == {row["id"] for row in ansible.sandbox.fleet()}
