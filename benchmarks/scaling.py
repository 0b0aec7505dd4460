"""What a cluster costs: Ray, an MLflow server and PostgreSQL. `make scaling`, into reports/scaling.

All is on this machine: workers that sleep show what handing out costs, runs that are logged show where the
store becomes the limit.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import pandas as pd
from matplotlib.figure import Figure

from bench.core.runs import Purpose, RunSpec
from bench.experiment.events import Message
from bench.experiment.scheduler.base import Job
from bench.experiment.scheduler.cluster import RayScheduler, Share, connect
from bench.system.provenance import describe
from bench.tracking.store import open_store, open_study_store
from benchmarks.many_runs import make_plan, result
from tests.faults.test_store_away import running_server
from tests.support.postgres import running_postgres
from tests.support.ray_nodes import running_nodes

EXPERIMENT = "bench/many"
WORKERS = (2, 4, 8, 16)
STEP = 500  # runs between two looks at the store
PARAMS = {f"setting_{number}": number for number in range(20)}


@dataclass(frozen=True)
class Sleeping:
    """Jobs that take so many seconds and no processor."""

    seconds: float

    def check(self):
        pass

    def open(self, _emit):
        def do(_job):
            time.sleep(self.seconds)
            return True

        return do


@dataclass(frozen=True)
class Logging:
    """Jobs of a tenth of a second, each of which logs a run: 20 params, 10 evaluations, final values."""

    uri: str
    arm_run: str
    experiment_id: str

    def check(self):
        pass

    def open(self, emit):
        import numpy as np

        plan = make_plan(trials=1, seeds=1)
        store = open_study_store(self.uri, EXPERIMENT, self.experiment_id)
        draw = np.random.default_rng(0)

        def do(job):
            time.sleep(0.1)
            spec = RunSpec(plan.arms[0], {"learning_rate": 0.1}, job.seed, Purpose.FINAL)
            began = time.perf_counter()
            live = store.start(spec, self.arm_run, f"seed {job.seed}", PARAMS, {})
            live.finish(result(spec, 0.9, draw, {"test/accuracy": 0.9}), {})
            emit(Message(str(time.perf_counter() - began)))
            return True

        return do


@contextmanager
def cluster(folder, processors):
    """One node with so many processors on paper."""
    with running_nodes(folder, cpus=processors) as nodes:
        connect(nodes.address)
        yield
        import ray

        ray.shutdown()


def timed(work, jobs, workers):
    """Do jobs; return the seconds by the clock, those of this process, and what was said."""
    said = []
    scheduler = RayScheduler(Share("cpu", 1, 0, 1.0, workers), most=workers)
    wall, own = time.perf_counter(), time.process_time()
    scheduler.run(jobs, work, lambda _job: None, said.append)
    return time.perf_counter() - wall, time.process_time() - own, said


def jobs(count, first=1):
    return [Job("full", seed) for seed in range(first, first + count)]


def efficiencies(seconds, rounds):
    """The share of its time that each worker sleeps, for each number of them; the start is counted."""
    rows = []
    for workers in WORKERS:
        timed(Sleeping(0.5), jobs(2 * workers), workers)  # until each has a process
        wall, _, _ = timed(Sleeping(seconds), jobs(rounds * workers), workers)
        rows.append({"workers": workers, "seconds": wall, "efficiency": rounds * seconds / wall})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def logged(uri, runs, workers):
    """Seconds of the driver for each run, runs a second and the store's seconds, as the runs grow."""
    plan = make_plan(trials=1, seeds=1)
    store = open_store(uri, EXPERIMENT, create=True)
    study_run = store.open_study(plan.study.name, plan.key, {}, {})
    arm_run = store.open_arm(study_run, plan.arms[0], {}, {})
    work = Logging(uri, arm_run, store.connection.experiment_id)
    timed(work, jobs(2 * workers), workers)
    rows = []
    for first in range(0, runs, STEP):
        wall, own, said = timed(work, jobs(min(STEP, runs - first), 1000 + first), workers)
        count = min(STEP, runs - first)
        began = time.perf_counter()
        found = store.connection.search("attributes.status = 'FINISHED'")
        searched = time.perf_counter() - began
        latencies = [float(event.text) for event in said if isinstance(event, Message)]
        rows.append(
            {
                "runs": len(found),
                "runs_a_second": count / wall,
                "driver_ms_a_run": 1000 * own / count,
                "store_ms_a_run": 1000 * statistics.median(latencies),
                "search_ms_a_run": 1000 * searched / len(found),
            }
        )
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def checks(shares, growth, rounds, seconds):
    rows = [
        (
            f"share of time that {row.workers} workers sleep, {rounds} jobs of {seconds:g} s each",
            row.efficiency,
            ">= 0.9",
            row.efficiency >= 0.9,
        )
        for row in shares.itertuples()
    ]
    driver = growth["driver_ms_a_run"].median()
    rows.append(("milliseconds of the driver for each run of 0.1 s", driver, "<= 30", driver <= 30))
    return pd.DataFrame(rows, columns=["name", "value", "target", "met"]).round({"value": 3})


