"""The common parts of all benchmarks: measure commands from outside, in turn, compare them, and check a goal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import yaml

from .network import CHECKOUT, Network

AGENT = "agent-1"
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Scale:
    """The size of the measurements.

    runs: of everything that is compared; growth is measured once for each size. listed: rows of a listing. hosts: of a
    play. targets, concurrency: of a fan-out. delay: seconds a request. long: bytes of a long text.
    """

    runs: int = 5
    listed: int = 10_000
    hosts: int = 300
    targets: int = 5_000
    concurrency: int = 20
    delay: float = 0.1
    long: int = MEGABYTE
    growth: Sequence[int] = (100, 1_000, 10_000, 50_000)


@dataclass(frozen=True)
class Figures:
    """The cost of a command. cpu, wall: seconds; peak: MB of its largest process. output: what it printed."""

    cpu: float
    wall: float
    peak: float
    output: Path


@dataclass(frozen=True)
class Goal:
    """The goal of a figure, compared with another figure of the same kind.

    at most: ours is at most this many times theirs. faster: theirs is at least this many times ours.
    more: ours is at most this much larger.
    """

    kind: Literal["at most", "faster", "more"]
    bound: float
    unit: str = ""

    def result(self, ours: float, theirs: float) -> float:
        """The figure that the goal limits."""
        return {
            "at most": lambda: ours / theirs,
            "faster": lambda: theirs / ours,
            "more": lambda: ours - theirs,
        }[self.kind]()

    def holds(self, result: float) -> bool:
        """Whether the goal is met."""
        return result >= self.bound if self.kind == "faster" else result <= self.bound

    def shown(self, result: float) -> str:
        """A result as text for the table."""
        return {
            "at most": f"{result:.2f}",
            "faster": f"{result:.1f} times faster",
            "more": f"{result:+.0f} {self.unit}",
        }[self.kind]

    def __str__(self) -> str:
        return {
            "at most": f"at most {self.bound:.2f}",
            "faster": f"at least {self.bound:g} times faster",
            "more": f"at most {self.bound:g} {self.unit} more",
        }[self.kind]


@dataclass(frozen=True)
class Comparison:
    """A row of the table: the same work done in two ways, each several times in turn. unit: of the compared figures."""

    work: str
    against: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    goal: Goal

    @property
    def result(self) -> float:
        """One median compared with the other."""
        return self.goal.result(median(self.ours), median(self.theirs))

    @property
    def is_met(self) -> bool:
        """Whether the goal is met; False if noise hides a difference of two figures."""
        return min(median(self.ours), median(self.theirs)) > 0 and self.goal.holds(self.result)

    def missed(self) -> str:
        """The line that names a missed goal."""
        return f"missed: {self.work}, against {self.against}: {self.goal.shown(self.result)}; the goal is {self.goal}"


@dataclass(frozen=True)
class Growth:
    """The cost of this many environments, in seconds and MB.

    listing, listing_cpu: `ansible-inventory --list`. fan_out, campaign: a play minus an empty one. peak: of the play
    with the fan-out, empty_peak: of the empty one.
    """

    environments: int
    listing: float
    listing_cpu: float
    fan_out: float
    campaign: float
    peak: float
    empty_peak: float


@dataclass(frozen=True)
class Workplace:
    """The directory of a benchmark's commands, and the network that they use."""

    directory: Path
    network: Network

    def source(self, name: str = "fleet.letta.yml", **options: Any) -> str:
        """Write an inventory source with these options."""
        return self.file(name, yaml.safe_dump({"plugin": "fleetops.environments.letta", **options}))

    def play(self, name: str, *tasks: Mapping[str, Any], **keywords: Any) -> str:
        """Write a playbook with one play that runs these tasks on all hosts."""
        play = {"hosts": "all", "gather_facts": False, **keywords, "tasks": [dict(task) for task in tasks]}
        return self.file(f"{name}.yml", yaml.safe_dump([play], sort_keys=False))

    def file(self, name: str, text: str) -> str:
        """Write a file; return its path."""
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def listing(self, source: str, **env: str) -> Figures:
        """`ansible-inventory --list` of a source."""
        return self.measure(Path(source).stem, "ansible-inventory", "-i", source, "--list", **env)

    def playing(self, playbook: str, *arguments: str, source: str | None = None, messages: int = 0) -> Figures:
        """`ansible-playbook`; RuntimeError unless this many messages reached as many environments."""
        source = source or self.source()
        name = Path(playbook).stem
        return self.sending(
            messages, lambda: self.measure(name, "ansible-playbook", "-i", source, playbook, *arguments)
        )

    def sending(self, messages: int, action: Callable[[], Figures]) -> Figures:
        """Measure a command that sends this many messages, and check that it did."""
        self.network.taken()
        figures = action()
        taken = self.network.taken()
        if taken != {"messages": messages, "connections": messages}:
            raise RuntimeError(f"{messages} messages should have reached as many environments, not {taken}")
        return figures

    def measure(self, name: str, *command: str, **env: str) -> Figures:
        """Run a command; RuntimeError with its output if it fails. name: of the files with its output."""
        figures, output, errors = (self.directory / f"{name}.{kind}" for kind in ("figures", "stdout", "stderr"))
        executable = str(Path(sys.executable).with_name(command[0]))
        with output.open("wb") as stdout, errors.open("wb") as stderr:
            done = subprocess.run(
                [sys.executable, "-I", str(Path(__file__).with_name("measured.py")), str(figures), executable,
                 *command[1:]],
                cwd=self.directory, env=self._environment(env), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                check=False,
            )  # fmt: skip
        if done.returncode:
            said = (output.read_text()[-2000:], errors.read_text()[-2000:])
            raise RuntimeError("\n".join([f"{' '.join(command)}: exit code {done.returncode}", *said]))
        cost = json.loads(figures.read_text())
        return Figures(cost["cpu"], cost["wall"], cost["peak"] / MEGABYTE, output)

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        return {
            **os.environ,
            "LETTA_BASE_URL": self.network.url,
            "LETTA_API_KEY": self.network.api_key,
            "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / '.build/collections'}",
            # Ansible waits for its workers; without that, neither their CPU nor their memory would count.
            "ANSIBLE_WORKER_SHUTDOWN_POLL_COUNT": "1000",
            "ANSIBLE_WORKER_SHUTDOWN_POLL_DELAY": "0.01",
            **env,
        }


def in_turn(runs: int, **actions: Callable[[], Figures]) -> dict[str, list[Figures]]:
    """Do all of the work this many times, one after the other, and every second round in the opposite order.

    So a change of the machine's speed during the measurement affects all of them.
    """
    taken: dict[str, list[Figures]] = {name: [] for name in actions}
    for number in range(runs):
        order = list(actions) if number % 2 == 0 else list(reversed(actions))
        for name in order:
            figures = actions[name]()
            taken[name].append(figures)
            say(f"  {name} {number + 1}/{runs}: {figures.wall:.2f} s, CPU {figures.cpu:.2f} s, {figures.peak:.0f} MB")
    return taken


def less(figures: Iterable[float], others: Iterable[float]) -> list[float]:
    """Figures minus the median of others: the extra cost of one over the other."""
    taken_off = median(others)
    return [figure - taken_off for figure in figures]


def say(line: str) -> None:
    """Show the progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()
