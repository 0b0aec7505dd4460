"""Measure bench beside what people do today, in one run, and write `reports/performance/`.

    make benchmark                         an hour on two quiet cores, more than half of it small_similar
    make benchmark ARGS="--studies"        and the four studies: hours more

Seconds of rivals whose every epoch is the same are measured for some epochs and multiplied; the report says
where. All of bench's seconds are whole: data preparation, features, training, evaluation and tracking, from
an empty cache and an empty store. What is imported, by rivals and by bench, is imported before.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import numpy as np
import optuna  # noqa: F401
import pandas as pd
import timm  # noqa: F401
import torch
from PIL import Image

import bench.analysis  # noqa: F401
from bench.core.runs import Purpose, RunSpec
from bench.experiment.options import Options
from bench.experiment.plan import Plan, plan
from bench.experiment.progress import Progress
from bench.experiment.run_executor import RunExecutor
from bench.experiment.study_runner import StudyRunner
from bench.strategies.registry import STRATEGIES
from bench.study.allowance import batches_per_epoch
from bench.study.loading import load
from bench.system.provenance import describe
from bench.training.setup import Compute, TrainingSetup
from benchmarks import rivals
from benchmarks.report import (
    ADDED,
    IMAGES,
    IN_TURN,
    PIXELS,
    TRIALS,
    write,
)

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "hymenoptera_data"
SIDE, EPOCHS = 96, 10


@dataclass(frozen=True)
class Ratio:
    """Theirs / ours, or what the name says; `target` is a least value, or with `at_most` a largest one."""

    name: str
    values: tuple[float, ...]
    target: float
    how: str
    at_most: bool = False

    @property
    def row(self):
        median = statistics.median(self.values)
        met = median <= self.target if self.at_most else median >= self.target
        return {
            "name": self.name,
            "median": median,
            "low": min(self.values),
            "high": max(self.values),
            "target": f"{'at most' if self.at_most else 'at least'} {self.target:g}",
            "met": "yes" if met else "no",
            "how": self.how,
        }


class Silent(Progress):
    def say(self, line):
        pass


@contextmanager
def clean_state():
    """Give bench an empty home and an empty cache; whatever was computed before is not there."""
    kept = {name: os.environ.get(name) for name in ("BENCH_HOME", "BENCH_CACHE")}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(BENCH_HOME=f"{folder}/home", BENCH_CACHE=f"{folder}/cache")
        try:
            yield Path(folder)
        finally:
            for name, value in kept.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def seconds(work):
    started = time.perf_counter()
    value = work()
    return time.perf_counter() - started, value


def study(name, **changes):
    return load(name, [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])


def hymenoptera(**changes):
    usual = {
        "target__data": DATA,
        "target__image_size": SIDE,
        "training__epochs": EPOCHS,
        "tuning__pruner": "none",
    }
    return study("hymenoptera", **(usual | changes))


def run(of, jobs=1):
    """Plan and run a study in this process (or in several), with tracking; return the evidence."""
    options = Options("cpu", None, jobs=jobs)
    runner = StudyRunner(plan(of), options, Silent(of.metric))
    runner.run()
    return runner.evidence()


def executor(laid_out: Plan):
    return RunExecutor(TrainingSetup(laid_out.study, laid_out.dataset, laid_out.origin, Compute("cpu")))


def spec(laid_out: Plan, strategy, seed=1, purpose=Purpose.TRIAL, **params):
    arm = next(arm for arm in laid_out.arms if arm.strategy == strategy)
    return RunSpec(arm, {**STRATEGIES[strategy].defaults, **params}, seed, purpose)


def train_alone(mine, laid_out, strategy, **params):
    """One run without tracking: what `RunExecutor.run` gives."""
    return mine.run(spec(laid_out, strategy, **params), laid_out.splits[1]).result


def matrix(strategy):
    """From a number of stages to the multipliers of a strategy's first phase."""
    own = STRATEGIES[strategy]
    return lambda stages: own.plan(stages, own.defaults).phases[0].multipliers


def epochs_of(seen):
    return [epoch.seconds for epoch in seen]


def frozen(repeats):
    """Tuned feature extractor, 20 trials of 10 epochs for each of 5 seeds: a tutorial's run, 100 times."""
    theirs = rivals.tutorial(DATA, SIDE, "frozen", EPOCHS)
    ours, accuracies = [], []
    for _ in range(repeats):
        with clean_state():
            of = hymenoptera(strategies="[feature_extractor]", tuning__trials=20, seeds=5)
            spent, evidence = seconds(lambda of=of: run(of))
            ours.append(spent)
            accuracies.append(evidence.runs["test_accuracy"].mean())
    whole = 100 * sum(epochs_of(theirs))
    how = f"tutorial: one run of {EPOCHS} epochs ({whole / 100:.0f} s) times 100; "
    how += f"ours: {min(ours):.1f} to {max(ours):.1f} s"
    agreement = {
        "tutorial": max(epoch.accuracy for epoch in theirs),
        "bench": statistics.mean(accuracies),
        "images": 153,
    }
    return [Ratio("tuned feature_extractor / tutorial", tuple(whole / s for s in ours), 150, how)], agreement


