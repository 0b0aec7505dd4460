"""What a person who browses MLflow finds: descriptions, a strategy's means on its run, the report's files."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.text import escape_markdown
from bench.strategies.registry import STRATEGIES
from bench.study_record import freshness
from bench.tracking.frames import COSTS, FoundStudy
from bench.tracking.live_run import Point
from bench.tracking.store import RunStore
from bench.tracking.writer import NOTE

if TYPE_CHECKING:
    from bench.analysis.evidence import Evidence

REPORT = "report"  # folder of the study's run
RECOMMENDED = "recommended"  # the tag of a study's run that names the strategy to use


def publish(
    store: RunStore, found: FoundStudy, evidence: "Evidence", said: Mapping[str, Any], folder: Path
) -> None:
    """Put a report and its numbers where MLflow shows them.

    Args:
        store: of the study's experiment.
        found: the study's run: it gets the files, the verdict and the table.
        evidence: what the report is made of: each strategy's run gets its means.
        said: the report's `summary.json`.
        folder: the report's.

    Raises:
        InputError: if the report in the folder is of other runs: somebody else's was written over it.
    """
    if said.get("fingerprint") != evidence.fingerprint:
        remedy = "run again, with --output for a folder of its own"
        raise InputError("another command has just written its report there", str(folder), remedy)
    store.writer.upload_folder(found.run_id, folder, REPORT)
    store.writer.describe_experiment(_experiment_note(said))
    now = time.time_ns() // 1_000_000
    best = [Point(name, value, now, 0) for name, value in _of_best(said).items()]
    store.writer.write(found.run_id, best, {}, {NOTE: _study_note(said), **_chosen(said)})
    of_baselines = evidence.baselines
    baselines = dict.fromkeys(of_baselines.strategies, of_baselines) if of_baselines else {}
    for strategy, run_id in store.reader.arms(found.run_id).items():
        means = {**_means(baselines.get(strategy, evidence), strategy), **_interval(said, strategy)}
        points = [Point(name, value, now, 0) for name, value in means.items()]
        store.writer.write(run_id, points, {}, {NOTE: _arm_note(said, strategy)})
    store.writer.write(found.run_id, [], {}, {freshness.PUBLISHED: freshness.published(evidence.fingerprint)})


def _means(evidence: "Evidence", strategy: str) -> dict[str, float]:
    """Return the means over the seeds that are done: under the names that the runs themselves have."""
    own = evidence.done[evidence.done["strategy"] == strategy]
    columns = [name for name in own if str(name).startswith(("val_", "test_")) or name in COSTS]
    means = own[columns].astype(float).mean().dropna()
    return {str(n).replace("_", "/", 1) if n not in COSTS else str(n): float(v) for n, v in means.items()}


def _interval(said: Mapping[str, Any], strategy: str) -> dict[str, float]:
    """Return the ends of the 95 % interval of the test metric."""
    for result in (*said["results"], *said["baselines"]):
        if result["strategy"] == strategy and result["test"]:
            name = f"test/{said['metric']}"
            return {f"{name}_low": result["test"]["low"], f"{name}_high": result["test"]["high"]}
    return {}


def _of_best(said: Mapping[str, Any]) -> dict[str, float]:
    """Return the test metric of the best strategy, and the ends of its interval."""
    for result in said["results"]:
        if result["strategy"] == said["best"] and result["test"]:
            name = f"test/{said['metric']}"
            return {name: result["test"]["value"], **_interval(said, said["best"])}
    return {}


def _chosen(said: Mapping[str, Any]) -> dict[str, str]:
    """Return tags that name the best strategy and the recommended one, if there are such."""
    recommended = (said.get("recommendation") or {}).get("strategy")
    named = {"best": said["best"], RECOMMENDED: recommended}
    return {tag: name for tag, name in named.items() if name}


def _experiment_note(said: Mapping[str, Any]) -> str:
    return (
        f"{escape_markdown(said['question'])}\n\nA study's run holds its strategies, and these their trials "
        "and seeds: press **+**. The study's description has its verdict and its table."
    )


def _study_note(said: Mapping[str, Any]) -> str:
    headers, rows = said["table"]["headers"], said["table"]["rows"]
    table = [headers, ["---"] * len(headers), *rows]
    lines = _answer(said)
    lines += [f"| {' | '.join(escape_markdown(str(cell)) for cell in row)} |" for row in table]
    closing = (
        f"The whole report is among the artifacts: `{REPORT}/index.html`. In the chart view, search for "
        "`tags.purpose = 'arm'` and unfold this run to compare strategies; to compare seeds, search for "
        "`tags.purpose = 'final'` and group by `strategy`."
    )
    lines += ["", closing]
    return "\n".join(lines)


def _answer(said: Mapping[str, Any]) -> list[str]:
    """Return what to use, the question and its answer, and what would settle what is open, as Markdown."""
    question, verdict = (escape_markdown(said[key]) for key in ("question", "verdict"))
    if said.get("smoke"):
        return [f"**{verdict}**", "", question, ""]
    lines = []
    if chosen := said.get("recommendation"):
        lines += [f"**Use `{chosen['strategy']}`**: {escape_markdown(chosen['reason'])}.", ""]
    lines += [f"**{question}**", "", verdict, ""]
    if said.get("ruling"):
        ruling = f"Rule of thumb: {said['ruling']['outcome']}. {said['ruling']['sentence']}"
        lines += [escape_markdown(ruling), ""]
    if settling := said.get("settling"):
        command = [f"`{settling['command']}`"] * bool(settling["command"])
        lines += [" ".join([escape_markdown(settling["sentence"]), *command]), ""]
    return lines


def _arm_note(said: Mapping[str, Any], strategy: str) -> str:
    headers, rows = said["table"]["headers"], said["table"]["rows"]
    row = next((row for row in rows if row[0] == strategy), [strategy])
    lines = [f"**{strategy}**: {STRATEGIES[strategy].summary}." if strategy in STRATEGIES else strategy, ""]
    lines += [
        escape_markdown(f"- {header}: {cell}") for header, cell in zip(headers[1:], row[1:], strict=False)
    ]
    lines += ["", escape_markdown(said["verdict"])] if said.get("smoke") else []
    lines += [
        "",
        "Metrics of this run are means over its seeds; `test/..._low` and `_high` the 95 % interval.",
    ]
    return "\n".join(lines)
