"""A message to each host of a play, compared with a task that does nothing and with Ansible's own way to send it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .harness import AGENT, Comparison, Goal, Scale, Workplace, in_turn
from .network import Network, start_network


def run(scale: Scale, directory: Path) -> list[Comparison]:
    """CPU against `debug`, wall time against `uri`, both of the whole play."""
    with start_network(scale.hosts, online=True) as network:
        work = Workplace(directory, network)
        # Ansible's own way sends in the default conversation, too: one request for each message.
        address = {"agent_id": AGENT, "conversation_id": "default"}
        message = work.play("message", {"fleetops.environments.send_message": {"content": "hello", **address}})
        debug = work.play("debug", {"ansible.builtin.debug": {"msg": "hello"}})
        uri = work.play("uri", by_uri(network), connection="local", vars=UNDISCOVERED)
        taken = in_turn(
            scale.runs,
            message=lambda: work.playing(message, messages=scale.hosts),
            debug=lambda: work.playing(debug),
            uri=lambda: work.playing(uri, messages=scale.hosts),
        )
    cpu = {name: [figures.cpu for figures in each] for name, each in taken.items()}
    wall = {name: [figures.wall for figures in each] for name, each in taken.items()}
    what = f"a play of `send_message` on {scale.hosts} hosts"
    return [
        Comparison(what, "the same play with `debug`", "CPU, s", cpu["message"], cpu["debug"], Goal("at most", 1.15)),
        Comparison(what, "`ansible.builtin.uri`", "s", wall["message"], wall["uri"], Goal("faster", 5)),
    ]


# Otherwise Ansible would search for it on each host.
UNDISCOVERED = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}


def by_uri(network: Network) -> dict[str, Any]:
    """The task that sends the same message over the same connections."""
    message = {"role": "user", "content": "hello", "client_message_id": "{{ ('hello ' ~ letta_id) | to_uuid }}"}
    return {
        "ansible.builtin.uri": {
            "url": f"{network.url}/v1/environments/{{{{ letta_connection_id }}}}/messages",
            "method": "POST",
            "headers": {"Authorization": f"Bearer {network.api_key}"},
            "body_format": "json",
            "body": {"agentId": AGENT, "messages": [message]},
        }
    }
