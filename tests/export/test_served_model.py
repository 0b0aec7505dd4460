"""A model with its preprocessing: what it says is what the run said that trained it."""

import pytest
import timm
import torch

from bench.core.errors import InputError
from bench.core.runs import Purpose, RunSpec
from bench.data.dataset import stored_side
from bench.experiment.plan import plan
from bench.experiment.run_executor import RunExecutor
from bench.export.model_facts import ModelFacts, Scores, read_facts
from bench.export.served_model import ServedAtAnySize, build_served
from bench.export.stored_model import check_weights
from bench.models.factory import build
from bench.models.weights import locate
from bench.strategies.registry import STRATEGIES
from bench.study.loading import load
from bench.study.schema import Head, Source
from bench.study_record.facts import StudyFacts
from bench.training.setup import Compute, TrainingSetup
from tests.support.synthetic import make_study
from tests.support.tiny_study import write_tiny_study

HEADS = {"classification": "linear", "multilabel": "linear", "segmentation": "unet"}
SIDE = 32


def facts_for(task, **changes):
    """The facts of a small model of a task, which no run has trained."""
    side = SIDE if task == "segmentation" else stored_side(SIDE)
    values = {
        "study": "tiny",
        "task": task,
        "strategy": "full",
        "seed": 1,
        "params": {},
        "run": "0" * 32,
        "classes": ("a", "b", "c"),
        "side": side,
        "image_size": SIDE,
        "source": Source(model="timm/test_efficientnet"),
        "head": Head(kind=HEADS[task]),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "scores": Scores(metric="accuracy"),
    }
    return ModelFacts(**values | changes)


def model_for(task, **changes):
    """A small model of a task with weights that are drawn at random."""
    facts = facts_for(task, **changes)
    drawn = build(facts.source, facts.head, len(facts.classes), facts.image_size, "he", 1)
    return build_served(facts, drawn.state_dict(), whole=True)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a tiny study")
    write_tiny_study(folder)
    return folder


@pytest.mark.parametrize(
    ("strategy", "head"),
    [
        ("earlier_features", "linear"),
        ("earlier_features_svm", "linear"),
        ("feature_extractor", "concat_pool"),
    ],
)
def test_wherever_the_head_reads_the_model_predicts_what_the_run_did(
    tiny_folder, monkeypatch, strategy, head
):
    monkeypatch.chdir(tiny_folder)
    settings = [f"strategies=[{strategy}]", f"head.kind={head}", "training.epochs=2"]
    laid_out = plan(load("tiny.yaml", settings))
    study, dataset, origin = laid_out.study, laid_out.dataset, laid_out.origin
    spec = RunSpec(laid_out.arms[0], STRATEGIES[strategy].defaults, 1, Purpose.FINAL)
    setup = TrainingSetup(study, dataset, origin, Compute("cpu", 1))
    executed = RunExecutor(setup).run(spec, laid_out.splits[1])
    facts = facts_for(
        "classification",
        strategy=strategy,
        params=dict(spec.params),
        classes=dataset.classes,
        side=dataset.images.shape[1],
        source=study.source,
        head=study.head,
        readout=STRATEGIES[strategy].plan(len(setup.stages), spec.params).readout,
        mean=setup.images.mean,
        std=setup.images.std,
        temperature=executed.result.metrics["val/temperature"],
    )
    model = build_served(facts, executed.weights, whole=False)
    images = torch.from_numpy(dataset.images[laid_out.splits[1].test])
    of_any_size = [dict.fromkeys((0, 1, 2), torch.export.Dim.AUTO)]
    exported = torch.export.export(ServedAtAnySize(model), (images[:2],), dynamic_shapes=of_any_size)
    given = exported.module()(images)
    highest, classes = given.max(1)
    columns = executed.predictions.columns
    assert [dataset.classes[place] for place in classes] == columns["prediction"]
    assert highest.tolist() == pytest.approx(columns["calibrated_probability"], abs=1e-4)


@pytest.mark.parametrize("task", HEADS)
def test_it_gives_probabilities_as_its_task_has_them(task):
    model = model_for(task)
    images = torch.randint(0, 256, (2, model.facts.side, model.facts.side, 3), dtype=torch.uint8)
    with torch.inference_mode():
        given = model(images)
    assert given.shape == ((2, 3, SIDE, SIDE) if task == "segmentation" else (2, 3))
    assert ((given >= 0) & (given <= 1)).all()
    sums_to_one = bool(torch.allclose(given.sum(1), torch.ones(()), atol=1e-5))
    assert sums_to_one == (task != "multilabel")


def test_a_temperature_changes_how_sure_it_is_and_not_of_what():
    images = torch.randint(0, 256, (4, stored_side(SIDE), stored_side(SIDE), 3), dtype=torch.uint8)
    with torch.inference_mode():
        plain = model_for("classification")(images)
        sharper = model_for("classification", temperature=0.5)(images)
    assert torch.equal(plain.argmax(1), sharper.argmax(1))
    squared = plain**2
    assert torch.allclose(sharper, squared / squared.sum(1, keepdim=True), atol=1e-6)


def test_weights_of_another_model_are_refused():
    facts, weights = facts_for("classification"), model_for("classification").model.state_dict()
    with pytest.raises(InputError, match="not those of the model that is described"):
        build_served(facts, {**weights, "head.extra": torch.zeros(1)}, whole=True)
    with pytest.raises(InputError, match="not those of the model that is described"):
        build_served(facts, {n: t for n, t in weights.items() if n != "head.bias"}, whole=True)
    with pytest.raises(InputError, match="not those of the model that is described"):
        build_served(facts, {**weights, "head.bias": torch.zeros(7)}, whole=True)


def test_facts_are_read_as_they_were_written_and_nothing_else_is(tmp_path):
    file, facts = tmp_path / "model.json", facts_for("segmentation", temperature=1.5)
    file.write_text(facts.model_dump_json())
    assert read_facts(file) == facts
    for wrong in ("{}", "nonsense", file.read_text().replace('"version":1', '"version":99')):
        file.write_text(wrong)
        with pytest.raises(InputError, match="describes no model that this version can load"):
            read_facts(file)


def test_other_weights_of_the_source_are_refused(tmp_path):
    weights = tmp_path / "weights.pth"
    study = make_study(source={"model": "timm/resnet10t", "weights": str(weights)})
    identities = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("resnet10t").state_dict(), weights)
        identities.append(locate(study.source).identity)
    then, now = (StudyFacts({}, ["a", "b"], 36, {"source weights identity": which}) for which in identities)
    check_weights(study, now, "feature_extractor")
    with pytest.raises(InputError, match=r"source.weights: .* not those that the study was run with"):
        check_weights(study, then, "feature_extractor")
    check_weights(study, then, "scratch")  # nothing in it is of the source
