"""What the machine has: its processor, and how much of it this process may use."""

import os
import platform
from pathlib import Path

from bench.core.errors import InputError
from bench.system import cgroups


def processor() -> str:
    """Return the model name as the system shows it; `platform.processor()` is empty on most Linuxes."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def usable_cpus(groups: Path = cgroups.GROUPS) -> int:
    """Return how many processors this process may use; in a container or a batch job fewer than there are.

    Args:
        groups: where the limits of control groups are.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(allowed, cgroups.processors(groups))))


def check_device(name: str) -> None:
    """Raise InputError unless a name is of a device: `auto`, `cpu`, `cuda` or `cuda:<number>`."""
    kind, _, number = name.partition(":")
    if name not in {"auto", "cpu", "cuda"} and not (kind == "cuda" and number.isdecimal()):
        raise InputError(f"unknown device '{name}'", "--device", "valid: auto, cpu, cuda, cuda:<number>")
