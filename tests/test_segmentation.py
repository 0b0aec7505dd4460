"""Masks: read, split, moved with their images, scored, kept, and compared."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from segmentation_models_pytorch import metrics as smp_metrics
from sklearn.metrics import accuracy_score, jaccard_score

from bench.analysis.evidence import Evidence
from bench.analysis.summary import summarise
from bench.core.errors import InputError
from bench.data.augmentation import augment, augment_masks
from bench.data.dataset import (
    NO_LABEL,
    TEST,
    TRAIN,
    VAL,
    UnreadableError,
)
from bench.data.decoding import TURNED, to_square_with_mask
from bench.data.loading import load
from bench.data.sources.base import MASK_SOURCES
from bench.data.splits import split
from bench.study.loading import load as load_study
from bench.study.schema import Augmentation, Target, Training
from bench.training.metrics import confusions, scores_by_image, segmentation_scores
from bench.training.targets.segmentation import Masks, confusion_of


def save_pair(folder, name, values, mask_mode="L", size=None):
    """Save a mask, and an image whose grey tells the class: 20 for each."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    picture = Image.fromarray(
        np.repeat(np.where(values < 11, values * 20, 250)[..., None], 3, 2).astype(np.uint8)
    )
    (picture if size is None else picture.resize(size)).save(folder / "images" / f"{name}.png")
    Image.fromarray(values.astype(np.uint8)).convert(mask_mode).save(folder / "masks" / f"{name}.png")


