"""Rows of an array as tensors on a device, without making the device wait for them."""

import numpy as np
import torch
from torch import Tensor

SHARE, FREE = 0.25, 0.5  # of a device's memory: what one array may take at most, and what all must leave
CHUNK = 1 << 28  # bytes copied at a time when an array moves to the device


class DeviceArray:
    """Gives rows of an array as tensors on a device.

    Where they fit, the rows that are wanted move to the device once and are taken from there. Where they
    don't, each batch is copied from pinned memory on a stream of its own, beside the step under way. A CPU
    reads them where they are.

    Args:
        array: any type, shape (N, ...), memory-mapped or not.
        device: as torch names it.
        wanted: int64, the rows that will be asked for; None: all.
    """

    def __init__(self, array: np.ndarray, device: str, wanted: np.ndarray | None = None) -> None:
        self._array, self._device = array, torch.device(device)
        self._kept: Tensor | None = None
        self._copies: torch.cuda.Stream | None = None
        wanted = np.arange(len(array)) if wanted is None else np.unique(wanted)
        if fits(array[:1].nbytes * len(wanted), self._device):
            places = np.full(len(array), -1)
            places[wanted] = np.arange(len(wanted))
            self._kept, self._places = self._moved(wanted), torch.from_numpy(places).to(self._device)
        elif self._device.type == "cuda":
            self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def __call__(self, *index: np.ndarray) -> Tensor:
        """Return `array[index]` for arrays of int64, the first of which holds rows that were wanted."""
        if self._kept is not None:
            first, *others = (torch.from_numpy(i).to(self._device, non_blocking=True) for i in index)
            return self._kept[(self._places[first], *others)]
        batch = torch.from_numpy(np.ascontiguousarray(self._array[index]))
        if self._copies is None:
            return batch
        with torch.cuda.stream(self._copies):
            moved = batch.pin_memory().to(self._device, non_blocking=True)
        working = torch.cuda.current_stream(self._device)
        working.wait_stream(self._copies)
        moved.record_stream(working)  # its memory is not given away before the step has read it
        return moved

    def _moved(self, wanted: np.ndarray) -> Tensor:
        """Return the wanted rows on the device, copied chunk by chunk."""
        one = torch.from_numpy(np.array(self._array[:1]))
        whole = one.new_empty((len(wanted), *one.shape[1:]), device=self._device)
        size = max(1, CHUNK // max(1, one.nbytes))
        for start in range(0, len(wanted), size):
            chunk = wanted[start : start + size]
            whole[start : start + len(chunk)] = torch.from_numpy(np.array(self._array[chunk]))
        return whole


def fits(size: int, device: torch.device) -> bool:
    """Say whether an array of `size` bytes is to be kept in a device's own memory."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return size <= min(SHARE * total, free - FREE * total)
