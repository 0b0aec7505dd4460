"""What a person sees: the MLflow UI in a real browser, on a store with three levels of runs."""

import pytest

from bench.core.runs import Purpose
from bench.tracking.live_run import Point
from bench.tracking.store import open_store
from tests.support.tracking_contract import (
    ARMS,
    CURVE,
    SCENARIO,
    open_levels,
    record,
    serving,
    spec,
)

pytestmark = pytest.mark.slow

NAMES = "[col-id='attributes.`Run Name`'] a"
EXPAND = "button[data-component-id*='runnamecellrenderer']"
LINES = ".js-plotly-plot .scatterlayer .trace"


def fill(store):
    for strategy in ARMS:
        study, arm = open_levels(store, strategy=strategy)
        for seed in range(2):
            record(store, arm, spec(strategy, seed))
        trial = store.start(
            spec(strategy, purpose=Purpose.TRIAL), arm, "trial 0", {}, {**SCENARIO, "trial": 0}
        )
        trial.log_evaluation(0, CURVE[0])
        store.writer.close(trial.run_id, "FINISHED")
        store.writer.write(arm, [Point("test/accuracy", 0.6, 1_000, 0)], {}, {})
        store.writer.close(arm, "FINISHED")
    store.writer.close(study, "FINISHED")


@pytest.fixture(scope="module")
def runs_url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ui")
    uri = f"sqlite:///{folder}/mlflow.db"
    open_store(uri, "bench/another", create=True)
    store = open_store(uri, "bench/small_similar", create=True)
    store.writer.describe_experiment("Which of **five**?")
    fill(store)
    with serving(uri, folder) as (_, url):
        assert url.endswith(
            f"/#/experiments/{store.connection.experiment_id}/runs?workflowType=machine_learning"
        )
        yield url


@pytest.fixture
def page(browser, runs_url):
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(60_000)
    page.goto(runs_url)
    page.locator(NAMES).first.wait_for()
    page.locator("[aria-label='Close']").last.click()  # MLflow's assistant
    yield page
    page.close()


def names(page):
    return page.locator(NAMES).all_inner_texts()


def test_three_levels_unfold(page, tmp_path):
    assert names(page) == ["toy"]
    page.locator(EXPAND).first.click()
    page.get_by_role("link", name="scratch", exact=True).wait_for()
    assert names(page) == ["toy", "full", "scratch"] or names(page) == ["toy", "scratch", "full"]
    page.locator(EXPAND).nth(1).click()
    page.get_by_role("link", name="seed 1", exact=True).wait_for()
    assert sorted(names(page)) == ["full", "scratch", "seed 0", "seed 1", "toy", "trial 0"]
    page.screenshot(path=tmp_path / "runs.png")


def test_a_run_shows_a_curve_over_its_steps(page, tmp_path):
    page.locator(EXPAND).first.click()
    page.locator(EXPAND).nth(1).click()
    page.get_by_role("link", name="seed 1", exact=True).click()
    page.get_by_text("Model metrics").first.click()
    section = page.locator(".js-plotly-plot", has=page.locator(".scatterlayer .trace")).first
    section.wait_for()
    assert section.locator(".scatterlayer .trace .point").count() == len(CURVE)
    page.screenshot(path=tmp_path / "run.png")


def test_grouping_by_strategy_compares_the_strategies(page, runs_url, tmp_path):
    page.goto(f"{runs_url}&compareRunsMode=CHART&searchFilter=tags.purpose%20%3D%20%27final%27")
    page.reload()
    page.get_by_role("button", name="Group by").click()
    page.get_by_role("menuitemcheckbox", name="strategy").click()
    page.keyboard.press("Escape")
    page.get_by_text("curve/train/loss").first.wait_for()
    page.locator(LINES).first.wait_for()
    for strategy in ARMS:
        assert page.get_by_text(f"Group: {strategy}").count()
    page.screenshot(path=tmp_path / "charts.png")


def test_strategies_are_compared_by_their_means(page, runs_url, tmp_path):
    page.goto(f"{runs_url}&compareRunsMode=CHART&searchFilter=tags.purpose%20%3D%20%27arm%27")
    page.locator(EXPAND).first.click()
    for strategy in ARMS:
        page.get_by_role("link", name=strategy, exact=True).wait_for()
    page.get_by_text("test/accuracy", exact=True).first.wait_for()
    bars = page.locator(".js-plotly-plot", has=page.locator(".barlayer .point")).first
    bars.wait_for()
    page.screenshot(path=tmp_path / "strategies.png")
    assert bars.locator(".barlayer .point").count() == len(ARMS)
