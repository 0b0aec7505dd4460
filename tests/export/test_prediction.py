"""Pictures of any shape: shown to the model as the evaluation would, gathered, and drawn as masks."""

import numpy as np
import pytest
from PIL import Image

from bench.core.errors import InputError
from bench.data.decoding import part_shown, to_square, to_whole_square
from bench.data.mask_colours import colours
from bench.data.pictures import find_pictures
from bench.export.masks import MaskFolder
from bench.export.prediction import LeftOut, predict_files, predict_stored
from bench.export.predictions import collect
from tests.export.test_served_model import SIDE, model_for

SIZES = [(60, 40), (31, 90), (37, 37), (200, 20)]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("task", "to_stored"), [("classification", to_square), ("segmentation", to_whole_square)]
)
def test_a_file_is_shown_as_the_data_set_would_keep_it(folder, task, to_stored):
    model = model_for(task)
    files = find_pictures([str(folder)])
    said = list(predict_files(model, files, None))
    stored = np.stack([to_stored(Image.open(file), model.facts.side) for file in files])
    again = list(predict_stored(model, stored, [str(file) for file in files], None))
    assert [one.name for one in said] == [str(file) for file in files] == [one.name for one in again]
    assert [one.picture.size for one in said] == SIZES
    for one, other in zip(said, again, strict=True):
        assert np.array_equal(one.picture.pixels, other.picture.pixels)
        if task == "segmentation":  # of stored images nothing tells what is grey around them
            assert np.array_equal(one.answer.mask, other.answer.mask[part_shown(one.picture.size, SIDE)])
            assert sum(one.answer.details["shares"].values()) == pytest.approx(1)
            continue
        assert one.answer.label == other.answer.label
        assert one.answer.certainty == pytest.approx(other.answer.certainty, abs=1e-6)


def test_what_cant_be_read_is_named_and_leaves_the_others_alone(folder):
    (folder / "1.png").write_bytes(b"\x89PNG nothing")
    model = model_for("classification")
    said = list(predict_files(model, find_pictures([str(folder)]), None))
    assert [isinstance(one, LeftOut) for one in said] == [False, True, False, False]
    found = collect(model.facts, said, 2, None)
    assert [row.name for row in found.rows] == [str(folder / f"{n}.png") for n in (0, 2, 3)]
    assert found.as_json()["left_out"][0]["file"] == str(folder / "1.png")
    assert list(found.frame().columns) == ["file", "class", "probability"]


def test_the_least_certain_are_kept_the_least_first(folder):
    model = model_for("classification")
    said = list(predict_files(model, find_pictures([str(folder)]), None))
    found = collect(model.facts, said, 3, None)
    order = sorted(said, key=lambda one: one.answer.certainty)
    assert [one.name for one in found.least_certain] == [one.name for one in order[:3]]
    assert [caption[1] for caption in found.captions()] == [one.name.rpartition("/")[2] for one in order[:3]]
    assert not found.legend()


def test_masks_are_as_large_as_their_pictures_and_hold_the_numbers_of_classes(folder):
    model = model_for("segmentation")
    files = find_pictures([str(folder)])
    masks = MaskFolder(folder / "out", map(str, files))
    found = collect(model.facts, predict_files(model, files, None), 2, masks)
    for row, size in zip(found.rows, SIZES, strict=True):
        mask, over = Image.open(row.mask), Image.open(row.mask.replace("/masks/", "/overlays/"))
        assert mask.size == over.size == size
        numbers = np.asarray(mask)
        assert set(np.unique(numbers)) <= {0, 1, 2}
        painted = np.asarray(mask.convert("RGB"))
        assert np.array_equal(painted, colours(3)[numbers])
    assert set(found.legend()) <= {"a", "b", "c"}
    assert found.pictures()[0].shape == (SIDE, SIDE, 3)


def test_two_pictures_dont_get_one_mask(tmp_path):
    with pytest.raises(InputError, match=r"would get the same mask"):
        MaskFolder(tmp_path / "out", ["photos/a.png", "photos/a.jpg"])
    MaskFolder(tmp_path / "out", ["photos/a.png", "others/a.png"])


def test_pictures_are_found_by_folder_pattern_and_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    for name in ("images/x.png", "masks/x.png", ".hidden.png", "notes.txt"):
        (folder / name).write_bytes(b"")
    named = ["0.png", "1.png", "2.png", "3.png", "images/x.png"]
    assert [str(file) for file in find_pictures(["."])] == named, "masks beside images are no pictures"
    assert [str(file) for file in find_pictures(["masks"])] == ["masks/x.png"], "unless they are asked for"
    assert [str(file) for file in find_pictures(["2.png", "[12].png"])] == ["2.png", "1.png"]
    assert len(find_pictures(["**/*.png"])) == 6
    for wrong in ("nothing", "*.gif"):
        with pytest.raises(InputError, match=r"nothing|pattern"):
            find_pictures([wrong])
