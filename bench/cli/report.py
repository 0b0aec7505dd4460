"""`bench report` and `bench register`: what the store holds of a study, without training anything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import console
from bench.cli.options import (
    Budget,
    BudgetOption,
    Debug,
    Output,
    Overrides,
    Sizes,
    Strategies,
    StudyName,
    StudyNames,
    Tracking,
    asked_for,
    changes,
    label_counts,
    load_all,
)
from bench.core.errors import InputError, NotStoredError

if TYPE_CHECKING:
    from bench.study.schema import Study
    from bench.tracking.frames import FoundStudy
    from bench.tracking.store import RunStore


def report(
    study: StudyNames,
    strategy: Strategies = [],  # noqa: B006
    budget: BudgetOption = Budget.default,
    sizes: Sizes = None,
    set_: Overrides = [],  # noqa: B006
    tracking_uri: Tracking = None,
    output: Output = Path("reports"),
    _debug: Debug = False,
) -> None:
    """Write the report of a study that was run, as far as it is, from the run store alone."""
    changed = changes(strategy, set_)
    if counts := label_counts(sizes):
        for loaded in load_all(study, changed, budget):
            folder = output / f"{report_name(loaded, budget.value)}-sizes"
            report_sizes(loaded, counts, tracking_uri, folder)
        return
    written: list[tuple[Study, Mapping[str, Any]]] = []
    for name, now in asked_for(study, changed, budget):
        try:
            written.append(_report_one(name, now, budget, tracking_uri, output))
        except NotStoredError as error:
            if study != "all":
                raise
            console.say(f"left out  {name}: {error.what}")
    if not written:
        raise InputError("the store holds none of the studies", "--study", "run `bench run` first")
    if study == "all":
        write_overview(written, output / "all")


def _report_one(
    name: str, now: "Study | None", budget: Budget, uri: str | None, output: Path
) -> "tuple[Study, Mapping[str, Any]]":
    """Write a study's report; return the study as it was run, and what the report says."""
    from bench.report.study_report import write
    from bench.study_record import read
    from bench.system import locks

    store = _open(name, now, uri, to_read=True)
    run = _newest(store, name, now, budget)
    evidence = read.gather(store, run)
    for line in evidence.lacking:
        console.complain(f"{name}: {line}")
    folder = output / report_name(evidence.study, budget.value)
    with locks.folder_locked(folder):
        write(evidence, folder)
        summary = summary_of(folder)
    console.conclude(summary, folder, store.connection.place)
    return evidence.study, summary


def register(
    study: StudyName,
    strategy: Strategies = [],  # noqa: B006
    budget: BudgetOption = Budget.default,
    set_: Overrides = [],  # noqa: B006
    tracking_uri: Tracking = None,
    _debug: Debug = False,
) -> None:
    """Register the best final run of a study in MLflow, as a model that carries its preprocessing."""
    from bench.export import served_model
    from bench.study_record import read

    ((name, now),) = asked_for(study, changes(strategy, set_), budget)
    store = _open(name, now, tracking_uri)
    run = _newest(store, name, now, budget)
    console.say(served_model.register(store, run, read.gather(store, run)))


def report_name(study: "Study", budget: str) -> str:
    """Return the report's folder; a smoke run must not replace the report of a full one."""
    return study.name if budget == "default" else f"{study.name}-{budget}"


def report_sizes(study: "Study", counts: Sequence[int], uri: str | None, folder: Path) -> bool:
    """Report on the sizes of a study that the store holds; say whether all runs of them are done."""
    from bench.analysis.label_efficiency import efficiency
    from bench.report.label_efficiency_report import write_sizes
    from bench.study.budgets import with_labels
    from bench.study_record import read
    from bench.system import locks

    store = _open(study.name, study, uri, to_read=True)
    runs = {count: read.same(store, with_labels(study, count)) for count in counts}
    evidence = {count: read.gather(store, run) for count, run in runs.items() if run is not None}
    if not evidence:
        what = f"the store holds no run of {study.name} with these sizes"
        raise NotStoredError(what, "--sizes", "run `bench run` with them first")
    summary = efficiency(evidence)
    with locks.folder_locked(folder):
        write_sizes(summary, evidence, folder)
    if missing := [f"{count:,}" for count in counts if count not in evidence]:
        console.complain(f"{study.name}: nothing is stored of {', '.join(missing)} labels")
    for line in [*(summary.words(crossover) for crossover in summary.crossovers), *summary.notes]:
        console.say(line)
    console.say(f"report  {folder / 'index.html'}")
    console.say(f"runs    {store.connection.place}")
    return not any(one.lacking for one in evidence.values())


def summary_of(folder: Path) -> dict[str, Any]:
    """Return what a report that was just written, or found standing, says."""
    from bench.study_record import freshness

    summary = freshness.read(folder)
    if summary is None:
        raise InputError("the report is gone", str(folder), "`bench report` draws it anew")
    return summary


def write_overview(written: "Sequence[tuple[Study, Mapping[str, Any]]]", output: Path) -> None:
    """Compare studies by what their reports say, and say where that is."""
    from bench.analysis.summary import Summary
    from bench.report import overview_report
    from bench.system import locks

    with locks.folder_locked(output):
        overview_report.write_overview(
            [(study, Summary.from_json(dict(summary))) for study, summary in written], output
        )
    console.say(f"all     {output / 'index.html'}")


def _newest(store: "RunStore", name: str, now: "Study | None", budget: Budget) -> "FoundStudy":
    """Return the study's newest run in its store; say if the study has changed since."""
    from bench.study_record import read

    run, changed = read.newest(store, now, budget.value)
    if changed:
        console.complain(f"{name} has changed since it was run: {changed}")
    return run


def _open(name: str, now: "Study | None", uri: str | None, *, to_read: bool = False) -> "RunStore":
    """Open the store of a study's runs; an unknown name is answered with the nearest known one."""
    from bench.study.loading import find
    from bench.study_record import read
    from bench.tracking.store import open_store

    try:
        return open_store(uri, read.EXPERIMENT.format(study=name), to_read=to_read)
    except NotStoredError:
        if now is None:
            find(name)
        raise
