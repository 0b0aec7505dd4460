"""How the pictures of a data set are framed: by how much a crop would lose, and by their range."""

import numpy as np
import pytest
from PIL import Image

from bench.core.errors import InputError
from bench.data.loading import load
from bench.study.loading import load as load_study
from bench.study.schema import Target


def write(folder, size=(40, 40), *, dtype=np.uint8, high=256, part="", count=3):
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / part / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, high, size[::-1], dtype=dtype)
            pixels.flat[:2] = 0, high - 1
            Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


def framing(folder, **settings):
    return load(Target(data=str(folder), image_size=32, **settings)).framing


@pytest.mark.parametrize(
    ("size", "fit", "lost", "words"),
    [
        ((40, 40), "crop", 0, ""),
        ((45, 30), "crop", 1 / 3, "cropped to their centre squares, which leaves out 33 % of their area"),
        ((30, 40), "crop", 0.25, "cropped to their centre squares, which leaves out 25 % of their area"),
        ((100, 40), "pad", 0.6, "shown whole, on grey; centre squares would leave out 60 % of their area"),
    ],
)
def test_what_a_crop_would_lose_decides(tmp_path, size, fit, lost, words):
    found = framing(write(tmp_path / "data", size))
    assert (found.fit, found.in_words) == (fit, words)
    assert found.lost == pytest.approx(lost)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_what_is_asked_for_is_done(tmp_path, fit):
    assert framing(write(tmp_path / "data", (100, 40)), fit=fit).fit == fit


def test_each_fit_is_other_data_and_the_chosen_one_is_that_one(tmp_path):
    data = write(tmp_path / "data", (100, 40))
    loaded = {f: load(Target(data=str(data), image_size=32, fit=f)) for f in (None, "crop", "pad", "stretch")}
    digests = {fit: dataset.digest for fit, dataset in loaded.items()}
    assert digests[None] == digests["pad"]
    assert len(set(digests.values())) == 3


def test_16_bit_pixels_are_scaled_by_what_may_be_trained_on(tmp_path):
    """A range of 12 bits fills 8; what the data set sets apart as test has no say in it."""
    data = write(tmp_path / "data", dtype=np.uint16, high=4096, part="train")
    write(data, dtype=np.uint16, high=9000, part="test", count=2)
    dataset = load(Target(data=str(data), image_size=32))
    assert dataset.framing.levels == (0, 4095)
    of_train = dataset.images[[name.startswith("train") for name in dataset.names]]
    assert of_train.max() > 200
    assert framing(write(tmp_path / "eight")).levels == (0, 65535)


def test_masks_are_shown_whole_and_nothing_else_can_be_asked_for():
    with pytest.raises(InputError, match=r"target\.fit is for task: classification or multilabel"):
        load_study("segmentation_packaged", ["target.fit=crop"])