def blocks(rng, classes=3, shape=(18, 24)):
    return np.kron(rng.integers(0, classes, (shape[0] // 6, shape[1] // 6)), np.ones((6, 6), int))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3), ("test", 3)):
        for number in range(count):
            values = blocks(rng)
            values[0] = 9  # the value without label
            save_pair(tmp_path / "data" / part, f"{part}{number}", values)
    return tmp_path / "data"


def target(**changes):
    return Target(data="unused", image_size=24, **{"classes": ("a", "b", "c"), "ignore": 9, **changes})


def test_a_folder_of_images_and_masks_is_read_whole(folder):
    dataset = load(target(), folder, "segmentation")
    assert dataset.images.shape == (12, 24, 24, 3)
    assert dataset.masks.shape == (12, 24, 24)
    assert dataset.classes == ("a", "b", "c")
    assert sorted(dataset.parts.tolist()) == [TRAIN] * 6 + [VAL] * 3 + [TEST] * 3
    assert (dataset.masks[:, :3] == NO_LABEL).all(), "24x18 pixels lie in the middle of a square"
    assert (dataset.masks[:, 3] == NO_LABEL).all(), "the value to ignore"
    inside = dataset.masks[:, 4:21]
    assert inside.max() == 2
    assert np.array_equal(dataset.images[:, 4:21, :, 0], inside * 20), "image and mask still fit"
    again = load(target(), folder, "segmentation")
    assert again.digest == dataset.digest
    assert split(dataset, target(), 1).hash == split(again, target(), 1).hash


def test_without_names_the_classes_are_the_values(folder):
    assert load(target(classes=None), folder, "segmentation").classes == ("0", "1", "2")
    assert load(target(classes=None, ignore=None), folder, "segmentation").classes[-1] == "9"


def test_what_does_not_fit_is_left_out_and_named(folder):
    rng = np.random.default_rng(1)
    train = folder / "train"
    save_pair(train, "other_size", blocks(rng), size=(12, 12))
    save_pair(train, "coloured", blocks(rng), mask_mode="RGB")
    save_pair(train, "unknown", blocks(rng) + 5)
    save_pair(train, "lonely", blocks(rng))
    (train / "masks" / "lonely.png").unlink()
    (train / "images" / "broken.png").write_bytes(b"no picture")
    (train / "masks" / "broken.png").write_bytes(b"no picture")
    dataset = load(target(), folder, "segmentation")
    reasons = {r.name.rpartition("/")[2].partition(".")[0]: r.reason for r in dataset.rejected}
    assert len(dataset.names) == 12
    assert reasons.keys() == {"other_size", "coloured", "unknown", "lonely", "broken"}
    assert "its mask is 24x18, the image 12x12" in reasons["other_size"]
    assert "picture in RGB" in reasons["coloured"]
    assert "there are 3 classes" in reasons["unknown"]
    assert reasons["lonely"] == "has no mask of the same name"


def test_black_and_white_masks_hold_an_object(tmp_path, caplog):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for number in range(6):
            save_pair(tmp_path / part, str(number), (blocks(rng) > 1).astype(np.uint8) * 255)
    with pytest.raises(InputError, match="only one class"):
        load(target(classes=None, ignore=255), tmp_path, "segmentation")
    dataset = load(target(classes=None, ignore=None), tmp_path, "segmentation")
    assert dataset.classes == ("0", "1")
    mask = Path(tmp_path / dataset.names[0].replace("images", "masks")).with_suffix(".png")
    with Image.open(mask) as opened:
        object_pixels = opened.histogram()[255]
    assert (dataset.masks[0] == 1).sum() == object_pixels > 0
    assert "255 is taken for class 1" in caplog.text


def _seen(pixels, orientation):
    """The picture as EXIF says that it is seen."""
    return {3: np.rot90(pixels, 2), 6: np.rot90(pixels, -1), 8: np.rot90(pixels)}[orientation]


@pytest.mark.parametrize("orientation", [6, 8])
@pytest.mark.parametrize("turned", [False, True], ids=["over the stored pixels", "over the picture as seen"])
def test_exif_turns_an_image_and_its_mask(orientation, turned):
    values = np.arange(24 * 36).reshape(24, 36) % 5 * 50
    stored = np.repeat(values[..., None], 3, 2).astype(np.uint8)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    labels = (values // 50).astype(np.uint8)
    mask = Image.fromarray(_seen(labels, orientation).copy() if turned else labels)
    pixels, answer = to_square_with_mask(image, mask, 36)
    labelled = answer != NO_LABEL
    assert labelled.sum() == 24 * 36
    assert (pixels[labelled][:, 0] == answer[labelled] * 50).all()


def test_a_mask_that_may_lie_in_two_ways_is_not_guessed():
    image = Image.fromarray(np.zeros((24, 36, 3), np.uint8))
    image.getexif()[0x0112] = 3
    mask = Image.fromarray(np.zeros((24, 36), np.uint8))
    with pytest.raises(UnreadableError, match="nothing tells whether its mask is turned"):
        to_square_with_mask(image, mask, 36)
    mask.info[TURNED] = True
    assert to_square_with_mask(image, mask, 36)[1].shape == (36, 36)


@pytest.mark.parametrize("damage", ["images", "masks"])
def test_a_folder_of_another_form_is_one_clear_line(folder, damage):
    (folder / "train" / damage).rename(folder / "train" / "other")
    with pytest.raises(InputError, match=f"there is no folder {damage}/"):
        load(target(), folder, "segmentation")


def test_damaged_masks_in_the_store_are_noticed(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "own"))
    before = load(target(), folder, "segmentation")
    (file,) = (tmp_path / "own").rglob("masks.u8")
    raw = bytearray(file.read_bytes())
    raw[100] ^= 1
    file.write_bytes(raw)
    after = load(target(), folder, "segmentation")
    assert "damaged" in caplog.text
    assert after.digest == before.digest


def test_camvid_is_read_with_its_own_parts(shared_data):
    study = load_study("camvid")
    dataset = load(study.target, shared_data / "camvid", "segmentation")
    assert np.bincount(dataset.parts).tolist() == [367, 101, 233]
    assert not dataset.rejected
    in_test = split(dataset, study.target, 1).test
    assert set(dataset.groups_of(in_test)) == {"test/images/0001TP", "test/images/Seq05VD"}
    assert dataset.images.shape[1:] == (240, 240, 3)
    first = np.asarray(Image.open(shared_data / "camvid" / dataset.names[0]).convert("RGB"))
    assert np.array_equal(dataset.images[0][30:210], first), "at their own size the pixels are kept"
    assert set(np.unique(dataset.masks)) <= {*range(11), NO_LABEL}


def test_digit_scenes_share_nothing_between_parts_and_are_the_same_everywhere():
    raw = MASK_SOURCES["digit_scenes"].read()
    assert np.bincount(raw.parts).tolist() == [800, 200, 1000]
    grounds = [
        {g for g, p in zip(raw.groups, raw.parts, strict=True) if p == part} for part in (TRAIN, VAL, TEST)
    ]
    assert [len(ground) for ground in grounds] == [6, 3, 10]
    assert len(set.union(*grounds)) == 19, "no background is in two parts"
    image, mask = raw.read(5)
    again, _ = MASK_SOURCES["digit_scenes"].read().read(5)
    assert np.array_equal(image, again)
    shown = set(np.unique(mask).tolist())
    assert 0 in shown
    assert 2 <= len(shown) <= 3
    seen = [set(np.unique(raw.read(i)[1]).tolist()) for i in range(0, 2000, 20)]
    assert set.union(*seen) == set(range(len(raw.classes)))
    from bench.data.sources.digit_scenes import _share

    shares = [set(_share(1000, part)) for part in (TRAIN, VAL, TEST)]
    assert [len(share) for share in shares] == [600, 200, 200]
    assert set.union(*shares) == set(range(1000))


@given(st.integers(0, 2**31), st.booleans(), st.integers(0, 45))
def test_masks_move_with_their_images(seed, flip, rotation):
    rng = np.random.default_rng(seed)
    masks = torch.from_numpy(np.kron(rng.integers(0, 3, (4, 6, 6)), np.ones((1, 8, 8)))).to(torch.uint8)
    images = torch.nn.functional.one_hot(masks.long(), 3).mul(255).to(torch.uint8)  # a colour for each class
    augmentation = Augmentation(rotation=rotation, horizontal_flip=flip, vertical_flip=flip)
    aim = Target(data="x", image_size=40, augmentation=augmentation, split_seed=seed)
    indices, views = np.arange(4), np.arange(4)
    moved = augment_masks(masks, indices, views, aim)
    share, classes = augment(images, indices, views, aim, (0.0,) * 3, (1.0,) * 3).max(1)
    sure = share > 0.76  # the nearest of four pixels has at least a quarter of the weight
    inside = moved != NO_LABEL
    assert torch.equal(moved[sure & inside], classes[sure & inside])
    assert (sure & inside).float().mean() > 0.2
    assert inside.all() or rotation, "a crop alone stays within the image"


def test_what_lies_beyond_the_border_or_has_no_label_counts_nowhere():
    masks = torch.full((2, 32, 32), 1, dtype=torch.uint8)
    masks[1] = NO_LABEL
    aim = Target(data="x", image_size=32, augmentation=Augmentation(crop_scale=(1, 1), rotation=45))
    moved = augment_masks(masks, np.arange(2), np.array([3, 3]), aim)
    assert set(moved[0].unique().tolist()) == {1, NO_LABEL}
    assert (moved[1] == NO_LABEL).all()


class Shown:
    """A data set of which only the masks are looked at."""

    def __init__(self, masks):
        self.masks = masks


def masks_of(values, **changes):
    aim = Target(
        data="x",
        image_size=values.shape[1],
        augmentation=Augmentation(crop_scale=(1, 1), crop_ratio=(1, 1), **changes),
    )
    return Masks(Shown(values), aim, "cpu")


def test_metrics_are_those_of_other_libraries():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, (5, 16, 16)).astype(np.uint8)  # class 4 occurs in no truth
    truth[:, :4] = NO_LABEL
    logits = torch.from_numpy(rng.normal(size=(5, 5, 16, 16))).float()
    masks = masks_of(truth)
    halves = [masks.predictions(logits[part], np.arange(5)[part]) for part in (slice(0, 2), slice(2, 5))]
    scores = masks.score(torch.cat(halves), np.arange(5))
    predicted = logits.argmax(1).numpy()
    counted = truth != NO_LABEL
    jaccard = jaccard_score(truth[counted], predicted[counted], labels=range(4), average="macro")
    assert scores["mean_iou"] == pytest.approx(jaccard)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy_score(truth[counted], predicted[counted]))
    assert scores["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(
            logits, torch.from_numpy(truth).long(), ignore_index=NO_LABEL
        ).item(),
        rel=1e-5,
    )
    stats = smp_metrics.get_stats(
        torch.from_numpy(predicted)[:, 4:],
        torch.from_numpy(truth).long()[:, 4:],
        mode="multiclass",
        num_classes=5,
    )
    summed = [part.sum(0, keepdim=True)[:, :4] for part in stats]
    assert scores["mean_iou"] == pytest.approx(smp_metrics.iou_score(*summed, reduction="macro").item())
    one_by_one = [segmentation_scores(c)["mean_iou"] for c in confusion_of(torch.cat(halves))]
    assert scores_by_image(confusion_of(torch.cat(halves))).tolist() == pytest.approx(one_by_one)
    assert scores["mean_iou"] != pytest.approx(np.mean(one_by_one)), "summed over the set, not averaged"


