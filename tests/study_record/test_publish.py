"""What a person finds who browses MLflow: descriptions, means on a strategy's run, the report's files."""

from dataclasses import replace

import pytest

from bench.analysis.verdict import SMOKE_TEST
from bench.core.runs import Arm
from bench.core.text import escape_markdown
from bench.report.study_report import write
from bench.study_record import freshness
from bench.study_record.publish import _arm_note, _study_note, publish
from bench.tracking.frames import FoundStudy
from bench.tracking.store import open_store
from bench.tracking.writer import NOTE
from tests.support.synthetic import make_evidence, make_study


@pytest.fixture(scope="module")
def published(tmp_path_factory, new_store):
    folder = tmp_path_factory.mktemp("published")
    evidence = make_evidence(make_study(strategies=["scratch", "full"]), failed=[("scratch", 1)])
    store = open_store(new_store(folder / "mlflow.db"), "bench/small_similar", create=True)
    run_id = store.open_study("small_similar", "k", {}, {})
    for name in evidence.strategies:
        store.open_arm(run_id, Arm("small_similar", name, {}), {}, {})
    write(evidence, folder / "report")
    said = freshness.read(folder / "report")
    publish(store, FoundStudy(run_id, {}, "", None), evidence, said, folder / "report")
    return store, run_id, evidence, said


def test_a_strategys_run_has_the_means_of_its_seeds(published):
    store, run_id, evidence, _ = published
    arms = store.reader.arms(run_id)
    assert set(arms) == {"scratch", "full"}
    for strategy, arm in arms.items():
        metrics = store.connection.client.get_run(arm).data.metrics
        own = evidence.done[evidence.done["strategy"] == strategy]
        assert metrics["test/accuracy"] == pytest.approx(own["test_accuracy"].mean())
        assert metrics["val/balanced_accuracy"] == pytest.approx(own["val_balanced_accuracy"].mean())
        assert metrics["train_seconds"] == pytest.approx(own["train_seconds"].mean())
        assert metrics["test/accuracy_low"] < metrics["test/accuracy"] < metrics["test/accuracy_high"]


def test_descriptions_say_what_the_report_says(published):
    store, run_id, _, said = published
    note = store.connection.client.get_run(run_id).data.tags[NOTE]
    first, question = note.split("\n\n")[:2]
    assert first.startswith("**Use `")
    assert question == "**Is a linear classifier enough?**"
    assert escape_markdown(said["verdict"]) in note
    for row in said["table"]["rows"]:
        assert f"| {' | '.join(map(escape_markdown, row))} |" in note
    arm = store.connection.client.get_run(store.reader.arms(run_id)["full"]).data.tags[NOTE]
    assert arm.startswith("**full**: ")


def test_the_study_s_run_names_the_best_and_what_is_recommended_with_its_interval(published):
    store, run_id, _, said = published
    run = store.connection.client.get_run(run_id)
    assert run.data.tags["best"] == said["best"]
    assert run.data.tags["recommended"] == said["recommendation"]["strategy"]
    (best,) = (result["test"] for result in said["results"] if result["strategy"] == said["best"])
    found = [run.data.metrics[f"test/accuracy{end}"] for end in ("_low", "", "_high")]
    assert found == pytest.approx([best["low"], best["value"], best["high"]])


def test_the_experiment_says_what_it_is_about(published):
    store, _, _, said = published
    experiment = store.connection.client.get_experiment(store.connection.experiment_id)
    assert experiment.tags[NOTE].startswith(escape_markdown(said["question"]))


def test_a_description_fetches_nothing(published):
    """MLflow draws descriptions as Markdown: a picture in one is fetched by who opens the run."""
    _, _, _, said = published
    note = _study_note(
        {**said, "question": "![x](http://a/b.png) <img src=http://a/c.png>\n\n![y][1]\n[1]: http://a"}
    )
    question = note.split("\n\n")[1]
    assert question == r"**\![x]\(http://a/b.png) &lt;img src=http://a/c.png&gt; \![y]\[1] [1]\: http://a**"


def test_the_report_is_among_the_artifacts(published):
    store, run_id, _, _ = published
    files = {file.path for file in store.connection.client.list_artifacts(run_id, "report")}
    assert {"report/index.html", "report/report.md", "report/runs.csv", "report/figures"} <= files


def test_a_smoke_test_says_so_first(tmp_path):
    evidence = replace(make_evidence(make_study(strategies=["scratch", "full"]), images=20), budget="smoke")
    write(evidence, tmp_path)
    said = freshness.read(tmp_path)
    assert _study_note(said).startswith(f"**{SMOKE_TEST}**")
    assert SMOKE_TEST in _arm_note(said, "full")
