"""One message to 5,000 environments in one task, compared with scripts that do nothing else, and its memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .harness import AGENT, MEGABYTE, Comparison, Figures, Goal, Scale, Workplace, in_turn, less
from .network import start_network

CLIENTS = {
    "letta": ("`letta-client`'s async client", Goal("faster", 3)),
    "httpx": ("a bare `httpx.AsyncClient` loop", Goal("at most", 0.40)),
    "aiohttp": ("a bare `aiohttp` loop", Goal("at most", 4.5)),
}
PEAK = Goal("more", 100, "MB")


def task(concurrency: int, **options: Any) -> dict[str, Any]:
    """The task that sends to all hosts of the play; a short text, unless the options give another one."""
    what = {} if "content_file" in options else {"content": "hello"}
    # The scripts send in the default conversation, too: one request for each message.
    address = {"agent_id": AGENT, "conversation_id": "default"}
    targets = {**address, "targets": "{{ ansible_play_batch }}", "concurrency": concurrency}
    return {"fleetops.environments.send_message": {**what, **targets, **options}, "run_once": True}


def run(scale: Scale, directory: Path) -> list[Comparison]:
    """Seconds of the sending alone, on both sides: a play minus an empty one, a script minus one without messages."""
    with start_network(scale.targets, online=True) as network:
        work = Workplace(directory, network)
        connections = work.file("connections.json", json.dumps(network.connections()))
        empty = work.play("empty")
        fan_out = work.play("fan_out", task(scale.concurrency))
        long = work.play("long", task(scale.concurrency, content_file=work.file("long.txt", "x" * scale.long)))

        def bare(client: str, messages: int) -> Figures:
            command = ("python", "-m", "tests.benchmarks.bare", client, connections, str(messages))
            return work.sending(messages, lambda: work.measure(client, *command, str(scale.concurrency)))

        taken = in_turn(
            scale.runs,
            empty=lambda: work.playing(empty),
            fan_out=lambda: work.playing(fan_out, messages=scale.targets),
            **{f"{client} empty": lambda client=client: bare(client, 0) for client in CLIENTS},
            **{client: lambda client=client: bare(client, scale.targets) for client in CLIENTS},
        )
        # Measured once: sending this many long texts takes minutes, and memory hardly varies.
        taken |= in_turn(1, long=lambda: work.playing(long, messages=scale.targets))
    wall = {name: [figures.wall for figures in each] for name, each in taken.items()}
    peak = {name: [figures.peak for figures in each] for name, each in taken.items()}
    what = f"fan-out to {scale.targets:,} targets in one task"
    sending = less(wall["fan_out"], wall["empty"])
    return [
        *(
            Comparison(what, against, "s", sending, less(wall[client], wall[f"{client} empty"]), goal)
            for client, (against, goal) in CLIENTS.items()
        ),
        Comparison(what, "the empty play", "peak, MB", peak["fan_out"], peak["empty"], PEAK),
        Comparison(
            f"{what}, a text of {scale.long / MEGABYTE:g} MB",
            "the empty play",
            "peak, MB",
            peak["long"],
            peak["empty"],
            PEAK,
        ),
    ]