def test_the_confusion_matrix_has_truth_in_rows():
    truth = torch.tensor([[[0, 0, 1, NO_LABEL]]])
    predicted = torch.tensor([[[0, 1, 1, 0]]])
    assert confusions(predicted, truth, 2).tolist() == [[[1, 1], [0, 1]]]


def test_losses_ignore_pixels_without_label():
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 3, (2, 16, 16)).astype(np.uint8)
    truth[:, 5:] = NO_LABEL
    masks = masks_of(truth, horizontal_flip=False)
    logits = torch.from_numpy(rng.normal(size=(2, 3, 16, 16))).float()
    other = logits.clone()
    other[:, :, 5:] += 7 * torch.arange(3.0)[:, None, None]
    for training in (Training(), Training(label_smoothing=0.1), Training(dice=0.5)):
        losses = [masks.loss(x, np.arange(2), 0, 0, training).item() for x in (logits, other)]
        assert losses[0] == pytest.approx(losses[1])
    plain = torch.nn.functional.cross_entropy(logits, torch.from_numpy(truth).long(), ignore_index=NO_LABEL)
    assert masks.loss(logits, np.arange(2), 0, 0, Training()).item() == pytest.approx(plain.item(), rel=1e-5)
    perfect = torch.nn.functional.one_hot(torch.from_numpy(truth).long() % 3, 3).movedim(-1, 1) * 50.0
    assert masks.loss(perfect, np.arange(2), 0, 0, Training(dice=0.5)).item() == pytest.approx(0, abs=1e-4)
    nothing = masks_of(np.full((2, 16, 16), NO_LABEL, np.uint8))
    assert nothing.loss(logits, np.arange(2), 0, 0, Training()).item() == 0


