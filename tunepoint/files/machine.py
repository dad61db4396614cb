"""The part of the machine that this process may use."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SHARE_OF_CORES = "TUNEPOINT_PROCESSES"
"""Environment variable of one of several processes that share the cores: how many they are."""


def cores() -> int:
    """Return the number of processor cores that this process may use, at least one."""
    # Where the system can say so, a container or taskset leaves fewer than os.cpu_count().
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = os.environ.get(SHARE_OF_CORES, "")
    return max(1, usable // max(1, int(processes))) if processes.isdecimal() else usable


def free_memory() -> int | None:
    """Return the bytes of memory that a process may still take; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
