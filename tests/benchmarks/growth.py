"""The same work for ten, a hundred and five hundred times as many environments; each size is measured once."""

from __future__ import annotations

from pathlib import Path

from .campaign import with_ledger
from .fan_out import task
from .harness import Growth, Scale, Workplace, say
from .network import start_network


def run(scale: Scale, directory: Path) -> list[Growth]:
    """A row for each size."""
    return [measured(size, scale.concurrency, directory) for size in scale.growth]


def measured(size: int, concurrency: int, directory: Path) -> Growth:
    """The cost of this many environments."""
    with start_network(size, online=True) as network:
        work = Workplace(directory, network)
        listing = work.listing(work.source())
        empty = work.playing(work.play("empty"))
        fan_out = work.playing(work.play("fan_out", task(concurrency)), messages=size)
        campaign = with_ledger(work, size, concurrency)
    row = Growth(
        environments=size,
        listing=listing.wall,
        listing_cpu=listing.cpu,
        fan_out=fan_out.wall - empty.wall,
        campaign=campaign.wall - empty.wall,
        peak=fan_out.peak,
        empty_peak=empty.peak,
    )
    say(f"  {row}")
    return row
