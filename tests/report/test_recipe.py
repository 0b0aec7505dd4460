"""The recipe says what was chosen, and its lines repeat the run where nothing of `bench` is imported."""

import ast
import math
import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import yaml

from bench.analysis.evidence import Evidence
from bench.analysis.summary import summarise
from bench.core.runs import Purpose, RunSpec
from bench.experiment.plan import plan
from bench.experiment.run_executor import RunExecutor
from bench.report.recipe import recipe
from bench.report.recipe_code import _rate
from bench.strategies.registry import STRATEGIES
from bench.study.loading import load
from bench.study.schema import Training
from bench.study_record import read, write
from bench.training.schedules import Course
from bench.training.setup import Compute, TrainingSetup
from tests.support.synthetic import LEVEL, SECONDS, make_evidence, make_study
from tests.support.tiny_study import write_tiny_study

PARTS = {"stem": ("conv_stem", "bn1"), "stage1": ("blocks.0",), "stage2": ("blocks.1", "conv_head")}


def made(strategy="full", params=None, **changes):
    """Return evidence of a strategy, with a split, and hyperparameters of two seeds."""
    study = make_study(strategies=[strategy], seeds=2, **changes)
    evidence = make_evidence(study, images=40)
    runs = evidence.runs.drop(columns="param_lr")
    params = params or {"head_rate": 20.0}
    chosen = {"learning_rate": [1e-3, 3e-4], "weight_decay": 0.01, **params}
    runs = runs.assign(**{f"param_{name}": value for name, value in chosen.items()}, val_accuracy=[0.9, 0.8])
    split = pd.DataFrame(
        [("a/1.png", "a", "train", "0"), ("b/1.png", "b", "train", "1"), ("a/2.png", "a", "val", "")],
        columns=["image", "class", "part", "seeds"],
    )
    return replace(evidence, runs=runs, split=split, side=256, parts=PARTS)


def of(evidence):
    return recipe(evidence, summarise(evidence))


class TestRecipe:
    def test_a_row_for_each_hyperparameter(self):
        found = of(made())
        assert found.headers == [
            "Strategy",
            "Hyperparameter",
            "Best run",
            "All seeds",
            "Default",
            "Range tried",
        ]
        assert found.rows[0] == [
            *("full", "learning rate", "0.001", "0.0003 to 0.001", "0.0003", "0.00003 to 0.003")
        ]
        assert [row[1] for row in found.rows] == [
            *("learning rate", "weight decay", "learning rate of the head, in times that of the backbone")
        ]

    def test_without_tuning_nothing_was_tried(self):
        assert {row[-1] for row in of(made(tuning={"trials": 1})).rows} == {"default only"}

    def test_the_settings_of_the_best_run_can_be_copied(self):
        said = yaml.safe_load(of(made()).yaml)
        assert (said["strategy"], said["seed"], said["image_size"]) == ("full", 0, 224)
        assert said["hyperparameters"] == {"learning_rate": 0.001, "weight_decay": 0.01, "head_rate": 20}

    def test_the_split_is_that_of_the_seed(self):
        assert of(made()).split.splitlines()[1:] == ["a/1.png,a,train", "a/2.png,a,val"]

    @pytest.mark.parametrize(
        ("strategy", "params", "rates"),
        [
            ("full", {"head_rate": 20.0}, {"backbone": 1, "head": 20.0}),
            ("feature_extractor", {"head_rate": 1.0}, {"backbone": 0, "head": 1.0}),
            (
                "partial",
                {"head_rate": 5.0, "unfrozen": 1},
                {
                    **dict.fromkeys(["backbone.conv_stem", "backbone.bn1", "backbone.blocks.0"], 0),
                    **dict.fromkeys(["backbone.blocks.1", "backbone.conv_head"], 1),
                    "head": 5.0,
                },
            ),
        ],
    )
    def test_its_lines_are_those_of_the_plan(self, strategy, params, rates):
        code = of(made(strategy, params)).code
        ast.parse(code)
        assert ast.literal_eval(re.search(r"^rates = (\{.*?\})", code, re.MULTILINE)[1]) == rates
        assert max(map(len, code.splitlines())) < 200

    @pytest.mark.parametrize(
        ("strategy", "params", "changes", "reason"),
        [
            ("head_first", None, {}, "several phases"),
            ("linear_probe", {"l2_strength": 1.0}, {}, "solved and not trained"),
            ("lora", {"rank": 4}, {}, "an adapter"),
            ("l2_sp", {"l2_sp": 0.1, "head_rate": 1.0}, {}, "near its start"),
            ("full", None, {"source": {"model": "torchvision/resnet18"}}, "models of timm"),
            ("full", None, {"head": {"kind": "concat_pool"}}, "linear head"),
        ],
    )
    def test_what_takes_more_than_some_lines_is_said(self, monkeypatch, strategy, params, changes, reason):
        monkeypatch.setitem(LEVEL, strategy, 1.0)
        monkeypatch.setitem(SECONDS, strategy, 1.0)
        found = of(made(strategy, params, **changes))
        assert reason in found.why_not
        assert (found.code, set(found.files)) == ("", {"recipe.yaml"})

    @pytest.mark.parametrize(
        ("fit", "words"),
        [("crop", "CenterCrop(min"), ("pad", "ImageOps.pad"), ("stretch", "return image.resize")],
    )
    def test_pictures_become_squares_as_in_the_study(self, fit, words):
        assert words in of(replace(made(), fit=fit)).code

    def test_without_the_split_there_is_none(self):
        assert "split" in of(replace(made(), split=pd.DataFrame())).why_not

    def test_a_smoke_test_has_no_recipe(self):
        assert of(replace(made(), budget="smoke")) is None