class TestStudy:
    def test_head_and_metric_follow_the_task(self):
        study = load_study("segmentation_packaged")
        assert (study.task, study.head.kind, study.metric) == ("segmentation", "unet", "mean_iou")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (["metric=accuracy"], "metric 'accuracy' is not for segmentation"),
            (["head.kind=linear"], "head.kind 'linear' is not for segmentation; valid: unet, fcn32s"),
        ],
    )
    def test_what_belongs_to_another_task_is_refused(self, changes, message):
        with pytest.raises(InputError, match=message):
            load_study("segmentation_packaged", changes)
        with pytest.raises(InputError, match=r"training\.dice"):
            load_study("small_similar", ["training.dice=1"])

    def test_data_of_another_task_are_named(self):
        with pytest.raises(InputError, match="say task: segmentation"):
            load(Target(data="digit_scenes"))
        with pytest.raises(InputError, match="has no masks"):
            load(Target(data="photo_textures"), task="segmentation")


def evidence_of(masks, runs):
    """Evidence with predictions made of confusion counts: runs is (strategy, seed) to predicted masks."""
    changes = ["strategies=[scratch, full]", "seeds=2", "tuning.trials=1"]
    study = load_study("segmentation_packaged", changes)
    rows, done = [], []
    for (strategy, seed), predicted in runs.items():
        counts = confusions(torch.from_numpy(predicted), torch.from_numpy(masks), 3).numpy()
        for image, label in zip(*np.nonzero(counts.sum(1) + counts.sum(2)), strict=True):
            one = counts[image]
            pixels = {
                "truth": one[label].sum(),
                "predicted": one[:, label].sum(),
                "intersection": one[label, label],
            }
            rows.append(
                {"strategy": strategy, "seed": seed, "image": f"i{image}", "target": "abc"[label], **pixels}
            )
        scores = segmentation_scores(torch.from_numpy(counts.sum(0)))
        named = {f"{part}_{name}": value for part in ("val", "test") for name, value in scores.items()}
        done.append({"strategy": strategy, "seed": seed, "status": "done", **named})
    frames = (
        pd.DataFrame(done),
        pd.DataFrame(columns=["strategy", "trial"]),
        pd.DataFrame(columns=["strategy"]),
    )
    return Evidence(study, *frames, pd.DataFrame(rows))


