"""How many processes a study may use on this machine."""

from pathlib import Path

from bench.system import accelerators, cgroups
from bench.system.hardware import usable_cpus

BYTES_OF_A_PROCESS = 1.5e9  # torch, mlflow, a small model and its optimizer
BYTES_OF_A_PIXEL = 3200  # of a training batch: a ViT-B or a ConvNeXt-B, what the backward pass needs of it


def bytes_of_a_process(pixels: int) -> float:
    """Return the memory that a process may take that trains on batches of so many pixels."""
    return BYTES_OF_A_PROCESS + BYTES_OF_A_PIXEL * pixels


def gpus_for(device: str) -> list[str]:
    """Return the GPUs that processes may be spread over; none where the user names one, or the CPU."""
    return accelerators.visible_gpus() if device in {"auto", "cuda"} else []


def choose_count(wish: int | None, device: str, jobs: int, pixels: int, groups: Path = cgroups.GROUPS) -> int:
    """Return how many processes to use: the wish, or on a CPU as many as cores, memory and jobs allow.

    On GPUs it is one for each that may be used, unless the user wishes for more and it is known that they can
    share one.

    Args:
        wish: of the user; None leaves it to this function.
        device: the user's; `auto` is a GPU if there is one.
        jobs: how many there are to do side by side.
        pixels: in a training batch.
        groups: where the limits of control groups are.
    """
    on_gpu = device.startswith("cuda") or (device == "auto" and accelerators.may_have_gpu())
    if on_gpu and (wish is None or accelerators.why_not_shared()):
        return max(1, min(len(gpus_for(device)), wish or jobs, jobs))
    if wish is not None:
        return max(1, min(wish, jobs))
    import psutil

    free = min(psutil.virtual_memory().available, cgroups.free_memory(groups))
    return max(1, min(usable_cpus(groups), int(free // bytes_of_a_process(pixels)), jobs))