def partial(repeats):
    theirs = rivals.tutorial(DATA, SIDE, "partial", 3)
    ours = [seconds(ten_trials)[0] for _ in range(repeats)]
    whole = 100 * statistics.mean(epochs_of(theirs))
    how = f"tutorial: 3 epochs ({whole / 100:.1f} s each) times 100 / 3; "
    how += f"ours: {min(ours):.1f} to {max(ours):.1f} s"
    return [Ratio("partial (last stage), 10 trials / tutorial", tuple(whole / s for s in ours), 8, how)]


def ten_trials():
    with clean_state():
        laid_out = plan(hymenoptera())
        mine = executor(laid_out)
        for rate in np.geomspace(1e-4, 1e-2, 10):
            train_alone(mine, laid_out, "partial", unfrozen=1, learning_rate=float(rate))


def full(repeats):
    epochs, images = 3, len(rivals.folders(DATA, SIDE)["train"]) + len(rivals.folders(DATA, SIDE)["val"])
    rivals_of = {
        "tutorial": lambda: rivals.tutorial(DATA, SIDE, "full", epochs),
        "tutorial, batch 32": lambda: rivals.tutorial(DATA, SIDE, "full", epochs, batch_size=32),
        "timm": lambda: rivals.timm_loop(DATA, SIDE, "full", epochs),
    }
    if rivals.has_fastai():
        rivals_of["fastai"] = lambda: rivals.fastai_loop(DATA, SIDE, "full", epochs)
    values = {name: [] for name in rivals_of}
    for _ in range(repeats):
        per_image = seconds(lambda: full_run(epochs))[0] / (plan_size() * epochs)
        for name, work in rivals_of.items():
            values[name].append(seconds(work)[0] / (images * epochs) / per_image)
    how = f"{epochs} epochs each, in turn, per image trained or validated on; data preparation counted"
    targets = {"tutorial": 2}
    return [Ratio(f"full / {name}", tuple(own), targets.get(name, 1), how) for name, own in values.items()]


def full_run(epochs):
    with clean_state():
        laid_out = plan(hymenoptera(training__precision="fp32", training__epochs=epochs))
        train_alone(executor(laid_out), laid_out, "full")


def plan_size():
    """Images that an epoch of ours trains and validates on: val is cut from train, test is apart."""
    with clean_state():
        parts = plan(hymenoptera()).splits[1]
    return len(parts.train) + len(parts.val)


def against_floor(repeats):
    of = study("large_similar", training__epochs=1, target__train_labels=640, target__val_labels=64)
    laid_out = plan(of)
    mine = executor(laid_out)
    how = "640 images at 64 px, one epoch; the floor before and after, 10 steps each"
    return [
        Ratio(f"images/s of {strategy} / floor", floor_shares(laid_out, mine, strategy, repeats), 0.9, how)
        for strategy in ("full", "discriminative")
    ]


def floor_shares(laid_out, mine, strategy, repeats):
    target, batch = laid_out.study.target, laid_out.study.training.batch_size
    classes, shares = len(laid_out.dataset.classes), []
    for _ in range(repeats):
        before = rivals.floor(target.image_size, batch, classes, matrix(strategy), 10)
        result = train_alone(mine, laid_out, strategy)
        after = rivals.floor(target.image_size, batch, classes, matrix(strategy), 10)
        speed = len(laid_out.splits[1].train) / result.train_seconds
        shares.append(speed / statistics.mean((before, after)))
    return tuple(shares)


def tracking(repeats):
    """All of a study's seconds over those that are not spent in the store.

    Two runs beside each other differ by more than the percent or two that is looked for, so the calls to the
    store are timed within one.
    """
    how = (
        "full, 2 trials and a final run as long as the study's, and its baselines, SQLite; all seconds / all "
    )
    how += "but those in calls to MLflow"
    return [Ratio("tracking on / off", tuple(tracked() for _ in range(repeats)), 1.02, how, at_most=True)]


