"""Multi-label classification: data, loss and scores, and a study from the command line to the report."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, log_loss

from bench.cli.app import main
from bench.core.errors import InputError
from bench.core.runs import Scores
from bench.data.loading import load
from bench.data.splits import split
from bench.data.tasks.multilabel import strata
from bench.study.metrics import metrics_of
from bench.study.schema import Target, Training
from bench.training.targets.multilabel import Labels

CLASSES = ("blue", "green", "red")
CHANNEL = {"red": 0, "green": 1, "blue": 2}


def picture(labels, draw, side=24):
    pixels = draw.integers(0, 90, (side, side, 3), dtype=np.uint8)
    for label in labels:
        pixels[..., CHANNEL[label]] += 120
    return Image.fromarray(pixels)


def label_sets(count, seed=0):
    draw = np.random.default_rng(seed)
    return [[name for name in CLASSES if draw.random() < 0.4] for _ in range(count)]


def with_metadata(folder, count=48, splits=None, separator=";"):
    """Write images and their `metadata.csv`; `splits` gives each a part."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, rows = np.random.default_rng(1), []
    for number, labels in enumerate(label_sets(count)):
        picture(labels, draw).save(folder / f"{number:03}.png")
        row = {"file_name": f"{number:03}.png", "labels": separator.join(labels)}
        rows.append(row | ({"split": splits[number % len(splits)]} if splits else {}))
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


def with_lists(folder, count=24):
    for part in ("train", "test"):
        (folder / part / "images").mkdir(parents=True)
        (folder / part / "labels").mkdir()
        draw = np.random.default_rng(2)
        for number, labels in enumerate(label_sets(count)):
            picture(labels, draw).save(folder / part / "images" / f"{number:03}.png")
            (folder / part / "labels" / f"{number:03}.txt").write_text("\n".join(labels))
    return folder


def loaded(folder):
    return load(Target(data="here", image_size=16), folder, "multilabel")


class TestData:
    @pytest.mark.parametrize("separator", [";", "|", " ; "])
    def test_label_sets_are_those_of_the_table(self, tmp_path, separator):
        dataset = loaded(with_metadata(tmp_path / "data", separator=separator))
        assert dataset.classes == CLASSES
        truth = [[int(name in labels) for name in CLASSES] for labels in label_sets(48)]
        assert dataset.label_sets.tolist() == truth
        assert dataset.caption(0) == ("; ".join(label_sets(48)[0]) or "no label")

    def test_lists_of_labels_and_their_parts(self, tmp_path):
        dataset = loaded(with_lists(tmp_path / "data"))
        assert dataset.label_sets.tolist() == [[int(n in s) for n in CLASSES] for s in label_sets(24)] * 2
        assert sorted(set(dataset.parts.tolist())) == [0, 2]
        assert dataset.names[0].startswith("test/images/")

    def test_the_split_column_is_kept(self, tmp_path):
        folder = with_metadata(tmp_path / "data", splits=("train", "val", "test"))
        assert np.bincount(loaded(folder).parts).tolist() == [16, 16, 16]

    def test_the_digest_tells_label_sets_apart(self, tmp_path):
        """The numbers of label sets may be the same where the sets are not."""
        folder = with_metadata(tmp_path / "data")
        before = loaded(folder).digest
        table = pd.read_csv(folder / "metadata.csv", keep_default_na=False)
        table["labels"] = table["labels"].str.replace("red", "violet")
        table.to_csv(folder / "metadata.csv", index=False)
        assert loaded(folder).digest != before

    def test_splits_are_stratified_by_label_set(self, tmp_path):
        dataset = loaded(with_metadata(tmp_path / "data", count=120))
        parts = split(dataset, Target(data="here"), 1)
        whole = dataset.label_sets.mean(0)
        for part in (parts.train, parts.val, parts.test):
            assert np.abs(dataset.label_sets[part].mean(0) - whole).max() < 0.12
            assert not dataset.missing_classes(part)

    def test_rare_label_sets_are_filed_under_their_rarest_label(self):
        label_sets = np.array([[1, 1], [1, 0], [1, 0], [0, 0], *[[0, 1]] * 10])
        numbers = np.array([3, 2, 2, 0, *[1] * 10])
        assert strata(label_sets, numbers).tolist() == [0, 0, 0, 2, *[4] * 10]

    def test_a_label_that_a_part_lacks_is_named(self, tmp_path):
        dataset = loaded(with_metadata(tmp_path / "data"))
        without = np.flatnonzero(dataset.label_sets[:, CLASSES.index("red")] == 0)
        assert dataset.missing_classes(without) == ["red"]

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("file_name,tags\na.png,x\n", "has the columns file_name, tags"),
            ("file_name,labels\nb.png,x\n", r"no images with labels \(b.png: is not there"),
            ("file_name,labels\n../a.png,x\n", "lies outside of the folder"),
            ("file_name,labels\na.png,x\n", "fewer than two labels"),
            ("file_name,labels\na.png,x;y\n", "all images have the same labels"),
            ("file_name,labels,split\na.png,x;y,dev\n", "unknown split 'dev'"),
        ],
    )
    def test_unusable_tables_are_explained(self, tmp_path, table, message):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
        (tmp_path / "metadata.csv").write_text(table)
        with pytest.raises(InputError, match=message):
            loaded(tmp_path)


