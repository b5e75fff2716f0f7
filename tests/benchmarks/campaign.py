"""A fan-out with a ledger, compared with the same fan-out without one."""

from __future__ import annotations

from pathlib import Path

from .fan_out import task
from .harness import Comparison, Figures, Goal, Scale, Workplace, in_turn
from .network import start_network


def run(scale: Scale, directory: Path) -> list[Comparison]:
    """Seconds of the whole play; every run has a new ledger, so that no message was delivered earlier."""
    with start_network(scale.targets, online=True) as network:
        work = Workplace(directory, network)
        plain = work.play("plain", task(scale.concurrency))
        taken = in_turn(
            scale.runs,
            campaign=lambda: with_ledger(work, scale.targets, scale.concurrency),
            plain=lambda: work.playing(plain, messages=scale.targets),
        )
    wall = {name: [figures.wall for figures in each] for name, each in taken.items()}
    what = f"a campaign of {scale.targets:,} with the ledger"
    return [Comparison(what, "the same without", "s", wall["campaign"], wall["plain"], Goal("at most", 1.3))]


def with_ledger(work: Workplace, targets: int, concurrency: int) -> Figures:
    """A new campaign on a new ledger, so that every message is looked up first."""
    ledger = work.directory / "ledger.sqlite"
    for file in work.directory.glob(f"{ledger.name}*"):
        file.unlink()
    campaign = work.play("campaign", task(concurrency, campaign="benchmark", ledger=str(ledger)))
    return work.playing(campaign, messages=targets)
