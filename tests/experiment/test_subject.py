"""What a command is about, and the study that is made up for data that have none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.core.errors import InputError
from bench.data.picture_sizes import typical_size
from bench.experiment import made_up
from bench.experiment.subject import Subject, drafts, is_stored_name, settle, subject_of
from bench.system.locations import mark

CLASSES = ("ants", "bees")


def write_images(folder, count=12, size=(90, 70), classes=CLASSES, seed=0):
    """Write pictures of noise, as many of each class."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("here") / "my photos")


@pytest.fixture(autouse=True)
def _beside_the_photos(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)


def settled(*words, overrides=(), budget="default"):
    (draft,) = drafts(subject_of(*words), overrides, budget)
    return settle(draft)


class TestWhatIsNamed:
    def test_a_folder_is_data_and_all_else_a_study(self, photos):
        assert subject_of("my photos", None, None) == Subject("", photos)
        assert subject_of(str(photos), None, None) == Subject("", photos)
        assert subject_of("small_similar", None, None) == Subject("small_similar")
        assert subject_of("my photos", "hymenoptera", None) == Subject("hymenoptera", photos)
        assert subject_of("hymenoptera", None, "my photos") == Subject("hymenoptera", photos)
        assert subject_of(None, "mine.yaml", None) == Subject("mine.yaml")

    def test_a_home_folder_may_be_meant(self, photos, monkeypatch):
        monkeypatch.setenv("HOME", str(photos.parent))
        found = subject_of("~/my photos", None, None)
        assert found == Subject("", photos)
        assert found.words == "~/'my photos'"
        assert subject_of("hymenoptera", None, "my photos").words == "hymenoptera --data ~/'my photos'"

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ((None, None, None), "nothing is named"),
            (("my photos", None, "."), "both data"),
            (("hymenoptera", "camvid", None), "both studies"),
            (("photos.zip", None, None), "photos.zip is an archive; unpack it"),
            ((None, None, "photos.tar.gz"), "photos.tar.gz is an archive; unpack it"),
            (("leaves.csv", None, None), "there is no folder or table leaves.csv"),
            ((None, None, "nowhere"), "there is no folder or table nowhere"),
        ],
    )
    def test_a_mistake_is_one_line(self, words, says):
        with pytest.raises(InputError) as error:
            subject_of(*words)
        assert says in str(error.value)

    def test_what_may_be_either_is_asked_for(self, photos):
        (photos.parent / "camvid").mkdir()
        with pytest.raises(InputError, match=r"say ./camvid for the folder, or --study camvid"):
            subject_of("camvid", None, None)
        assert subject_of("./camvid", None, None).data == photos.parent / "camvid"
        (photos.parent / "camvid").rmdir()

    @pytest.mark.parametrize(
        ("named", "says"),
        [
            ("smal_similar", "'smal_similar' is neither a study nor a folder or table of images"),
            ("smal_similar", "did you mean 'small_similar'?"),
            ("my fotos", "did you mean 'my photos'?"),
            ("../here0/my fotos", "did you mean '../here0/my photos'?"),
            ("gone.yaml", "there is no study file gone.yaml"),
        ],
    )
    def test_an_unknown_name_is_answered_with_the_nearest(self, named, says):
        with pytest.raises(InputError) as error:
            drafts(subject_of(named, None, None), [], "default")
        assert says in str(error.value)

    def test_a_study_that_was_run_has_a_name_and_no_file(self):
        assert is_stored_name(subject_of("my_photos-1234abcd", None, None))
        for named in ("small_similar", "mine.yaml", "my photos", "reference/small_similar", "all"):
            assert not is_stored_name(subject_of(named, None, None))


