"""`bench report` and `bench register`: what the store holds of a study, without training anything."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import console
from bench.cli.options import (
    Budget,
    BudgetOption,
    Data,
    Debug,
    Json,
    Named,
    Output,
    Overrides,
    Quiet,
    Sizes,
    Strategies,
    StudyName,
    StudyNames,
    Tracking,
    changes,
    label_counts,
)
from bench.core.errors import InputError, NotStoredError, closest

if TYPE_CHECKING:
    from bench.experiment.subject import Subject
    from bench.study.schema import Study
    from bench.tracking.frames import FoundStudy
    from bench.tracking.store import RunStore


def report(
    named: Named = None,
    study: StudyNames = None,
    strategy: Strategies = [],  # noqa: B006
    budget: BudgetOption = Budget.default,
    sizes: Sizes = None,
    data: Data = None,
    set_: Overrides = [],  # noqa: B006
    tracking_uri: Tracking = None,
    output: Output = Path("reports"),
    _quiet: Quiet = False,
    _json: Json = False,
    _debug: Debug = False,
) -> None:
    """Write the report of a study that was run, finished or not, from the run store alone."""
    from bench.experiment.subject import subject_of
    from bench.system.files import check_writable

    counts, subject = label_counts(sizes), subject_of(named, study, data)
    check_writable(output, "--output")
    asked = _asked(subject, changes(strategy, set_), budget)
    with _saying_how_to_run(subject, budget):
        if counts:
            for name, now in asked:
                report_sizes(_from_file(name, now), counts, tracking_uri, output, budget.value)
            return
        written: list[tuple[Study, Mapping[str, Any]]] = []
        for name, now in asked:
            try:
                written.append(_report_one(name, now, budget, tracking_uri, output))
            except NotStoredError as error:
                if len(asked) == 1:
                    raise
                console.say(f"left out  {name}: {error.what}")
        if not written:
            raise NotStoredError("the store holds none of the studies", "", "run `bench run` first")
    if len(asked) > 1:
        write_overview(written, output / report_name("all", budget.value))


def _asked(subject: "Subject", changed: list[str], budget: Budget) -> "list[tuple[str, Study | None]]":
    """Return the names of the studies, each with what is asked now; a name without a file has none."""
    from bench.experiment.subject import drafts, is_stored_name, settle

    if is_stored_name(subject):
        return [(subject.study, None)]
    settled = [settle(draft) for draft in drafts(subject, changed, budget.value)]
    return [(made.study.name, made.study) for made in settled]


def _from_file(name: str, now: "Study | None") -> "Study":
    """Return a study, for what can't be done without it."""
    from bench.study.loading import load

    return now or load(name)  # which says that there is none


@contextmanager
def _saying_how_to_run(subject: "Subject", budget: Budget) -> Iterator[None]:
    """Let an error that asks for a run name the command."""
    try:
        yield
    except NotStoredError as error:
        options = "" if budget is Budget.default else f" --budget {budget.value}"
        remedy = error.remedy.replace("`bench run`", f"`bench run {subject.words}{options}`")
        raise type(error)(error.what, error.where, remedy) from error


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
    folder = output / report_name(evidence.study.name, budget.value)
    with locks.folder_locked(folder):
        write(evidence, folder)
        summary = summary_of(folder)
    console.conclude(summary, folder, store.connection.place)
    say_how_to_predict(evidence.study, summary, budget.value, uri)
    return evidence.study, summary


def say_how_to_predict(study: "Study", summary: Mapping[str, Any], budget: str, uri: str | None) -> None:
    """Print the command that predicts with the study's model, where a run is done."""
    from bench.experiment.subject import predict_command

    if any(result["done"] for result in summary["results"]):
        console.say(f"predict {predict_command(study, budget, uri)}")


def register(
    named: Named = None,
    study: StudyName = None,
    strategy: Strategies = [],  # noqa: B006
    budget: BudgetOption = Budget.default,
    data: Data = None,
    set_: Overrides = [],  # noqa: B006
    tracking_uri: Tracking = None,
    _debug: Debug = False,
) -> None:
    """Register what a study recommends in MLflow, as a model that carries its preprocessing."""
    from bench.experiment.subject import subject_of
    from bench.export.registration import register as register_model
    from bench.export.stored_model import chosen

    subject = subject_of(named, study, data)
    for name, now in _asked(subject, changes(strategy, set_), budget):
        with _saying_how_to_run(subject, budget):
            store = _open(name, now, tracking_uri)
            run = _newest(store, name, now, budget)
            console.say(register_model(chosen(store, run)))


def report_name(name: str, budget: str) -> str:
    """Return the report's folder; a smoke run must not replace the report of a full one."""
    return name if budget == "default" else f"{name}-{budget}"


def report_sizes(study: "Study", counts: Sequence[int], uri: str | None, output: Path, budget: str) -> bool:
    """Report on the sizes of a study that the store holds; say whether all runs of them are done."""
    from bench.analysis.label_efficiency import efficiency
    from bench.analysis.verdict import SMOKE_TEST
    from bench.report.label_efficiency_report import write_sizes
    from bench.study.budgets import with_labels
    from bench.study_record import read
    from bench.system import locks

    folder = output / f"{report_name(study.name, budget)}-sizes"
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
    words = [summary.words(each) for each in summary.crossovers]
    said = [SMOKE_TEST] if summary.smoke else [*filter(None, [summary.story]), *words]
    console.answer_alone(summary_of(folder), said, folder)
    for line in [*said, *summary.notes]:
        console.say(line)
    console.say(f"report  {folder / 'index.html'}")
    console.say(f"runs    {store.connection.place}")
    return not any(one.lacking for one in evidence.values())


def summary_of(folder: Path) -> dict[str, Any]:
    """Return what a report that was just written, or found standing, says."""
    from bench.study_record import freshness

    summary = freshness.read(folder)
    if summary is None:
        raise InputError("the report is gone", str(folder), "`bench report` writes it again")
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
    from bench.study_record import read
    from bench.tracking.store import open_store

    try:
        return open_store(uri, read.EXPERIMENT.format(study=name), to_read=to_read)
    except NotStoredError:
        if now is None:
            _explain_unknown(name, uri)
        raise


def _explain_unknown(name: str, uri: str | None) -> None:
    """Raise InputError for a name that neither the store nor a study has, with the nearest one."""
    from bench.study.loading import find
    from bench.study_record import read
    from bench.tracking.connection import experiments

    with suppress(NotStoredError):
        stored = [each.removeprefix(read.EXPERIMENT.format(study="")) for each in experiments(uri)]
        if close := closest(name, stored):
            raise InputError(f"nothing is stored of '{name}'", "", f"did you mean '{close}'?")
    find(name)
