"""What a run costs more because its files are waited for: milliseconds. `python -m benchmarks.durability`.

Final runs with weights and predictions go to a SQLite store, in turn with and without waiting for the disk.
What SQLite itself waits for is in both.
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np

from bench.core.runs import Purpose, RunSpec
from bench.tracking.store import open_store
from benchmarks.many_runs import make_plan, result

RUNS, WEIGHTS, PREDICTIONS = 50, 4_000_000, 20_000  # runs of each kind; bytes of a run's files


def write_run(store, arm, arm_run, seed, files):
    """Log a final run from its beginning to its end; return the milliseconds that took."""
    spec = RunSpec(arm, {"learning_rate": 0.1}, seed, Purpose.FINAL)
    found = result(spec, 0.9, np.random.default_rng(seed), {"test/accuracy": 0.9})
    began = time.perf_counter()
    store.start(spec, arm_run, f"seed {seed}", {}, {}).finish(found, files)
    return 1000 * (time.perf_counter() - began)


def measure(folder, runs):
    """Return the milliseconds of each run that waits for the disk, and of each that does not."""
    plan = make_plan(trials=1, seeds=2 * runs)
    store = open_store(f"sqlite:///{folder}/mlflow.db", "bench/durability", create=True)
    study_run = store.open_study(plan.study.name, plan.key, {}, {})
    arm_run = store.open_arm(study_run, plan.arms[0], {}, {})
    files = {"weights.safetensors": os.urandom(WEIGHTS), "predictions.csv": os.urandom(PREDICTIONS)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    places = {name: folder / name for name in files}
    write_run(store, plan.arms[0], arm_run, 0, places)  # what only the first one imports
    waiting, not_waiting = [], []
    for seed in range(1, 2 * runs + 1):
        waits = seed % 2
        with nullcontext() if waits else mock.patch("os.fsync"):
            took = write_run(store, plan.arms[0], arm_run, seed, places)
        (waiting if waits else not_waiting).append(took)
    return waiting, not_waiting


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="of each kind")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that is meant")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix=".durability-") as folder:
        kinds = measure(Path(folder).resolve(), given.runs)
    for name, taken in zip(("waiting for the disk", "not waiting"), kinds, strict=True):
        print(f"{name}: {statistics.median(taken):.1f} ms a run (median of {len(taken)})")


if __name__ == "__main__":
    main()