class TestTargets:
    def setup_method(self):
        draw = np.random.default_rng(0)
        self.truth = (draw.random((60, 3)) < 0.4).astype(np.float32)
        self.logits = torch.from_numpy(draw.normal(size=(60, 3)) + 2 * self.truth).float()
        self.targets = Labels(torch.from_numpy(self.truth))

    def test_scores_are_those_of_scikit_learn(self):
        scores = self.targets.score(self.logits, np.arange(60), metrics_of("multilabel"))
        logits, predicted = self.logits.numpy(), self.logits.numpy() > 0
        assert set(scores) == {"loss", "mean_average_precision", "micro_f1", "macro_f1"}
        mean = average_precision_score(self.truth, logits, average="macro")
        assert scores["mean_average_precision"] == pytest.approx(mean)
        for average in ("micro", "macro"):
            assert scores[f"{average}_f1"] == pytest.approx(f1_score(self.truth, predicted, average=average))
        probabilities = self.logits.sigmoid().numpy().ravel()
        assert scores["loss"] == pytest.approx(log_loss(self.truth.ravel(), probabilities), rel=1e-5)

    def test_smoothing_draws_labels_to_a_half(self):
        indices, training = np.arange(60), Training(label_smoothing=0.2)
        smoothed = torch.from_numpy(np.where(self.truth > 0, 0.9, 0.1)).float()
        expected = torch.nn.functional.binary_cross_entropy_with_logits(self.logits, smoothed)
        loss = self.targets.loss(self.logits, indices, 0, 0, training)
        assert loss.item() == pytest.approx(expected.item())


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of a tiny study, run from the command line."""
    import timm

    folder = tmp_path_factory.mktemp("project")
    with_metadata(folder / "images", count=72)
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t").state_dict(), folder / "weights.pth")
    (folder / "colours.yaml").write_text(
        "question: Which colours?\ntask: multilabel\n"
        f"source: {{model: timm/resnet10t, weights: {folder / 'weights.pth'}}}\n"
        f"target: {{data: {folder / 'images'}, image_size: 32}}\n"
        "strategies: [feature_extractor, full]\n"
        "training: {epochs: 2, batch_size: 12}\ntuning: {trials: 2}\nseeds: 2\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder / "home"))
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["bench", "run", "--study", "colours.yaml", "--device", "cpu"])
        with pytest.raises(SystemExit) as left:
            main()
    assert not left.value.code
    return folder / "reports" / "colours"


class TestStudy:
    def test_runs_have_the_metrics_of_the_task(self, report):
        runs = pd.read_csv(report / "runs.csv")
        assert (runs["status"] == "done").all()
        assert len(runs) == 4
        assert not [name for name in runs if "accuracy" in name]
        assert runs[[f"test_{name}" for name in metrics_of("multilabel")]].notna().all(axis=None)

    def test_the_report_says_what_the_runs_reached(self, report):
        """From stored predictions and scores the same values as training gave."""
        summary = json.loads((report / "summary.json").read_text())
        means = pd.read_csv(report / "runs.csv").groupby("strategy")["test_mean_average_precision"].mean()
        for result in summary["results"]:
            assert result["test"]["value"] == pytest.approx(means[result["strategy"]], abs=1e-6)
            assert result["test"]["low"] <= result["test"]["value"] <= result["test"]["high"]
        assert "mAP" in summary["verdict"]
        assert {row["name"] for row in summary["classes"]} == set(CLASSES)

    def test_its_figures_are_those_of_the_task(self, report):
        names = {path.stem for path in (report / "figures").iterdir()}
        assert {"accuracy", "score_by_class", "gain_by_class"} <= names
        assert not names & {"confusion", "confused_pairs", "examples"}
        assert "Average precision of each class" in (report / "report.md").read_text()


def test_scores_name_their_images_and_classes():
    dataset = type("Named", (), {"names": ("a", "b"), "classes": CLASSES})
    truth = np.array([[1, 0, 0], [0, 0, 0]], np.float32)
    logits = torch.tensor([[1.0, 1.0, -1.0], [-1.0, -1.0, -1.0]])
    record = Labels(torch.from_numpy(truth)).record(dataset, logits, np.arange(2), None)
    rows = pd.DataFrame(record.columns).to_dict("list")
    assert rows["image"] == ["a", "a", "b"]
    assert rows["target"] == ["blue", "green", ""], "an image with nothing in truth and prediction is kept"
    assert rows["truth"] == [1, 0, 0]
    assert rows["predicted"] == [1, 1, 0]
    assert isinstance(record.scores, Scores)
    assert record.scores.images == ["a", "b"]
