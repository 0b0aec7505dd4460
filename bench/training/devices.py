"""The device that a study computes on, and how torch is set up for it."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from bench.core.errors import InputError
from bench.system.hardware import check_device, usable_cpus

AMPERE = (8, 0)  # the first CUDA capability with bfloat16 and TF32


def choose_device(wish: str) -> str:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:<i>`; raise InputError if there is none such."""
    check_device(wish)
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wish == "auto":
        return "cuda:0" if available else "cpu"
    if wish == "cpu":
        return wish
    index = wish.partition(":")[2]
    if int(index or 0) >= available:
        raise InputError(f"there is no device {wish}; CUDA devices here: {available}", "--device", "use auto")
    return f"cuda:{index or 0}"


def each_on_a_thread(
    work: Callable[..., None],
    calls: Sequence[tuple[Any, ...]],
    device: str,
    note: Callable[[int], None] = lambda _count: None,
) -> None:
    """Call `work` with the arguments of each of `calls`, on a CPU several at a time with one thread each.

    `note` is told, in the caller's thread, how many of the first calls are done.

    Convolutions of small batches get more out of the cores so than each with all threads, and what a call
    gives depends neither on how many threads there are nor on how many calls.
    """
    threads = torch.get_num_threads()
    if device != "cpu" or threads == 1:
        for count, arguments in enumerate(calls, 1):
            work(*arguments)
            note(count)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for count, _ in enumerate(pool.map(lambda arguments: work(*arguments), calls), 1):
            note(count)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # some of it is one number for all


def configure(device: str, threads: int | None, *, deterministic: bool, full_precision: bool) -> None:
    """Set torch up for a device, once in a process.

    Args:
        device: as `choose_device` gives it.
        threads: on the CPU; None: as many as processors are available to this process.
        deterministic: let every operation give the same bits each time on a GPU too; one that can't raises a
            RuntimeError, with which its run fails. On a CPU they do anyway, and others are left alone.
        full_precision: let no matrix be multiplied in TF32, which is many times faster where there is any.
    """
    torch.set_num_threads(threads or usable_cpus())
    if deterministic and device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
        torch.use_deterministic_algorithms(True)
    if device.startswith("cuda") and torch.cuda.get_device_capability(device) >= AMPERE:
        torch.set_float32_matmul_precision("highest" if full_precision else "high")
        torch.backends.cudnn.allow_tf32 = not full_precision