@pytest.mark.parametrize("schedule", ["plateau", "one_cycle", "cosine", "step", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_the_rate_is_that_of_training(schedule, warmup):
    """At every step of a phase that takes all its steps, or ends early at a plateau."""
    training = Training(schedule=schedule, warmup=warmup, steps=100, evaluations=10, patience=2)
    course, rates = Course(training, range(10, 101, 10), may_stop=True), []
    while not course.is_over:
        first, last = course.steps_done, course.next_evaluation
        rates += [course.factor(step) for step in range(first, last)]
        course.note(0.5)
    falls = course.evaluations[course._falls_after - 1] if course._falls_after else len(rates)
    expression = _rate(training, len(rates), falls, 100)
    said = [eval(expression, {"math": math, "step": step}) for step in range(len(rates))]
    assert said == pytest.approx(rates, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "partial"])
def test_the_lines_reach_the_score_of_the_run(tmp_path, monkeypatch, strategy):
    settings = {"steps": 90, "batch_size": 8, "precision": "fp32"}
    write_tiny_study(tmp_path, strategies=[strategy], training=settings, tuning={"trials": 1}, seeds=1)
    monkeypatch.chdir(tmp_path)
    laid_out = plan(load("tiny.yaml"))
    setup = TrainingSetup(laid_out.study, laid_out.dataset, laid_out.origin, Compute("cpu", 1))
    params = STRATEGIES[strategy].defaults | {"learning_rate": 3e-3}
    spec = RunSpec(laid_out.arms[0], params, 1, Purpose.FINAL)
    executed = RunExecutor(setup).run(spec, laid_out.splits[1])
    found = of(_evidence(laid_out, executed, params))
    for name, text in found.files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    said = subprocess.run(
        [sys.executable, "recipe.py", "images"], check=True, capture_output=True, text=True
    ).stdout
    reached, expected = map(float, re.search(r"accuracy ([\d.]+); the study had ([\d.]+)", said).groups())
    tolerance = float(re.search(r"to within (\d\.\d+)", found.code)[1])
    assert expected == pytest.approx(executed.result.metrics["val/accuracy"], abs=1e-3)
    assert abs(reached - expected) <= tolerance


def _evidence(laid_out, executed, params):
    """Return what the store would hold of a run."""
    result, strategy = executed.result, executed.result.spec.arm.strategy
    metrics = {name.replace("/", "_", 1): value for name, value in result.metrics.items()}
    key = {"strategy": strategy, "seed": 1}
    run = {**key, "status": "done", **metrics, **{f"param_{n}": v for n, v in params.items()}}
    curve = [{**key, **{n.replace("/", "_", 1): v for n, v in row.items()}} for row in result.curve]
    return Evidence(
        laid_out.study,
        pd.DataFrame([run]),
        pd.DataFrame(),
        pd.DataFrame(curve),
        pd.DataFrame({**executed.predictions.columns, **key}),
        split=write._split(laid_out).astype(str),
        side=laid_out.dataset.images.shape[1],
        parts=read.parts_of_stages(executed.plan),
    )
