"""Simulate how often intervals and answers are wrong; write reports/statistics.

python -m benchmarks.statistics [--studies 3000] [--folder reports/statistics]
"""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # small products: more threads only wait for each other

import numpy as np
import pandas as pd

from benchmarks.statistics import metrics, report, simulation


def simulate(cells, studies):
    """Return a row for each cell: what it is, and how often something is wrong or found."""
    rows = []
    for number, cell in enumerate(cells):
        rates = simulation.measure(cell, studies, np.random.default_rng([number, studies]))
        names = {counts: name for name, counts in simulation.GROUPS.items()}
        rows.append({**asdict(cell), "grouped": names[cell.groups, cell.size], **rates})
        if (number + 1) % 12 == 0:
            print(f"{number + 1} of {len(cells)} cells", flush=True)
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=3000, help="simulated in each cell")
    parser.add_argument("--folder", type=Path, default=Path("reports/statistics"))
    given = parser.parse_args()
    tables = {
        "cells": simulate(simulation.CELLS, given.studies),
        "alike": simulate(simulation.ALIKE, given.studies),
    }
    of_metrics = metrics.coverage(max(1, given.studies // 3), np.random.default_rng(0))
    tables["metrics"] = pd.DataFrame({"metric": list(of_metrics), "coverage": list(of_metrics.values())})
    report.write(given.folder, tables, given.studies)
    print((given.folder / "checks.csv").read_text())


if __name__ == "__main__":
    main()
