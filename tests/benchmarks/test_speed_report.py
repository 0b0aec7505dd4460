"""The report of the benchmark: how cost grows, and that it is drawn again from what is stored."""

import json

import pandas as pd
import pytest

from benchmarks.report import (
    ADDED,
    IMAGES,
    IN_TURN,
    PIXELS,
    TRIALS,
    UNITS,
    draw,
    growth,
    strategies_added,
)


def sizes(what, seconds):
    frame = pd.DataFrame(list(seconds.items()), columns=["size", "seconds"])
    return frame.assign(what=what)[["what", "size", "seconds"]]


def test_a_fixed_cost_is_not_taken_for_slow_growth():
    found = growth(sizes(IMAGES, {n: 3 + 0.01 * n for n in (100, 200, 400, 800)}), *UNITS[IMAGES])
    assert (found.fixed, found.each, found.unit) == (pytest.approx(3), pytest.approx(0.01), "image")
    assert found.exponent == pytest.approx(0.652, abs=0.001)  # 11 s for 800, 7 s for 400: log2(11 / 7)


def test_the_cost_of_an_image_is_by_its_square_pixels():
    found = growth(sizes(PIXELS, {n: 1 + 1e-4 * n**2 for n in (48, 64, 96, 128)}), *UNITS[PIXELS])
    assert (found.fixed, found.each) == (pytest.approx(1), pytest.approx(1e-4))


def test_strategies_added_in_turn_have_seconds_of_their_own():
    found = strategies_added(sizes(IN_TURN, {1: 6.0, 2: 10.0, 4: 17.0, 5: 17.5}))
    assert found == [
        ("full", 6.0), ("partial", 4.0), ("discriminative and scratch", 7.0), ("feature_extractor", 0.5),
    ]  # fmt: skip


def test_it_is_drawn_again_from_what_is_stored(tmp_path):
    growing = {what: {n: float(n) for n in (1, 2, 4, 8)} for what in (IMAGES, PIXELS, TRIALS)}
    growing[IN_TURN] = {n: float(n) for n in range(1, len(ADDED) + 1)}
    ratio = {
        "name": "full / timm",
        "median": 1.1,
        "low": 1.0,
        "high": 1.2,
        "target": "at least 1",
        "met": "yes",
    }
    setting = {"setting": "compile", "model": "resnet18", "side": 64, "cold": 9.0, "pays_after": None}
    tables = {
        "ratios": pd.DataFrame([ratio | {"how": "in turn"}]),
        "scaling": pd.concat([sizes(what, seconds) for what, seconds in growing.items()]),
        "profile": pd.DataFrame({"part": ["training"], "seconds": [3.0]}),
        "settings": pd.DataFrame([setting | {"seconds_without": 1.0, "seconds_with": 0.5, "gain": 2.0}]),
    }
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    measured = {"agreement": None, "environment": {"command": "make benchmark"}}
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    draw(tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"ratios.png", "scaling.png", "profile.png"}
    page = (tmp_path / "report.md").read_text()
    assert "1 per trial | 1.00 |" in page
    assert "| scratch | 1.0 |" in page
    assert "Over all of them the exponent is 1.00" in page
