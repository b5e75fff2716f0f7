"""The measurements as tables, and their place in the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from .harness import Comparison, Growth

PACKAGES = ("ansible-core", "aiohttp", "httpx", "psycopg", "letta-client")


def goals_table(comparisons: Iterable[Comparison]) -> str:
    """A row for each comparison: medians, with the smallest and the largest figure, and the goal."""
    rows = [
        {
            "work": row.work,
            "against": row.against,
            "figure": row.unit,
            "median": _spread(row.ours),
            "the other's median": _spread(row.theirs),
            "result": row.goal.shown(row.result),
            "goal": str(row.goal),
            "met": "yes" if row.is_met else "**no**",
        }
        for row in comparisons
    ]
    return table(rows)


def growth_table(grown: Iterable[Growth]) -> str:
    """A row for each size."""
    rows = [
        {
            "environments": f"{row.environments:,}",
            "`--list`, s": f"{row.listing:.1f}",
            "`--list`, CPU s": f"{row.listing_cpu:.1f}",
            "fan-out, s": f"{row.fan_out:.1f}",
            "campaign, s": f"{row.campaign:.1f}",
            "peak, MB": f"{row.peak:.0f}",
            "empty play's peak, MB": f"{row.empty_peak:.0f}",
        }
        for row in grown
    ]
    return table(rows)


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table of rows by column."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _spread(figures: Sequence[float]) -> str:
    digits = 0 if median(figures) >= 100 else 2
    smallest, middle, largest = (f"{figure:.{digits}f}" for figure in (min(figures), median(figures), max(figures)))
    return f"{middle} ({smallest} to {largest})"


def circumstances(runs: int) -> str:
    """The machine, the versions and the time."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GiB of memory, {platform.system()}"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC with {machine}; Python {platform.python_version()},"
        f" {versions}; medians of {runs} runs, with the smallest and the largest."
    )


def _processor() -> str:
    """The model of the processor, which `platform` does not know on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def replace_table(document: str, name: str, text: str) -> str:
    """A document with new text between the marks of that name. Raises ValueError unless each mark occurs once."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, _begin, rest = document.partition(begin)
    _old, _end, after = rest.partition(end)
    if document.count(begin) != 1 or rest.count(end) != 1:
        raise ValueError(f"the document needs {begin.strip()} and then {end.strip()}, each once")
    return f"{before}{begin}{text}\n{end}{after}"
