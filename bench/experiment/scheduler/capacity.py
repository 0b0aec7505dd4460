"""How many processes a study may use on this machine."""

from pathlib import Path

from bench.system import accelerators, cgroups
from bench.system.hardware import usable_cpus

BYTES_OF_A_PROCESS = 1.5e9  # torch, mlflow, a small model and its optimizer
BYTES_OF_A_PIXEL = 3200  # of a training batch: a ViT-B or a ConvNeXt-B, what the backward pass needs of it


def choose_count(wish: int | None, device: str, jobs: int, pixels: int, groups: Path = cgroups.GROUPS) -> int:
    """Return how many processes to use: the wish, or on a CPU as many as cores, memory and jobs allow.

    On a GPU it is one, unless the user wishes for more and it is known that they can share it.

    Args:
        wish: of the user; None leaves it to this function.
        device: the user's; `auto` is a GPU if there is one.
        jobs: how many there are to do side by side.
        pixels: in a training batch.
        groups: where the limits of control groups are.
    """
    on_gpu = device.startswith("cuda") or (device == "auto" and accelerators.may_have_gpu())
    if on_gpu and (wish is None or accelerators.why_not_shared()):
        return 1
    if wish is not None:
        return max(1, min(wish, jobs))
    import psutil

    each = BYTES_OF_A_PROCESS + BYTES_OF_A_PIXEL * pixels
    free = min(psutil.virtual_memory().available, cgroups.free_memory(groups))
    return max(1, min(usable_cpus(groups), int(free // each), jobs))
