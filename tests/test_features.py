"""The feature store: computed once, checked, bounded, shared between processes."""

import multiprocessing

import numpy as np
import pytest

from bench.errors import InputError
from bench.features import FeatureStore

SHAPE = (3, 5)


def counting_fill(calls):
    def fill(array):
        calls.append(1)
        array[:] = np.arange(15).reshape(SHAPE)

    return fill


def test_an_entry_is_computed_once_and_found_by_a_later_store(tmp_path):
    calls = []
    for _ in range(2):
        array = FeatureStore(tmp_path).get({"a": 1}, SHAPE, counting_fill(calls))
        assert np.array_equal(array, np.arange(15).reshape(SHAPE))
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    assert len(calls) == 1
    FeatureStore(tmp_path).get({"a": 2}, SHAPE, counting_fill(calls))
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "meta", "no_meta"])
def test_a_damaged_entry_is_noticed_and_computed_again(tmp_path, damage, caplog):
    calls = []
    FeatureStore(tmp_path).get({"a": 1}, SHAPE, counting_fill(calls))
    (data,), (meta,) = tmp_path.glob("*.f32"), tmp_path.glob("*.json")
    if damage == "flip":
        raw = bytearray(data.read_bytes())
        raw[7] ^= 1
        data.write_bytes(raw)
    elif damage == "truncate":
        data.write_bytes(data.read_bytes()[:-4])
    elif damage == "meta":
        meta.write_text("{")
    else:
        meta.unlink()
    array = FeatureStore(tmp_path).get({"a": 1}, SHAPE, counting_fill(calls))
    assert len(calls) == 2
    assert np.array_equal(array, np.arange(15).reshape(SHAPE))
    assert ("damaged" in caplog.text) == (damage != "no_meta")


def test_a_failure_while_computing_leaves_nothing(tmp_path):
    def fail(array):
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        FeatureStore(tmp_path).get({"a": 1}, SHAPE, fail)
    assert not list(tmp_path.glob("*.f32")) + list(tmp_path.glob("*.json")) + list(tmp_path.glob("*.tmp"))


def test_the_least_recently_used_entry_goes_first(tmp_path):
    calls = []
    store = FeatureStore(tmp_path, limit=2 * 60 + 10)
    for name in ("old", "kept"):
        store.get({"name": name}, SHAPE, counting_fill(calls))
    store.get({"name": "old"}, SHAPE, counting_fill(calls))  # now "kept" is the older one
    held = store.get({"name": "kept"}, SHAPE, counting_fill(calls))
    store.get({"name": "old"}, SHAPE, counting_fill(calls))
    store.get({"name": "new"}, SHAPE, counting_fill(calls))
    assert len(list(tmp_path.glob("*.f32"))) == 2
    assert held[2, 4] == 14, "a map of an entry that was removed stays valid"
    store.get({"name": "old"}, SHAPE, counting_fill(calls))
    assert len(calls) == 3


def test_what_is_too_large_is_not_kept_and_said_so(tmp_path, caplog):
    assert FeatureStore(tmp_path, limit=10).get({}, SHAPE, counting_fill([])) is None
    assert "not kept" in caplog.text
    assert not list(tmp_path.glob("*.f32"))


def test_a_limit_that_is_no_number_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_FEATURES_GB", "lots")
    with pytest.raises(InputError, match="BENCH_FEATURES_GB"):
        FeatureStore(tmp_path)


def _compute(folder, queue):
    def fill(array):
        queue.put("computed")
        array[:] = 1

    queue.put(float(FeatureStore(folder).get({"shared": True}, (100, 100), fill).sum()))


def test_processes_that_want_the_same_entry_compute_it_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_compute, args=(tmp_path, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    messages = [queue.get(timeout=60) for _ in range(4)]
    for process in processes:
        process.join(60)
    assert sorted(map(str, messages)) == ["10000.0", "10000.0", "10000.0", "computed"]


def test_a_full_disk_falls_back_to_not_keeping(tmp_path, caplog):
    """A file-size limit gives the same OSError as a full disk, from the same call."""
    import resource
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert FeatureStore(tmp_path).get({}, (100, 100), counting_fill([])) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "not kept" in caplog.text
    assert not list(tmp_path.glob("*.f32")) + list(tmp_path.glob("*.tmp"))