def test_the_summary_has_the_mean_iou_of_the_runs_and_the_iou_of_each_class():
    rng = np.random.default_rng(5)
    masks = rng.integers(0, 3, (12, 8, 8))
    masks[:, 0] = NO_LABEL

    def noisy(share):
        return np.where(rng.random(masks.shape) < share, rng.integers(0, 3, masks.shape), masks % 3)

    runs = {
        ("scratch", 1): noisy(0.6),
        ("scratch", 2): noisy(0.6),
        ("full", 1): noisy(0.1),
        ("full", 2): noisy(0.1),
    }
    evidence = evidence_of(masks, runs)
    summary = summarise(evidence)
    full, counted = summary.result("full"), masks != NO_LABEL
    iou = [jaccard_score(masks[counted], runs["full", s][counted], average=None) for s in (1, 2)]
    assert summary.best == "full"
    assert summary.result("scratch").place == "worse"
    assert full.test.value == pytest.approx(np.mean(iou)) == pytest.approx(full.test_mean)
    assert full.test.low < full.test.value < full.test.high
    found = {c.name: c.recall["full"] for c in summary.classes}
    assert [found[name] for name in "abc"] == pytest.approx(np.mean(iou, axis=0).tolist())
    assert json.dumps(summary.as_json())


def test_classes_that_no_strategy_finds_are_named():
    masks = np.random.default_rng(7).integers(0, 3, (6, 8, 8))
    runs = {(name, 1): np.where(masks == 2, 0, masks) for name in ("scratch", "full")}
    (note,) = [note for note in summarise(evidence_of(masks, runs)).notes if "Found by" in note]
    assert note == "Found by no strategy (IoU below 0.005): c. They count in the mean of all 3."
    runs["full", 1] = masks
    assert not [n for n in summarise(evidence_of(masks, runs)).notes if "Found by" in n]


def test_an_example_shows_image_truth_and_prediction(folder):
    from bench.data.mask_colours import paint
    from bench.training.targets.segmentation import _draw

    dataset = load(target(), folder, "segmentation")
    picture = Image.open(io.BytesIO(_draw(dataset, 3, np.zeros((24, 24), np.uint8))))
    pixels = np.asarray(picture)
    assert picture.text["image"] == dataset.names[3]
    assert json.loads(picture.text["classes"]) == ["a", "b", "c"]
    assert np.array_equal(pixels[:, :24], dataset.images[3])
    assert np.array_equal(pixels[:, 28:52], paint(dataset.masks[3]))
    unlabelled = dataset.masks[3] == NO_LABEL
    assert unlabelled.any()
    assert (pixels[:, 56:][~unlabelled] == paint(np.zeros(1, int))).all()
    assert (pixels[:, 56:][unlabelled] == 255).all(), "what is predicted where nothing is known says nothing"


def test_the_report_shows_examples_and_score_by_class(tmp_path):
    from bench.data.mask_colours import paint
    from bench.report.study_report import write

    masks = np.kron(np.random.default_rng(6).integers(0, 3, (6, 2, 2)), np.ones((8, 8), int))
    evidence = evidence_of(masks, {("scratch", 1): (masks + 1) % 3, ("full", 1): masks})
    buffer, about = io.BytesIO(), PngInfo()
    about.add_text("image", "i0")
    about.add_text("classes", json.dumps(["a", "b", "c"]))
    Image.fromarray(np.hstack([paint(masks[0])] * 3)).save(buffer, "PNG", pnginfo=about)
    pictures = {(name, 1, "examples/1.png"): buffer.getvalue() for name in ("scratch", "full")}
    write(dataclasses.replace(evidence, examples=pictures), tmp_path)
    shown = pd.read_csv(tmp_path / "figures" / "examples.csv")
    assert shown.groupby("strategy")["mean_iou"].first().to_dict() == {"full": 1.0, "scratch": 0.0}
    iou = pd.read_csv(tmp_path / "figures" / "score_by_class.csv")
    assert iou.groupby("strategy")["score"].mean().to_dict() == {"full": 1.0, "scratch": 0.0}
    page = (tmp_path / "index.html").read_text()
    for words in ("tuned hyperparameters", "tuning trial", "best hyperparameters"):
        assert words not in page, "one trial tunes nothing"
    assert "IoU of each class" in page
    for name in ("index.html", "report.md", "tables/comparisons.csv", "tables/comparisons.tex"):
        text = (tmp_path / name).read_text().lower()
        assert "cohen" not in text, "an effect size for shares of independent answers"
    assert json.loads((tmp_path / "summary.json").read_text())["pairs"][0]["effect"] is None
    assert "mean IoU" in page
