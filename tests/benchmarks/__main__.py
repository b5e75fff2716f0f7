"""The cost of the collection, and whether the goals are met: ``make bench``.

Without ``--only`` everything is measured and the tables go into docs/performance.md; otherwise they are only shown.
The exit code is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from . import campaign, connection, fan_out, growth, inventory, play, refresh
from .harness import Comparison, Growth, Scale, say
from .network import CHECKOUT
from .report import circumstances, goals_table, growth_table, replace_table

DOCUMENT = CHECKOUT / "docs/performance.md"
COMPARED: dict[str, Callable[[Scale, Path], list[Comparison]]] = {
    "inventory": inventory.run,
    "refresh": refresh.run,
    "play": play.run,
    "fan_out": fan_out.run,
    "campaign": campaign.run,
    "connection": connection.run,
}
NAMES = (*COMPARED, "growth")
FEWEST_RUNS = 5


def main(arguments: Sequence[str] | None = None, document: Path = DOCUMENT) -> int:
    """Measure the selected subjects, show the figures, and name the missed goals."""
    options = _parser().parse_args(arguments)
    names = options.only or NAMES
    scale = replace(Scale(), runs=options.runs, **({"growth": options.size} if options.size else {}))
    build = CHECKOUT / ".build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build, prefix="bench-") as directory:
        comparisons, grown = measure_subjects(names, scale, Path(directory))
    tables = {
        "measurements": f"{circumstances(scale.runs)}\n\n{goals_table(comparisons)}" if comparisons else "",
        "growth": growth_table(grown) if grown else "",
    }
    print("\n\n".join(text for text in tables.values() if text))
    if not options.only and not options.size and scale.runs >= FEWEST_RUNS:
        text = document.read_text()
        for name, replacement in tables.items():
            text = replace_table(text, name, replacement)
        document.write_text(text)
    return verdict(comparisons)


def measure_subjects(names: Sequence[str], scale: Scale, directory: Path) -> tuple[list[Comparison], list[Growth]]:
    """The rows of both tables; each subject has its own directory."""
    comparisons: list[Comparison] = []
    grown: list[Growth] = []
    for name in names:
        say(name)
        own = directory / name
        own.mkdir()
        if name in COMPARED:
            comparisons += COMPARED[name](scale, own)
        else:
            grown += growth.run(scale, own)
    return comparisons, grown


def verdict(comparisons: Sequence[Comparison]) -> int:
    """Return the exit code; print a line for each missed goal."""
    missed = [comparison.missed() for comparison in comparisons if not comparison.is_met]
    for line in missed:
        print(line, file=sys.stderr)
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, help="measure this alone; may be given several times")
    parser.add_argument("--runs", type=int, default=FEWEST_RUNS, metavar="N", help="of each thing (default 5)")
    parser.add_argument(
        "--size", action="append", type=int, metavar="N", help="of growth, instead of 100 to 50,000 environments"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
