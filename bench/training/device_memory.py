"""A device's memory: whether it is full, how much a run took, and giving it back."""

import gc
import resource

import torch


def is_full(error: BaseException) -> bool:
    """Say whether an error is a device's, or the processor's, without room for an allocation."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def release(device: str) -> None:
    """Give back what a run that failed had allocated."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def reset_peak(device: str) -> None:
    """Begin a new measurement of the peak, where the device keeps one."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: str) -> int:
    """Return bytes: of the run on a GPU; on the CPU the peak of the whole process so far."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
