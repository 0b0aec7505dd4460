"""What a container or a batch system lets this process have: the limits of its control groups.

Neither the affinity nor the system's free memory shows them: with `docker run --cpus 2` a process sees all
processors, and is stopped for most of the time if it uses them.
"""

import math
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def processors(groups: Path = GROUPS, membership: Path = MEMBERSHIP) -> float:
    """Return how many processors' time this process may use; infinity if there is no limit."""
    limits = [math.inf]
    for folder in _folders("cpu", groups, membership):
        before = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
        quota, _, period = (_read(folder / "cpu.max") or before).partition(" ")
        if quota.isdecimal() and period.isdecimal():  # not `max`, and not -1
            limits.append(int(quota) / int(period))
    return min(limits)


def free_memory(groups: Path = GROUPS, membership: Path = MEMBERSHIP) -> float:
    """Return the bytes that this process may still take; infinity if there is no limit.

    What only repeats files is given back when it is needed.
    """
    free = [math.inf]
    for folder in _folders("memory", groups, membership):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        if limit.isdecimal() and used.isdecimal():
            statistics = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines())
            free.append(int(limit) - int(used) + int(statistics.get("inactive_file", 0)))
    return max(0, min(free))


def _folders(controller: str, groups: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders of the groups that this process is in, the innermost first, of version 2 or 1.

    A container sees its own group as the root, whatever its path is outside.
    """
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = groups / controller if controllers else groups
        inside = root / path.lstrip("/")
        yield from (folder for folder in (inside, *inside.parents) if folder.is_relative_to(root))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
