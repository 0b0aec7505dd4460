"""What can be known of GPUs without torch, whose import takes seconds."""

import os
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from bench.core.errors import InputError
from bench.system.hardware import check_device

DEVICES = ("nvidiactl", "kfd", "dxg")  # of NVIDIA's driver, of ROCm, of Windows' subsystem for Linux
KERNEL = Path("/proc/sys/kernel/osrelease")


def may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """Say whether a driver shows a GPU that the installed torch could use."""
    return not _torch_version().endswith("+cpu") and any((devices / name).exists() for name in DEVICES)


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """Return the GPUs that a process started now would see, as `CUDA_VISIBLE_DEVICES` names them."""
    if not may_have_gpu(devices):
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    numbers = sorted(int(number) for d in devices.glob("nvidia*") if (number := d.name[6:]).isdecimal())
    return [str(place) for place, _ in enumerate(numbers)] or ["0"]


def check_wish(device: str) -> None:
    """Raise InputError, without torch, for a device that there can't be here; see `hardware.check_device`."""
    check_device(device)
    if device.startswith("cuda") and not may_have_gpu():
        remedy = "the installed torch can use no GPU of this machine; say cpu"
        raise InputError(f"there is no device {device}", "--device", remedy)


def why_not_shared(kernel: Path = KERNEL) -> str:
    """Return why several processes should not share a GPU here; empty where they may.

    On Windows' subsystem for Linux their memory is not kept apart, and under ROCm it is not known to be.
    """
    if "+rocm" in _torch_version():
        return "torch is built for ROCm"
    with suppress(OSError):
        if "microsoft" in kernel.read_text(encoding="utf-8").lower():
            return "this is Windows' subsystem for Linux"
    return ""


def _torch_version() -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version("torch")
    return ""
