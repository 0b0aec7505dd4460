"""What fits into some minutes: as much as can be, the same for all strategies, and never what is given."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.experiment.subject import drafts, settle, subject_of
from bench.experiment.time_budget import RUNGS, Images, TimeLimit, estimate, fit_to_minutes
from bench.study.loading import load
from tests.support.tiny_study import write_tiny_study

IMAGES = Images(600, 200, 200)
SIDES = [224, 160, 96, 64]


def step(study, _device):
    """A step takes a second at 224 px."""
    return (study.target.image_size / 224) ** 2


@pytest.fixture(scope="module")
def study():
    return load("small_similar")


def fitted(study, minutes, keys=(), sides=SIDES, images=IMAGES):
    return fit_to_minutes(study, TimeLimit(minutes), keys, sides, images, step)


def size(study):
    return study.target.image_size, study.training.steps * study.tuning.trials * study.most_seeds


@settings(max_examples=60, deadline=None)
@given(st.floats(3, 5000), st.floats(1, 3))
def test_it_takes_no_longer_and_more_time_is_never_less_of_everything(minutes, factor):
    study = load("small_similar")
    try:
        less, words = fitted(study, minutes)
    except InputError:
        return
    assert estimate(less, IMAGES, step(less, "")) <= 60 * minutes
    more, _ = fitted(study, minutes * factor)
    assert size(more) >= size(less)
    assert words.startswith("about ")
    assert f"{less.training.steps} steps" in words
    assert f"at {less.target.image_size} px" in words


def test_larger_images_come_before_much_tuning_and_after_some(study):
    scant, _ = fitted(study, 40, sides=[224])
    assert scant.tuning.trials < 3
    smaller, _ = fitted(study, 40)
    assert smaller.target.image_size < 224
    assert smaller.tuning.trials >= 3
    plenty, _ = fitted(study, 100_000)
    assert (plenty.target.image_size, plenty.tuning.trials, plenty.seeds) == (224, 12, 10)


def test_what_somebody_chose_stays(study):
    changed = load("small_similar", ["training.steps=77", "tuning.trials=2"])
    found, _ = fitted(changed, 2000, {"training.steps", "tuning.trials"}, sides=[96])
    assert (found.training.steps, found.tuning.trials, found.target.image_size) == (77, 2, 96)
    assert found.seeds in {rung.seeds for rung in RUNGS}
    epochs = load("small_similar", ["training.epochs=9"])
    assert fitted(epochs, 100_000)[0].training.epochs == 18


def test_too_few_minutes_are_refused_with_how_many_it_takes(study):
    with pytest.raises(InputError, match=r"1 is too few: .* take about \d+ minutes here") as error:
        fitted(study, 1)
    enough = int(error.value.remedy.split()[1])
    found, _ = fitted(study, enough)
    assert found.target.image_size == SIDES[-1]


def test_fewer_strategies_take_less(study):
    one = study.model_copy(update={"strategies": ("linear_probe",)})
    assert estimate(one, IMAGES, 1.0) < estimate(study, IMAGES, 1.0) / 10


def test_a_folder_gets_a_study_that_fits_and_the_same_one_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    write_tiny_study(tmp_path)
    (draft,) = drafts(subject_of("images", None, None), ["seeds=2"], "default")
    first, again = (settle(draft, TimeLimit(40, "cpu")) for _ in range(2))
    assert first == again
    assert first.study.seeds == 2
    assert dict(first.chosen)["time"].endswith("px")
    assert "of 40 minutes" in dict(first.chosen)["time"]
