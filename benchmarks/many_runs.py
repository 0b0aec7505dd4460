"""Report on a study of 5,000 stored runs: seconds and memory. `python -m benchmarks.many_runs`.

Five strategies with 900 trials and 100 seeds each, 10 evaluations a run and 200 test images, in SQLite.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from bench.core.runs import (
    Arm,
    Purpose,
    RunResult,
    RunSpec,
    Status,
)
from bench.data.dataset import UNASSIGNED, Dataset, Split
from bench.experiment.plan import Plan
from bench.study.schema import Study
from bench.study_record import write
from bench.tracking.store import open_store

TRIALS, SEEDS, EVALUATIONS, STEPS, IMAGES = 900, 100, 10, 20, 200
CLASSES = tuple("abcdefghij")


def make_plan(trials, seeds):
    study = Study.model_validate(
        {
            "name": "many",
            "question": "How long does a report on this take?",
            "scenario": {"size": "small", "similarity": "similar"},
            "source": {"model": "timm/resnet18"},
            "target": {"data": "made-up"},
            "training": {"steps": EVALUATIONS * STEPS},
            "tuning": {"trials": trials},
            "seeds": seeds,
        }
    )
    draw = np.random.default_rng(0)
    labels = np.arange(IMAGES * 2) % len(CLASSES)
    pixels = draw.integers(0, 256, (len(labels), 64, 64, 3), dtype=np.uint8)
    names = tuple(f"{CLASSES[label]}/{n}.png" for n, label in enumerate(labels))
    dataset = Dataset("made-up", CLASSES, pixels, labels, np.full(len(labels), UNASSIGNED), names, "0" * 64)
    half = np.arange(IMAGES)
    split = Split(half[: IMAGES // 2], half[IMAGES // 2 :], half + IMAGES)
    arms = tuple(Arm(study.name, name, {}) for name in study.strategies)
    return Plan(study, dataset, SimpleNamespace(text="none", identity="0"), {1: split}, arms)


def fill(store, plan, folder):
    """Write all runs to the store, as the runner does."""
    draw = np.random.default_rng(0)
    study_run = store.open_study(plan.study.name, plan.key, {}, {})
    write.record(store, study_run, plan, "default")
    truth = [CLASSES[label] for label in plan.dataset.labels[plan.splits[1].test]]
    names = [plan.dataset.names[index] for index in plan.splits[1].test]
    for level, arm in enumerate(plan.arms):
        arm_run = store.open_arm(study_run, arm, {}, {})
        for number in range(plan.study.tuning.trials):
            spec = RunSpec(arm, {"learning_rate": 1 / (1 + number), "weight_decay": 0.1}, 0, Purpose.TRIAL)
            live = store.start(spec, arm_run, f"trial {number}", {}, {"trial": number})
            live.finish(result(spec, 0.9 - number * 1e-4, draw, {}))
        best = {"learning_rate": 1.0, "weight_decay": 0.1}
        for seed in range(1, plan.study.seeds + 1):
            spec = RunSpec(arm, best, seed, Purpose.FINAL)
            right = draw.random(IMAGES) < 0.5 + level / 12
            given = [t if r else CLASSES[draw.integers(10)] for t, r in zip(truth, right, strict=True)]
            file = folder / "predictions.csv"
            rows = {"image": names, "target": truth, "prediction": given, "probability": 0.5}
            pd.DataFrame(rows).to_csv(file, index=False)
            accuracy = float(np.mean([t == g for t, g in zip(truth, given, strict=True)]))
            moved = {f"stage/{d}-stage{d}/{what}": d / 10 for d in range(6) for what in ("change", "cka")}
            tests = {f"test/{name}": accuracy for name in ("accuracy", "balanced_accuracy", "loss")}
            live = store.start(spec, arm_run, f"seed {seed}", {}, {})
            live.finish(result(spec, accuracy, draw, tests | moved), {"predictions.csv": file})
        store.writer.close(arm_run, "FINISHED")
    store.writer.close(study_run, "FINISHED")


def result(spec, accuracy, draw, more):
    names = ("val/accuracy", "val/balanced_accuracy", "val/loss", "train/loss", "learning_rate")
    curve = tuple(
        {"step": number * STEPS, **{n: accuracy * (1 - 0.5**number) + draw.random() / 50 for n in names}}
        for number in range(1, EVALUATIONS + 1)
    )
    metrics = dict.fromkeys(names[:4], accuracy) | more
    last, seconds = EVALUATIONS * STEPS, 10 + draw.random()
    return RunResult(spec, Status.DONE, metrics, curve, last, last, seconds, 1.0, 1000, 10**9)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--folder", type=Path, help="keep the store here, or use the one that is there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        uri = f"sqlite:///{folder}/mlflow.db"
        if not (folder / "mlflow.db").exists():
            started = time.perf_counter()
            fill(
                open_store(uri, "bench/many", create=True),
                make_plan(given.trials, given.seeds),
                Path(temporary),
            )
            print(f"store filled in {time.perf_counter() - started:.0f} s")
        command = [sys.executable, "-m", "bench", "report", "--study", "many", "--tracking-uri", uri]
        environment = {**os.environ, "BENCH_HOME": str(folder), "BENCH_CACHE": str(folder)}
        started = time.perf_counter()
        subprocess.run([*command, "--output", str(folder)], check=True, env=environment)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(f"bench report: {seconds:.1f} s, peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
