"""What is kept to be faster: its size, and removing it, as `bench cache` does."""

import sys

import numpy as np
import pytest

from bench.cli.app import main
from bench.core.text import in_bytes
from bench.data.loading import load
from bench.experiment.caches import CACHES
from bench.study.schema import Target
from bench.system import locations
from bench.training.feature_store import FeatureStore


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Call `bench` with a cache of its own, in which there is a bit of each kind."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))

    def fill(array, rows, note):
        array[rows] = 1.0
        note(len(rows))

    FeatureStore().get({"a": 1}, (4, 1000), np.arange(4), fill)
    (locations.cache() / "steps").mkdir()
    (locations.cache() / "steps" / "a.json").write_text("[1, 2]")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", "cache", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code or 0, capsys.readouterr()

    return call


def test_sizes_are_shown_and_what_is_cleared_is_gone(bench, tmp_path):
    status, shown = bench()
    assert status == 0
    assert [line.split()[0] for line in shown.out.splitlines()] == [*CACHES, "in"]
    assert CACHES["features"].size() >= 16_000
    assert CACHES["steps"].size() == 6
    status, shown = bench("clear", "features")
    assert (status, CACHES["features"].size(), CACHES["steps"].size()) == (0, 0, 6)
    assert "freed" in shown.out
    assert bench("clear")[0] == 0
    assert [kind.size() for kind in CACHES.values()] == [0, 0, 0]


def test_images_that_are_in_use_stay(bench):
    dataset = load(Target(data="photo_textures", image_size=32), None)
    size = CACHES["images"].size()
    assert size >= dataset.images.nbytes
    bench("clear", "images")
    assert CACHES["images"].size() == size


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["claer"], "did you mean 'clear'?"), (["clear", "featurs"], "did you mean 'features'?")],
)
def test_an_unknown_word_is_one_line(bench, arguments, says):
    status, shown = bench(*arguments)
    assert status == 2
    assert says in shown.err


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (17_340_000, "17.3 MB"), (1.2e9, "1.2 GB"), (5e15, "5000.0 TB")],
)
def test_bytes_in_words(count, text):
    assert in_bytes(count) == text
