"""`bench run`: studies one after the other, each with its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import console, report
from bench.cli.options import (
    Budget,
    BudgetOption,
    Cluster,
    Data,
    Debug,
    Device,
    Json,
    Named,
    Output,
    Overrides,
    Quiet,
    Sizes,
    Strategies,
    StudyNames,
    Tracking,
    changes,
    label_counts,
)
from bench.core.errors import InputError

if TYPE_CHECKING:
    from bench.experiment.made_up import MadeUp
    from bench.experiment.options import Options
    from bench.experiment.study_runner import StudyRunner
    from bench.study.schema import Study


def run(
    named: Named = None,
    study: StudyNames = None,
    strategy: Strategies = [],  # noqa: B006
    trials: Annotated[int | None, typer.Option(min=1, help="tuning trials for each strategy")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="final runs for each strategy")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="optimisation steps of every run, at most")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="epochs of every run, instead of steps")] = None,
    budget: BudgetOption = Budget.default,
    minutes: Annotated[
        float | None, typer.Option(min=1, help="fit image size, steps, trials and seeds to this time")
    ] = None,
    device: Device = "auto",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="processes that share the runs; default: as many as fit")
    ] = None,
    cluster: Cluster = None,
    sizes: Sizes = None,
    data: Data = None,
    tracking_uri: Tracking = None,
    output: Output = Path("reports"),
    set_: Overrides = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the resolved study and stop")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="do everything again")] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="the same bits each time on a GPU too; slower there")
    ] = False,
    _quiet: Quiet = False,
    _json: Json = False,
    _debug: Debug = False,
) -> None:
    """Run a study, or find out what is best for a folder of images; then write the report."""
    from bench.experiment.options import Options
    from bench.experiment.subject import drafts, settle, subject_of
    from bench.experiment.time_budget import TimeLimit
    from bench.system.signals import sigterm_interrupts

    counts = label_counts(sizes)
    changed = changes(
        strategy, set_, tuning__trials=trials, seeds=seeds, training__steps=steps, training__epochs=epochs
    )
    if minutes and (counts or budget is not Budget.default):
        other = "--sizes" if counts else "--budget"
        raise InputError(f"--minutes and {other} both say how much is run", "", "give one of them")
    asked = drafts(subject_of(named, study, data), changed, budget.value)
    options = Options(
        device, tracking_uri, fresh, jobs,
        deterministic=deterministic, cluster=cluster, budget=budget.value, sizes=bool(counts),
    )  # fmt: skip
    _check([draft.study for draft in asked], counts, options, output)
    with sigterm_interrupts():
        limit = TimeLimit(minutes / len(asked), device) if minutes else None
        settled = [settle(draft, limit) for draft in asked]
        if dry_run:
            for made in settled:
                console.show(_with_sizes([made.study], counts), made.chosen)
            return
        whole = _run_sizes(settled, counts, options, output) if counts else _run(settled, options, output)
    raise typer.Exit(0 if whole else 1)


def _check(studies: "Sequence[Study]", counts: list[int], options: "Options", output: Path) -> None:
    """Raise InputError for whatever can be found wrong before anything is opened."""
    from bench.experiment.plan import check_strategies
    from bench.models.libraries import split_name
    from bench.system.accelerators import check_wish
    from bench.system.files import check_writable
    from bench.tracking.store_uri import resolve_uri

    if options.cluster:
        _check_cluster(options)
    else:
        check_wish(options.device)
    check_writable(output, "--output")
    if options.tracking_uri:
        resolve_uri(options.tracking_uri)
    for study in _with_sizes(studies, counts):
        check_strategies(study)
        split_name(study.source.model)


def _check_cluster(options: "Options") -> None:
    """Connect to the cluster, if it is there and the run store is one that its nodes can reach."""
    from bench.experiment.scheduler.cluster import connect
    from bench.system.hardware import check_device
    from bench.tracking.store_uri import is_server, resolve_uri, shown

    check_device(options.device)
    uri = resolve_uri(options.tracking_uri)
    if not is_server(uri):
        what = f"{shown(uri)} is a database, and the nodes of a cluster speak to an MLflow server"
        remedy = "start one (`mlflow server`, or docker/compose.yaml) and add --tracking-uri http://HOST:5000"
        raise InputError(what, "--cluster", remedy)
    connect(options.cluster or "")


def _with_sizes(studies: "Sequence[Study]", counts: list[int]) -> "list[Study]":
    """Return the studies, each with every number of labels where there are several."""
    from bench.study.budgets import with_labels

    return [with_labels(s, count) for s in studies for count in counts] if counts else list(studies)


def _run(settled: "Sequence[MadeUp]", options: "Options", output: Path) -> bool:
    """Run studies and report on each, and on all together; say whether no run failed."""
    done = []
    for made in settled:
        folder = output / report.report_name(made.study.name, options.budget)
        done.append((made.study, _run_one(made, options, folder)))
    if len(done) > 1:
        report.write_overview(done, output / report.report_name("all", options.budget))
    return not any(result["failed"] for _, summary in done for result in summary["results"])


def _run_one(made: "MadeUp", options: "Options", folder: Path) -> Mapping[str, Any]:
    """Run a study; return what its report says, which is drawn anew if there is anything new to say."""
    from bench.experiment import progress
    from bench.experiment.plan import plan
    from bench.experiment.study_runner import StudyRunner
    from bench.system import locks

    laid_out = plan(made.study)
    console.announce(laid_out, made.chosen)
    with progress.choose(made.study.metric, shown=console.is_full()) as view:
        runner = StudyRunner(laid_out, options, view)
        runner.run()
        with locks.folder_locked(folder):  # another variant of the study may write to it, too
            summary = _report(runner, folder)
    console.conclude(summary, folder, runner.store.connection.place)
    report.say_how_to_predict(made.study, summary, options.budget, options.tracking_uri)
    return summary


def _report(runner: "StudyRunner", folder: Path) -> Mapping[str, Any]:
    """Draw the report and put it into the store, each unless that is done; return what it says."""
    from bench.study_record import freshness, write

    fingerprint = runner.fingerprint
    write.mark_as_asked_for(runner.store, runner.found)
    stands, found = freshness.stands(folder, fingerprint), runner.found
    published = freshness.is_published(found.tags, fingerprint)
    if stands and published:
        return report.summary_of(folder)
    evidence = runner.evidence()
    if not stands:
        from bench.report import study_report

        study_report.write(evidence, folder)
    summary = report.summary_of(folder)
    if not published:
        from bench.study_record.publish import publish

        publish(runner.store, found, evidence, summary, folder)
    return summary


def _run_sizes(settled: "Sequence[MadeUp]", counts: list[int], options: "Options", output: Path) -> bool:
    """Run studies with each number of labels and report on these; say whether all runs are done."""
    whole = [_run_sizes_of(made, counts, options, output) for made in settled]
    return all(whole)


def _run_sizes_of(made: "MadeUp", counts: list[int], options: "Options", output: Path) -> bool:
    from bench.experiment import progress
    from bench.experiment.plan import plan
    from bench.experiment.study_runner import StudyRunner
    from bench.study.budgets import with_labels

    study, plans = made.study, {}
    for count in reversed(counts):  # the largest first: that there are too few images is said before training
        plans[count] = plan(with_labels(study, count))
        if len(plans[count].splits[1].train) != count:
            most = len(plans[count].splits[1].train)
            raise InputError(f"{count} is more than the budget's cap", "--sizes", f"give at most {most}")
    for count in counts:
        console.announce(plans[count], made.chosen)
        with progress.choose(study.metric, shown=console.is_full()) as view:
            StudyRunner(plans[count], options, view).run()
    return report.report_sizes(study, counts, options.tracking_uri, output, options.budget)