def tracked():
    with clean_state():
        of = study(
            "small_similar", strategies="[full]", tuning__trials=2, seeds=1,
            training__precision="fp32", tuning__pruner="none",
        )  # fmt: skip
        runner = StudyRunner(plan(of), Options("cpu", None, jobs=1), Silent("accuracy"))
        runner.opened.setup  # noqa: B018 - built before the clock starts
        clock = Clock(runner.store.connection.client)
        runner.store.connection.client = clock
        whole = seconds(lambda: (runner.run(), runner.evidence()))[0]
        return whole / (whole - clock.seconds)


class Clock:
    """Passes calls on and adds up their seconds."""

    def __init__(self, client):
        self.client, self.seconds = client, 0.0

    def __getattr__(self, name):
        call = getattr(self.client, name)

        def timed(*args, **options):
            spent, value = seconds(lambda: call(*args, **options))
            self.seconds += spent
            return value

        return timed


def export(laid_out: Plan, folder: Path):
    """Write the images of a split as an ImageFolder for the rivals: lossless, at the size they are stored."""
    dataset, parts = laid_out.dataset, laid_out.splits[1]
    for part, indices in (("train", parts.train), ("val", parts.val)):
        for index in indices:
            place = folder / part / dataset.classes[dataset.labels[index]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(dataset.images[index])).save(place / f"{index}.png")


MODES = {"feature_extractor": "frozen", "partial": "partial"}  # the other strategies train all


def whole_study():
    """small_similar as it is, beside all its trials run to their end with the tutorial's loop."""
    of = study("small_similar")
    with clean_state() as folder:
        laid_out = plan(of)
        export(laid_out, folder / "images")
        per_epoch = batches_per_epoch(len(laid_out.splits[1].train), of.training.batch_size)
        epochs = round(of.tuning.trials * of.seeds * laid_out.evaluations[-1] / per_epoch)
        command = [sys.executable, "-m", "bench", "run", "--study", of.name, "--device", "cpu"]
        command += ["--output", str(folder / "reports")]
        theirs = {
            batch: epochs * sum(tutorial_epoch(folder / "images", of, s, batch) for s in of.strategies)
            for batch in (4, 32)
        }
        ours, *again = (
            seconds(lambda: subprocess.run(command, check=True, capture_output=True))[0] for _ in range(4)
        )
    how = f"ours: {ours:.0f} s, the whole command; tutorial: the second epoch of each strategy times {epochs}"
    return [
        Ratio("small_similar / tutorial", (theirs[4] / ours,), 5, f"{how}: {theirs[4]:.0f} s"),
        Ratio("small_similar / tutorial, batch 32", (theirs[32] / ours,), 1, f"{how}: {theirs[32]:.0f} s"),
        Ratio("small_similar, minutes", (ours / 60,), 10, "default budget, whole command", at_most=True),
        Ratio("finished study again, seconds", tuple(again), 5, "whole command", at_most=True),
    ]


def four_studies():
    """The four studies with their default budgets, from nothing."""
    with clean_state() as folder:
        command = [sys.executable, "-m", "bench", "run", "--study", "all", "--output", str(folder)]
        spent, _ = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    return [Ratio("four studies, minutes", (spent / 60,), 90, "default budget, whole command", at_most=True)]


def tutorial_epoch(folder, of, strategy, batch):
    return rivals.tutorial(folder, of.target.image_size, MODES.get(strategy, "full"), 2, batch)[-1].seconds


def scaling():
    """Seconds of ours as one thing grows."""
    rows = []

    def note(what, size, spent):
        rows.append({"what": what, "size": size, "seconds": spent})

    for images in (100, 200, 400, 800):
        of = study("large_similar", training__epochs=1, target__train_labels=images, target__val_labels=40)
        note(IMAGES, images, one_epoch(of))
    for side in (48, 64, 96, 128):
        of = study("small_similar", training__epochs=1, target__image_size=side)
        note(PIXELS, side, one_epoch(of))
    for trials in (5, 10, 20, 40):
        of = study("small_similar", strategies="[feature_extractor]", tuning__trials=trials, seeds=1)
        note(TRIALS, trials, whole_run(of))
    for count in range(1, len(ADDED) + 1):
        of = study(
            "small_similar", strategies=f"[{', '.join(ADDED[:count])}]", tuning__trials=1, seeds=1,
            training__epochs=1,
        )  # fmt: skip
        note(IN_TURN, count, whole_run(of))
    return pd.DataFrame(rows)


def one_epoch(of):
    laid_out = plan(of.model_copy(update={"training": of.training.model_copy(update={"precision": "fp32"})}))
    result = train_alone(executor(laid_out), laid_out, "full")
    return result.train_seconds + result.eval_seconds


def whole_run(of):
    with clean_state():
        return seconds(lambda: run(of))[0]


