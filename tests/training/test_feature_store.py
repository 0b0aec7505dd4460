"""The feature store: each image's features are computed once, checked, bounded, shared between processes."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.core.errors import InputError
from bench.data.dataset import UNASSIGNED, Dataset
from bench.study.schema import Target
from bench.training.cached_features import Features, _filled_up
from bench.training.feature_store import FeatureStore
from bench.training.inputs import Images

SHAPE = (8, 3, 5)  # of 8 images
ALL = np.arange(8)
NUMBERS = np.arange(8 * 3 * 5, dtype=np.float32).reshape(SHAPE)
ROW_BYTES = 60


def noting(filled):
    def fill(array, rows, note):
        filled.append(rows.tolist())
        array[rows] = NUMBERS[rows]

    return fill


def test_an_image_is_computed_once_and_found_by_a_later_store(tmp_path):
    filled = []
    for wanted in ([1, 2, 6], [2, 6], [0, 2, 7]):
        rows = np.array(wanted)
        entry = FeatureStore(tmp_path).get({"a": 1}, SHAPE, rows, noting(filled))
        assert np.array_equal(entry.array[rows], NUMBERS[rows])
        with pytest.raises(ValueError, match="read-only"):
            entry.array[1] = 1
    assert filled == [[1, 2, 6], [0, 7]]
    FeatureStore(tmp_path).get({"a": 2}, SHAPE, np.array([1]), noting(filled))
    assert filled[2:] == [[1]], "what was computed otherwise is another entry"


def test_what_computing_took_is_told_by_whoever_finds_it(tmp_path):
    made, found = (FeatureStore(tmp_path).get({"a": 1}, SHAPE, ALL[:5], noting([])) for _ in range(2))
    assert np.array_equal(made.seconds, found.seconds)
    assert (found.seconds[:5] > 0).all()
    assert not found.seconds[5:].any()


@given(wanted=st.integers(1, 70), size=st.integers(2, 32))
def test_features_are_computed_in_batches_of_one_size(wanted, size):
    rows = np.arange(100, 100 + wanted)
    made = list(_filled_up(rows, size))
    assert {len(batch) for batch, _ in made} == {size}
    assert np.array_equal(np.concatenate([batch[:new] for batch, new in made]), rows)


@pytest.mark.parametrize("damage", ["flip", "truncate", "table", "empty table", "no table", "no data"])
def test_what_is_damaged_is_noticed_and_computed_again(tmp_path, damage, caplog):
    filled = []
    FeatureStore(tmp_path).get({"a": 1}, SHAPE, ALL, noting(filled))
    (data,), (table,) = tmp_path.glob("*.f32"), tmp_path.glob("*.npy")
    raw = bytearray(data.read_bytes())
    raw[2 * ROW_BYTES + 7] ^= 1  # in the third image
    {
        "flip": lambda: data.write_bytes(raw),
        "truncate": lambda: data.write_bytes(raw[:-4]),
        "table": lambda: table.write_bytes(b"{" * 100),
        "empty table": lambda: table.write_bytes(b""),
        "no table": table.unlink,
        "no data": data.unlink,
    }[damage]()
    entry = FeatureStore(tmp_path).get({"a": 1}, SHAPE, ALL, noting(filled))
    assert filled[1:] == ([[2]] if damage == "flip" else [ALL.tolist()])
    assert np.array_equal(entry.array, NUMBERS)
    assert ("damaged" in caplog.text) == (damage not in {"no table", "no data"})


def test_a_failure_while_computing_leaves_what_was_there(tmp_path):
    def fail(array, rows, note):
        array[rows] = -1
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        FeatureStore(tmp_path).get({"a": 1}, SHAPE, ALL, fail)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    filled = []
    FeatureStore(tmp_path).get({"a": 1}, SHAPE, ALL[:3], noting(filled))
    with pytest.raises(RuntimeError, match="half way"):
        FeatureStore(tmp_path).get({"a": 1}, SHAPE, ALL, fail)
    entry = FeatureStore(tmp_path).get({"a": 1}, SHAPE, ALL, noting(filled))
    assert filled == [[0, 1, 2], [3, 4, 5, 6, 7]]
    assert np.array_equal(entry.array, NUMBERS)


def half_way(array, rows, note):
    array[rows[:5]] = NUMBERS[rows[:5]]
    note(5)
    array[rows[5:]] = -1
    raise KeyboardInterrupt


def test_who_is_interrupted_keeps_the_rows_that_were_done(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CHECKPOINT_SECONDS", "0")
    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path).get({"a": 1}, SHAPE, ALL, half_way)
    filled = []
    entry = FeatureStore(tmp_path).get({"a": 1}, SHAPE, ALL, noting(filled))
    assert filled == [[5, 6, 7]]
    assert np.array_equal(entry.array, NUMBERS)
    assert (entry.seconds > 0).all()


IMAGES, BATCH = 110, 32


class Deadly(nn.Module):
    """Means over the pixels; the process is killed in its n-th batch. The first only asks for the shape."""

    seen = 0  # by all copies: each thread has its own

    def __init__(self, deadly):
        super().__init__()
        self.deadly = deadly
        Deadly.seen = 0

    def forward(self, images):
        Deadly.seen += 1
        if Deadly.seen == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return images.mean((2, 3))


def _prepare(folder, deadly=0):
    """Compute the features of all images, in one thread so that the batches come in turn."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    unused = np.zeros(IMAGES, np.int64)
    dataset = Dataset(
        "noise",
        ("a", "b"),
        rng.integers(0, 256, (IMAGES, 96, 96, 3), dtype=np.uint8),
        unused,
        np.full(IMAGES, UNASSIGNED, np.int8),
        tuple(map(str, unused)),
        "d" * 64,
    )
    target = Target(data="noise", image_size=96, augmentation={"views": 2})
    images = Images(dataset, target, (0.0,) * 3, (1.0,) * 3, "cpu")
    assert images.eval_batch == BATCH
    features = Features(images, Deadly(deadly), {}, FeatureStore(folder))
    assert features.prepare_training(np.arange(IMAGES))
    return features, Deadly.seen - 1