class TestAStudyIsMadeUp:
    def test_from_a_folder_alone(self, photos):
        made = settled("my photos", None, None)
        study, said = made.study, dict(made.chosen)
        assert made_up.loading.load(study.target).digest[:8] == study.name.removeprefix("my_photos-")
        assert study.question == "What is the best way to use tf_efficientnet_lite0 on my photos?"
        assert (study.target.data, study.target.image_size) == (str(photos), 64)
        assert (
            said["size"] == "64 px: the images have 90 x 70 px in the median, so more would show nothing more"
        )
        assert said["labels"] == "14 to train on, 4 to choose by, 6 to test on"
        assert said["scenario"].startswith("small: about 7 labels for each class")
        assert (study.scenario.size, study.scenario.similarity) == ("small", None)

    def test_what_somebody_sets_is_not_chosen(self):
        settings = ["target.image_size=48", "scenario={size: large, similarity: similar}", "question=Why?"]
        made = settled("my photos", None, None, overrides=settings)
        assert (made.study.target.image_size, made.study.question) == (48, "Why?")
        assert made.study.scenario.similarity == "similar"
        assert not {"size", "scenario", "rule"} & {what for what, _ in made.chosen}

    def test_a_mistake_in_what_is_set_is_found_before_any_image_is_opened(self):
        with pytest.raises(InputError, match=r"did you mean 'training.steps'"):
            drafts(subject_of("my photos", None, None), ["training.stps=3"], "default")

    def test_two_data_sets_share_no_name(self, photos, tmp_path):
        other = write_images(tmp_path / "my photos", seed=1)
        names = {settled(str(folder), None, None).study.name for folder in (photos, other)}
        names |= {settled(str(folder), "hymenoptera", None).study.name for folder in (photos, other)}
        assert len(names) == 4
        assert all(name.startswith(("my_photos-", "hymenoptera-my_photos-")) for name in names)

    def test_the_same_images_elsewhere_are_the_same_study(self, photos, tmp_path):
        again = write_images(tmp_path / "my photos")
        ours, theirs = (settled(str(folder), None, None).study for folder in (photos, again))
        assert ours.name == theirs.name

    def test_a_study_on_other_data_asks_of_these(self, tmp_path):
        study = settled("my photos", "hymenoptera", None).study
        assert study.question == "What is the best way to use tf_efficientnet_lite0 on my photos?"
        assert study.scenario.similarity is None
        assert study.training.steps == 150, "all else is as its file says"
        where = write_images(tmp_path / "hymenoptera_data")
        study = settled(str(where), "hymenoptera", None).study
        assert study.question.startswith("Ants or bees"), "what it was written for, at another place"
        assert study.name.startswith("hymenoptera-")
        assert settled("small_similar", None, None).study.name == "small_similar"

    def test_other_data_may_be_set_as_well(self):
        study = settled(
            "small_similar", None, None, overrides=["target.data=elpv", "target.image_size=16"]
        ).study
        assert study.name.startswith("small_similar-elpv-")

    def test_a_name_is_made_safe(self, tmp_path):
        where = write_images(tmp_path / ("(été) " + "a" * 99), count=6)
        name = settled(str(where), None, None).study.name
        assert name.startswith("data_été_aaaa")
        assert len(name) <= made_up.LONGEST + len("data_") + 1 + made_up.DIGITS

    def test_masks_and_lists_of_labels_are_seen(self, tmp_path):
        for part in ("train", "test"):
            write_images(tmp_path / "pixels" / part, classes=("images", "masks"), count=1)
            write_images(tmp_path / "several" / part, classes=("images",), count=1)
            (tmp_path / "several" / part / "labels").mkdir()
        table = tmp_path / "mine.csv"
        table.write_text("file_name,labels\na.png,x;y\n")
        tasks = {"pixels": "segmentation", "several": "multilabel", "mine.csv": "multilabel"}
        for name, task in tasks.items():
            study = made_up.draft(tmp_path / name, [], "default")
            assert (study.task, study.name) == (task, Path(name).stem)


class TestImageSize:
    @pytest.mark.parametrize(
        ("size", "processors", "side"),
        [
            ((500, 375), 2, 96),
            ((500, 375), 16, 224),
            ((150, 100), 16, 96),
            ((20, 20), 16, 64),
            ((500, 375), 1, 64),
        ],
    )
    def test_is_no_more_than_images_have_and_time_allows(self, tmp_path, monkeypatch, size, processors, side):
        write_images(tmp_path, count=1, size=size)
        monkeypatch.setattr(made_up, "usable_cpus", lambda: processors)
        monkeypatch.setattr(made_up, "may_have_gpu", lambda: False)
        assert made_up._choose_side(tmp_path)[0] == side

    def test_is_that_of_pretraining_on_a_gpu(self, tmp_path, monkeypatch):
        write_images(tmp_path, count=1, size=(500, 375))
        monkeypatch.setattr(made_up, "may_have_gpu", lambda: True)
        assert made_up._choose_side(tmp_path)[0] == 224

    def test_reports_and_hidden_pictures_are_not_looked_at(self, tmp_path):
        write_images(tmp_path, count=2, size=(40, 30))
        write_images(tmp_path / "reports" / "one", count=9, size=(400, 300))
        write_images(tmp_path / ".hidden", count=9, size=(400, 300))
        mark(tmp_path / "reports" / "one")
        assert typical_size(tmp_path) == (40, 30)

    def test_of_a_table_are_those_that_it_lists(self, tmp_path):
        write_images(tmp_path, count=2, size=(40, 30), classes=("listed",))
        write_images(tmp_path, count=9, size=(400, 300), classes=("other",))
        table = tmp_path / "mine.csv"
        table.write_text("file_name,label\nlisted/0.png,a\nlisted/1.png,b\nlisted/gone.png,b\n")
        assert typical_size(table) == (40, 30)

    def test_without_a_picture_says_so(self, tmp_path):
        with pytest.raises(InputError, match="no picture that can be opened"):
            typical_size(tmp_path)


def test_no_more_labels_are_taken_than_are_of_use(photos):
    parts = made_up.Split(*(np.arange(10_000) for _ in range(3)))
    study = made_up.draft(photos, [], "default")
    assert made_up._most_labels(study, parts) == {
        "train_labels": 9600,
        "val_labels": 1000,
        "test_labels": 2401,
    }
    study = made_up.draft(photos, ["training.epochs=2", "smallest_effect=0.001"], "default")
    assert made_up._most_labels(study, parts) == {"val_labels": 1000}