def draw(shares, growth, path):
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(shares["workers"], shares["efficiency"], "o-")
    left.set(xlabel="workers", ylabel="share of time asleep", ylim=(0, 1.05), title="Handing out")
    middle.plot(growth["runs"], growth["runs_a_second"], "o-")
    middle.set(xlabel="runs in the store", ylabel="runs a second", title="Logging")
    middle.set_ylim(0, 1.15 * growth["runs_a_second"].max())
    right.plot(growth["runs"], growth["store_ms_a_run"], "o-", label="logging a run")
    right.plot(growth["runs"], growth["driver_ms_a_run"], "s-", label="driver, a run")
    right.set(xlabel="runs in the store", ylabel="milliseconds", title="Latency")
    right.set_ylim(0, 1.15 * growth["store_ms_a_run"].max())
    right.legend(frameon=False, loc="center right")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=150)


def write(folder, shares, growth, found, command):
    folder.mkdir(parents=True, exist_ok=True)
    found.to_csv(folder / "checks.csv", index=False)
    shares.round(4).to_csv(folder / "efficiency.csv", index=False)
    growth.round(3).to_csv(folder / "store.csv", index=False)
    draw(shares, growth, folder / "scaling.png")
    here = describe("cpu")
    machine = f"{here['processor']}, {here['usable_cpus']} processors"
    last = growth.iloc[-1]
    logging = (
        f"With {int(last['runs']):,} runs in the store logging one takes {last['store_ms_a_run']:.0f} ms, "
    )
    logging += f"and {last['runs_a_second']:.1f} are logged a second."
    lines = [
        "# What a cluster costs",
        "",
        f"`{command}` on {machine}; Ray, its workers, MLflow's server, PostgreSQL and the driver share them.",
        "",
        "| | measured | target | met |",
        "|---|---|---|---|",
        *(
            f"| {row.name} | {row.value} | {row.target} | {'yes' if row.met else 'no'} |"
            for row in found.itertuples(index=False)
        ),
        "",
        logging,
        "",
        "![Efficiency, runs a second and latency](scaling.png)",
        "",
    ]
    (folder / "report.md").write_text("\n".join(lines), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="that are logged; 20000 for a long look")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a sleeping job takes")
    parser.add_argument("--rounds", type=int, default=30, help="of sleeping jobs for each worker")
    parser.add_argument("--output", type=Path, default=Path("reports/scaling"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ.update(BENCH_HOME=f"{folder}/home", BENCH_CACHE=f"{folder}/cache")
        (folder / "server").mkdir()
        with (
            running_postgres() as database,
            running_server(folder / "server", database.uri) as server,
            cluster(folder, max(WORKERS)),
        ):
            shares = efficiencies(given.seconds, given.rounds)
            growth = logged(server.url, given.runs, 4)
    words, found = " ".join(sys.argv[1:]), checks(shares, growth, given.rounds, given.seconds)
    write(given.output, shares, growth, found, f'make scaling ARGS="{words}"' if words else "make scaling")
    print(json.dumps(found.to_dict("records"), indent=1, default=str))


if __name__ == "__main__":
    main()