def test_who_is_killed_keeps_the_images_that_were_done(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CHECKPOINT_SECONDS", "0")
    killed = multiprocessing.get_context("spawn").Process(target=_prepare, args=(tmp_path / "killed", 6))
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    threads = torch.get_num_threads()
    try:
        again, batches = _prepare(tmp_path / "killed")
        undisturbed, all_batches = _prepare(tmp_path / "undisturbed")
    finally:
        torch.set_num_threads(threads)
    assert (batches, all_batches) == (4, 8), "two batches of two views each were done"
    for seed in (1, 2):
        numbers = [f.train(np.arange(IMAGES), seed, 0) for f in (again, undisturbed)]
        assert torch.equal(*numbers)


def wide(filled):
    """An entry of 40 kB: files take whole blocks of the disk."""

    def fill(array, rows, note):
        filled.append(len(rows))
        array[rows] = 1

    return (4, 2500), np.arange(4), fill


def test_the_least_recently_used_entry_goes_first(tmp_path):
    filled = []
    store = FeatureStore(tmp_path, limit=90_000)
    for name in ("old", "kept"):
        store.get({"name": name}, *wide(filled))
    store.get({"name": "old"}, *wide(filled))  # now "kept" is the older one
    held = store.get({"name": "kept"}, *wide(filled)).array
    store.get({"name": "old"}, *wide(filled))
    store.get({"name": "new"}, *wide(filled))
    assert len(list(tmp_path.glob("*.f32"))) == 2
    assert held[3, 4] == 1, "a map of an entry that was removed stays valid"
    store.get({"name": "old"}, *wide(filled))
    assert filled == [4, 4, 4]


def test_holes_take_no_room(tmp_path):
    store = FeatureStore(tmp_path, limit=100_000)
    shape, rows, fill = (100_000, 2500), np.array([5, 99_999]), noting_ones
    assert store.get({}, shape, rows, fill) is not None
    (data,) = tmp_path.glob("*.f32")
    assert data.stat().st_size == 1_000_000_000
    assert data.stat().st_blocks * 512 < 100_000


def noting_ones(array, rows, note):
    array[rows] = 1


def test_what_is_too_large_is_not_kept_and_said_so(tmp_path, caplog):
    assert FeatureStore(tmp_path, limit=10).get({}, SHAPE, ALL, noting([])) is None
    assert "not kept" in caplog.text
    assert not list(tmp_path.glob("*.f32"))


def test_a_limit_that_is_no_number_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_FEATURES_GB", "lots")
    with pytest.raises(InputError, match="BENCH_FEATURES_GB"):
        FeatureStore(tmp_path)


def _compute(folder, queue):
    def fill(array, rows, note):
        queue.put("computed")
        array[rows] = 1

    entry = FeatureStore(folder).get({"shared": True}, (100, 100), np.arange(100), fill)
    queue.put(float(entry.array.sum()))


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
        assert FeatureStore(tmp_path).get({}, *wide([])) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "not kept" in caplog.text
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
