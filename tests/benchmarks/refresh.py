"""A refresh that knows where the pages begin, compared with a walk from page to page, with a slow API."""

from __future__ import annotations

import json
from pathlib import Path

from .harness import Comparison, Figures, Goal, Scale, Workplace, in_turn
from .network import start_network


def run(scale: Scale, directory: Path) -> list[Comparison]:
    """Seconds of the listing."""
    with start_network(scale.listed, delay=scale.delay) as network:
        work = Workplace(directory, network)
        starts = directory / "starts.json"

        def list_fleet(*, remembered: bool) -> Figures:
            if not remembered:
                starts.unlink(missing_ok=True)
            figures = work.measure("listed", "python", "-m", "tests.benchmarks.listed", str(starts))
            found = json.loads(figures.output.read_text())
            if found["rows"] != scale.listed:
                raise RuntimeError(f"{found['rows']} rows were listed, of {scale.listed}")
            return Figures(figures.cpu, found["seconds"], figures.peak, figures.output)

        list_fleet(remembered=False)
        taken = in_turn(
            scale.runs, refresh=lambda: list_fleet(remembered=True), walk=lambda: list_fleet(remembered=False)
        )
    wall = {name: [figures.wall for figures in each] for name, each in taken.items()}
    what = f"refresh of {scale.listed:,} rows, 100 a page, {scale.delay * 1000:g} ms a request"
    return [Comparison(what, "a plain walk", "s", wall["refresh"], wall["walk"], Goal("faster", 10))]
