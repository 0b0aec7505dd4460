"""Further test sets: their classes are the study's; images that are not others are counted."""

import numpy as np
import pytest
from PIL import Image

from bench.core.errors import InputError
from bench.data.dataset import TEST
from bench.data.further_tests import further_tests
from bench.data.loading import load
from bench.study.schema import Target

SIDE = 32


def write_images(folder, classes, count, seed):
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(
                folder / name / f"{number}.png"
            )
    return str(folder)


@pytest.fixture
def own(tmp_path):
    return write_images(tmp_path / "own", ("ant", "bee", "wasp"), 6, 0)


def further(own, **also):
    target = Target(data=own, image_size=SIDE, also_test=also)
    return further_tests(target, load(target))


def test_labels_mean_what_those_of_the_study_mean(own, tmp_path):
    found = further(own, elsewhere=write_images(tmp_path / "other", ("wasp", "bee"), 4, 1))["elsewhere"]
    assert found.dataset.classes == ("ant", "bee", "wasp")
    said = [found.dataset.classes[label] for label in found.dataset.labels]
    assert said == [name.partition("/")[0] for name in found.dataset.names]
    assert len(found.indices) == 8
    assert found.known == 0


def test_of_data_with_parts_only_test_is_read(own, tmp_path):
    other = tmp_path / "other"
    for part, count in (("train", 5), ("test", 3)):
        write_images(other / part, ("ant", "bee"), count, count)
    found = further(own, elsewhere=str(other))["elsewhere"]
    assert len(found.indices) == 6
    assert (found.dataset.parts[found.indices] == TEST).all()


def test_images_that_the_study_has_too_are_counted(own):
    found = further(own, itself=own)["itself"]
    assert found.known == len(found.indices) == 18


def test_a_smoke_test_reads_few_of_them(own, tmp_path):
    also = {"elsewhere": write_images(tmp_path / "other", ("ant", "bee"), 4, 1)}
    target = Target(data=own, image_size=SIDE, also_test=also, cap=3)
    found = further_tests(target, load(target))["elsewhere"]
    assert found.indices.tolist() == [0, 4, 7]


def test_another_class_is_named(own, tmp_path):
    other = write_images(tmp_path / "other", ("ant", "hornet"), 2, 1)
    with pytest.raises(
        InputError, match=r"class 'hornet' is none of the study's data \(ant, bee, wasp\)"
    ) as e:
        further(own, elsewhere=other)
    assert e.value.where == "target.also_test.elsewhere"


def test_data_that_are_not_there_are_named_by_their_key(own, tmp_path):
    with pytest.raises(InputError) as error:
        further(own, elsewhere=str(tmp_path / "nowhere"))
    assert error.value.where == "target.also_test.elsewhere"
