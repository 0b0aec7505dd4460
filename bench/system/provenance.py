"""What a number was made with: versions, processor, memory, threads, device and git commit."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from bench.core.runs import Value
from bench.system.hardware import (
    processor,
    usable_cpus,
)

PACKAGES = {"bench": "transfer-bench"} | {
    name: name for name in ("torch", "torchvision", "timm", "optuna", "mlflow", "numpy")
}


def library_versions() -> dict[str, str]:
    """Return the version of each library that decides a number, and of bench, by name; those installed."""
    return {name: version for name, package in PACKAGES.items() if (version := _version(package))}


def describe(device: str = "", *, commit: bool = True) -> dict[str, Value]:
    """Return the environment as flat names and values.

    Args:
        device: `cpu`, `cuda`, `cuda:1`: adds what torch says of it (threads, instruction set, device's name).
            Empty: torch is asked only if it is imported already, because its import takes seconds.
        commit: whether the commit of the current folder belongs to it.

    Returns:
        Versions by package (those installed), `python`, `platform`, `processor`, `logical_cpus`,
        `usable_cpus`, `memory_bytes`, `git_commit` (if there is one), and torch's part.
    """
    found: dict[str, Value] = {**library_versions()}
    found |= {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "logical_cpus": os.cpu_count() or 1,
        "usable_cpus": usable_cpus(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    if commit and (found_commit := git_commit(Path.cwd())):
        found["git_commit"] = found_commit
    if device or "torch" in sys.modules:
        found |= _torch(device or "cpu")
    return found


@cache
def git_commit(folder: Path) -> str:
    """Return the commit checked out in a folder, with `-dirty` if tracked files differ, or `` if none.

    Reports in the folder may differ: a study writes them. The folder may be a stranger's, whose repository
    can name programs that git starts when it compares files: none of them is started. A file that only such
    a program could tell to be unchanged counts as changed.
    """
    try:
        commit = _git(folder, "rev-parse", "--verify", "HEAD").strip()
        names = _git(folder, "config", "--list", "--name-only", "-z").split("\0")
        filters = [name for name in names if name.startswith("filter.")]
        changed = _git(folder, *_COMPARE, off=filters)
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit yet
        return ""
    return f"{commit}-dirty" if changed else commit


_NO_FETCHING = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
_COMPARE = (
    *("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all"),
    *("--", ":/", ":(exclude)reports"),
)


def _git(folder: Path, *words: str, off: Sequence[str] = ()) -> str:
    """Return what git says, which starts neither hooks nor a file monitor and fetches nothing.

    Args:
        folder: of the repository, or in it.
        words: the command.
        off: settings to take for empty.
    """
    settings = {"core.fsmonitor": "false", "core.hooksPath": os.devnull, **dict.fromkeys(off, "")}
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", **_NO_FETCHING}
    first = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    environment["GIT_CONFIG_COUNT"] = str(first + len(settings))
    for number, (name, value) in enumerate(settings.items(), first):
        environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    folders = [
        entry for entry in os.get_exec_path() if Path(entry).is_absolute()
    ]  # none of the current folder
    git = shutil.which("git", path=os.pathsep.join(folders))
    if git is None:
        raise FileNotFoundError("git")
    command = [git, "-C", str(folder), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    return done.stdout


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _torch(device: str) -> dict[str, Value]:
    import torch

    found: dict[str, Value] = {
        "device": device,
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.device(device))
        found |= {
            "device_name": properties.name,
            "device_memory_bytes": properties.total_memory,
            "device_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda or "",
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn": torch.backends.cudnn.version() or 0,  # type: ignore[no-untyped-call]
        }
    return found
