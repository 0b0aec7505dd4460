"""Rows of an array give what the array gives, wherever they are kept."""

import numpy as np
import pytest

from bench.training import device_arrays as module
from bench.training.device_arrays import DeviceArray

ARRAY = np.arange(40 * 3 * 2, dtype=np.float32).reshape(40, 3, 2)
WANTED = np.array([7, 3, 39, 3, 0])


@pytest.fixture(params=["read where they are", "moved to the device", "moved chunk by chunk"])
def rows(request, monkeypatch):
    """The wanted rows on the CPU; to move them is the same code for any device."""
    if request.param != "read where they are":
        monkeypatch.setattr(module, "fits", lambda _size, _device: True)
    if request.param == "moved chunk by chunk":
        monkeypatch.setattr(module, "CHUNK", 2 * ARRAY[:1].nbytes)
    return DeviceArray(ARRAY, "cpu", WANTED)


def test_they_are_those_of_the_array(rows):
    asked = np.array([39, 0, 0, 7])
    assert np.array_equal(rows(asked).numpy(), ARRAY[asked])
    views = np.array([2, 0, 1, 1])
    assert np.array_equal(rows(asked, views).numpy(), ARRAY[asked, views])


def test_the_array_is_left_alone(rows):
    rows(WANTED)[:] = -1
    assert np.array_equal(rows(WANTED).numpy(), ARRAY[WANTED])


def test_what_is_kept_is_only_what_was_wanted(monkeypatch):
    monkeypatch.setattr(module, "fits", lambda _size, _device: True)
    assert len(DeviceArray(ARRAY, "cpu", WANTED)._kept) == len(set(WANTED.tolist()))
    assert len(DeviceArray(ARRAY, "cpu")._kept) == len(ARRAY)


def test_a_cpu_needs_no_copy_of_its_own():
    assert DeviceArray(ARRAY, "cpu")._kept is None
