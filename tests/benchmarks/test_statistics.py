"""The simulation of how often verdicts are wrong: its truth, and that it measures what a study does."""

import numpy as np
import pandas as pd
import pytest

from bench.analysis.comparisons import compare_all
from benchmarks.statistics import metrics, report
from benchmarks.statistics.simulation import (
    CELLS,
    MARGIN,
    Cell,
    Studies,
    cover,
    draw,
    equivalent,
    level_and_seed_sd,
    measure,
)
from tests.support.synthetic import crossed_of


@pytest.mark.parametrize("accuracy", [0.6, 0.97])
def test_accuracy_and_its_spread_between_seeds_are_those_asked_for(accuracy):
    right = draw(Cell(10, 0.03, 600, 1, accuracy), [accuracy], 300, np.random.default_rng(0))
    values = right.mean(axis=-1)[:, 0]
    assert values.mean() == pytest.approx(accuracy, abs=0.002)
    sampling = accuracy * (1 - accuracy) / 600
    assert np.sqrt(values.var(axis=1, ddof=1).mean()) == pytest.approx(
        np.hypot(0.03, sampling**0.5), rel=0.15
    )


def test_no_spread_between_seeds_is_none():
    level, latent = level_and_seed_sd(0.8, 1e-6)
    assert (level, latent) == pytest.approx((0.8416, 0), abs=1e-3)


def test_seeds_with_all_in_common_are_alike():
    right = draw(Cell(4, 0.05, 2000, 1, 0.8, overlap=1.0), [0.8], 30, np.random.default_rng(1))
    values = right.mean(axis=-1)[:, 0]
    assert values.mean(axis=1).std() > 0.03
    assert values.std(axis=1).mean() < 0.015


@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_what_is_measured_of_many_studies_is_what_is_measured_of_one(overlap):
    cell = Cell(3, 0.02, 16, 5, 0.9, overlap)
    right = draw(cell, [0.9, 0.9, 0.86], 2, np.random.default_rng(2))
    found = Studies(right, overlap)
    pairs = [(0, 1), (0, 2), (1, 2)]
    spread = found.of_pairs(pairs)
    p = 2 * spread.tail(np.abs(found.means[:, [0, 0, 1]] - found.means[:, [1, 2, 2]]))
    small, _ = equivalent(found, pairs, grouped=True)
    held = cover(found, [0, 1, 2], 0.9, 80)
    for study in range(2):
        times = np.round(right[study].reshape(9, 16) * 5).astype(int)
        images = (np.arange(5) < times[..., None]).reshape(9, 80)  # of each group so many are right
        crossed = crossed_of(images, groups=np.repeat(np.arange(16), 5), overlap=overlap)
        rows = {name: {s: 3 * n + s for s in range(3)} for n, name in enumerate("abc")}
        compared = compare_all(rows, crossed, MARGIN)
        assert p[study] == pytest.approx([c.difference.p for c in compared], rel=1e-5)
        assert small[study].tolist() == [c.relation == "equivalent" for c in compared]
        intervals = [crossed.estimate(list(row.values())) for row in rows.values()]
        assert held[study].tolist() == [e.low <= 0.9 <= e.high for e in intervals]


@pytest.mark.parametrize("accuracy", [0.5, 0.9])
def test_where_all_are_right_the_interval_is_that_of_a_study(accuracy):
    found = Studies(np.ones((1, 1, 3, 16)))
    estimate = crossed_of(np.ones((3, 80)), groups=np.repeat(np.arange(16), 5)).estimate([0, 1, 2])
    assert cover(found, [0], accuracy, 80).item() is bool(estimate.low <= accuracy <= estimate.high)


def test_rates_are_shares_of_studies():
    rates = measure(Cell(3, 0.01, 20, 4, 0.8), 40, np.random.default_rng(3))
    assert set(report.PANELS) <= set(rates)
    assert all(0 <= rate <= 1 for rate in rates.values())
    assert rates["difference"] > 0.85


def test_intervals_of_other_metrics_are_tried():
    assert set(metrics.coverage(2, np.random.default_rng(4))) == set(metrics.NAMES)


def test_a_check_that_is_not_met_says_so_and_the_report_is_written(tmp_path):
    rates = {"strategy": 0.95, "difference": 0.95, "alarm": 0.04, "alarm beside a sixth": 0.03}
    rates |= {"equivalent": 0.02, "not worse": 0.04}
    cells = pd.DataFrame([vars(cell) | {"grouped": "none"} | rates for cell in CELLS])
    cells.loc[5, "alarm"], cells.loc[150, "difference"] = 0.07, 0.98
    tables = {
        "cells": cells,
        "alike": cells,
        "metrics": pd.DataFrame({"metric": ["auroc"], "coverage": [0.95]}),
    }
    report.write(tmp_path, tables, 1000)
    found = pd.read_csv(tmp_path / "checks.csv").set_index("name")
    assert found.columns.tolist() == ["value", "target", "met"]
    assert found[~found["met"]].index.tolist() == [
        "coverage of a difference, 5 and 10 seeds, highest cell",
        "false alarms of 5 equal strategies, highest cell",
    ]
    text = (tmp_path / "report.md").read_text()
    assert "| false alarms of 5 equal strategies, highest cell | 0.070 | <= 0.055 | no |" in text
    assert "In 1 of the cells, at an accuracy of" in text
    assert (tmp_path / "errors.png").stat().st_size > 10_000