def profile():
    """Where the seconds of a small study go, by part of the program."""
    import cProfile
    import pstats

    from bench.report.study_report import write as write_report

    parts = {
        "plan: open data, split": "plan.py:plan",
        "build models": "factory.py:build",
        "frozen features": "feature_store.py:get",
        "training": "loop.py:train",
        "training heads together": "parallel_heads.py:train_heads",
        "test": "run_executor.py:_test",
        "tracking": "store.py:explained",
        "tuning (Optuna)": "tuner.py:_ask",
        "report": "study_report.py:write",
    }
    of = study("small_similar", tuning__trials=2, seeds=2, training__epochs=2)
    with clean_state() as folder:
        profiler = cProfile.Profile()

        def everything():
            write_report(run(of), folder / "report")

        whole = seconds(lambda: profiler.runcall(everything))[0]
        stats = pstats.Stats(profiler).stats
    found = dict.fromkeys(parts, 0.0)
    for (file, _, function), (*_, spent, _callers) in stats.items():
        for name, place in parts.items():
            if f"{Path(file).name}:{function}" == place and "bench" in file:
                found[name] += spent
    found["rest"] = max(0.0, whole - sum(found.values()))
    return pd.DataFrame({"part": list(found), "seconds": list(found.values())})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="how often each ratio is measured")
    parser.add_argument("--studies", action="store_true", help="time the four studies too")
    parser.add_argument("--output", type=Path, default=ROOT / "reports" / "performance")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    repeats = options.repeats
    ratios, agreement = [], {}
    if DATA.is_dir():
        for part in (frozen, partial, full):
            found = part(repeats)
            if part is frozen:
                found, agreement = found
            ratios += show(found)
    else:
        print(f"no {DATA}: what needs it is left out")
    ratios += show(against_floor(repeats)) + show(tracking(repeats)) + show(whole_study())
    if options.studies:
        ratios += show(four_studies())
    print("scaling, profile and settings ...", flush=True)
    tables = {
        "ratios": pd.DataFrame([ratio.row for ratio in ratios]),
        "scaling": scaling(),
        "profile": profile(),
        "settings": settings(),
    }
    made_by = shlex.join(
        ["make", "benchmark", *([f"ARGS={shlex.join(sys.argv[1:])}"] if sys.argv[1:] else [])]
    )
    write(options.output, tables, agreement, describe("cpu") | {"repetitions": repeats, "command": made_by})
    print(json.dumps(agreement))
    print(f"report  {options.output / 'report.md'}")


SHAPES = [
    *(("tf_efficientnet_lite0", side) for side in (64, 224)),
    *((name, 224) for name in ("mobilenetv3_small_100", "resnet18", "resnet50", "convnext_atto")),
    ("vit_tiny_patch16_224", 224),
]
COMPILED = [("tf_efficientnet_lite0", 64)]


def settings():
    """What the settings that are the same for all models bring: a training step with and without each."""
    rows = []
    for name, side in SHAPES:
        formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
        steps = {form: rivals.step(name, side, memory_format=own) for form, own in formats.items()}
        spent = in_turn(steps)
        rows.append(
            {
                "setting": "channels_last",
                "model": name,
                "side": side,
                "cold": 0.0,
                **gain(spent, "contiguous"),
            }
        )
    for name, side in COMPILED:
        steps = {"eager": rivals.step(name, side), "compile": rivals.step(name, side, compiled=True)}
        torch._dynamo.reset()
        cold = seconds(steps["compile"])[0]
        rows.append(
            {"setting": "compile", "model": name, "side": side, "cold": cold, **gain(in_turn(steps), "eager")}
        )
    frame = pd.DataFrame(rows)
    saved = frame["seconds_without"] - frame["seconds_with"]
    frame["pays_after"] = (frame["cold"] / saved * frame["seconds_without"]).where(
        (frame["cold"] > 0) & (saved > 0)
    )
    return frame


def in_turn(steps, rounds=4):
    """The least seconds of each step, measured in turn after one to warm up."""
    spent = [{name: seconds(step)[0] for name, step in steps.items()} for _ in range(rounds)]
    return {name: min(one[name] for one in spent[1:]) for name in steps}


def gain(spent, without):
    other = next(name for name in spent if name != without)
    return {
        "seconds_without": spent[without],
        "seconds_with": spent[other],
        "gain": spent[without] / spent[other],
    }


def show(found):
    for ratio in found:
        row = ratio.row
        spread = f"[{row['low']:.2f}, {row['high']:.2f}]"
        print(f"{row['name']:<46} {row['median']:>8.2f}  {spread}  {row['target']}: {row['met']}", flush=True)
    return found


if __name__ == "__main__":
    main()
