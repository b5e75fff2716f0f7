"""Run a command, and write its cost to a file: ``measured.py FIGURES_FILE COMMAND [ARGUMENT ...]``.

A process of its own, since a child's peak of memory is at least that of the process that started it: this one is small.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> int:
    """Write ``{cpu, wall, peak}``, in seconds and bytes, and return the command's own exit code.

    CPU includes all processes that the command started and waited for; the peak is that of the largest process.
    """
    figures, *command = sys.argv[1:]
    started = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    _pid, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - started
    # Linux counts in units of 1,024 bytes, macOS in bytes.
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cost = {"cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "peak": peak}
    Path(figures).write_text(json.dumps(cost))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
