"""What `bench run` and `bench report` do with a study, and what they say of it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError, NotStoredError
from bench.data import left_out
from bench.experiment import progress
from bench.study.budgets import Budget, with_labels
from bench.study.loading import find
from bench.study_record import freshness, read
from bench.system import locations, locks
from bench.tracking.store import open_store

if TYPE_CHECKING:
    from bench.analysis.evidence import Evidence
    from bench.experiment.plan import Plan
    from bench.experiment.study_runner import Options, Runner
    from bench.study.schema import Study
    from bench.tracking.frames import FoundStudy
    from bench.tracking.store import RunStore


def run_one(study: "Study", options: "Options", folder: Path) -> Path:
    """Run a study; return the folder of its report, which is drawn anew if there is anything new to say."""
    from bench.experiment.plan import plan
    from bench.experiment.study_runner import Runner

    _check_writable(folder)
    laid_out = plan(study, options.folder)
    announce(laid_out)
    with progress.choose(study.metric) as view:
        runner = Runner(laid_out, options, view)
        runner.run()
        with locks.locked(
            locations.home() / "locks" / f"{laid_out.key[:32]}.report.lock"
        ):  # or each draws it
            _report(runner, folder)
    conclude(folder, runner.store.connection.place)
    return folder


def _report(runner: "Runner", folder: Path) -> None:
    """Draw the report and put it into the store, each unless that is done."""
    fingerprint = runner.fingerprint
    stands, found = freshness.stands(folder, fingerprint), runner.found
    published = freshness.is_published(found.tags, fingerprint)
    if stands and published:
        return
    evidence = runner.evidence()
    if not stands:
        from bench.report.study_report import write

        write(evidence, folder)
    if not published:
        from bench.study_record.publish import publish

        publish(runner.store, found, evidence, said_by(folder), folder)


def _check_writable(folder: Path) -> None:
    """Raise InputError now, and not after hours, if a report can't be written to its folder."""
    standing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        raise InputError(f"{standing} is no folder that can be written to", "--output", "name another one")


def report_name(study: "Study", budget: str) -> str:
    """Return the report's folder; a smoke run must not replace the report of a full one."""
    return study.name if budget == "default" else f"{study.name}-{budget}"


def run_sizes(study: "Study", counts: list[int], options: "Options", output: Path) -> bool:
    """Run a study with each number of labels, then report on them together; say whether all runs are done."""
    from bench.experiment.plan import plan
    from bench.experiment.study_runner import Runner

    folder = output / f"{report_name(study, options.budget)}-sizes"
    _check_writable(folder)
    plans = {}
    for count in reversed(counts):  # the largest first: that there are too few images is said before training
        plans[count] = plan(with_labels(study, count), options.folder)
        if len(plans[count].splits[1].train) != count:
            most = len(plans[count].splits[1].train)
            raise InputError(f"{count} is more than the budget's cap", "--sizes", f"give at most {most}")
    for count in counts:
        announce(plans[count])
        with progress.choose(study.metric) as view:
            Runner(plans[count], options, view).run()
    return report_sizes(study, counts, options.tracking_uri, folder)


def report_sizes(study: "Study", counts: list[int], uri: str | None, folder: Path) -> bool:
    """Report on the sizes of a study that the store holds; say whether all runs of them are done."""
    from bench.analysis.label_efficiency import efficiency
    from bench.report.label_efficiency_report import write_sizes

    store = _open(study.name, study, uri)
    found = {count: read.same(store, with_labels(study, count)) for count in counts}
    evidence = {count: read.gather(store, run) for count, run in found.items() if run is not None}
    if not evidence:
        what = f"the store holds no run of {study.name} with these sizes"
        raise NotStoredError(what, "--sizes", "run `bench run` with them first")
    summary = efficiency(evidence)
    write_sizes(summary, evidence, folder)
    if missing := [f"{count:,}" for count in counts if count not in evidence]:
        print(f"{study.name}: nothing is stored of {', '.join(missing)} labels", file=sys.stderr)
    for line in [*(summary.words(crossover) for crossover in summary.crossovers), *summary.notes]:
        print(line)
    print(f"report  {folder / 'index.html'}\nruns    {store.connection.place}")
    return not any(one.lacking for one in evidence.values())


def announce(plan: "Plan") -> None:
    """Say what is about to be run, and on what."""
    study, first = plan.study, plan.splits[1]
    dataset = plan.dataset
    print(f"{study.name}: {study.question}")
    print(f"  data     {dataset.name}: {len(dataset.classes)} classes; train {len(first.train)}, ", end="")
    print(f"val {len(first.val)}, test {len(first.test)} images ({dataset.origin})")
    for line in plan.shortfalls:
        print(f"           {line}")
    print(f"  weights  {plan.study.source.model}: {plan.origin.text}")
    print(
        f"  budget   {study.tuning.trials} trials and {study.seeds} seeds of {study.training.epochs} epochs ",
        end="",
    )
    print(f"for each of {len(study.strategies)} strategies", flush=True)
    for line in left_out.summarise(dataset.rejected):
        print(f"  left out {line}")


def conclude(folder: Path, runs: str) -> None:
    """Print a report's table and verdict, and say where everything is."""
    from rich.console import Console
    from rich.table import Table

    said = said_by(folder)
    shown = Table(*said["table"]["headers"], title=said["study"])
    for row in said["table"]["rows"]:
        shown.add_row(*row)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(shown)
    console.print(said["verdict"], soft_wrap=True)
    print(f"report  {folder / 'index.html'}\nruns    {runs}")


def said_by(folder: Path) -> dict[str, Any]:
    """Return what a report that was just written, or found standing, says."""
    said = freshness.read(folder)
    if said is None:
        raise InputError("the report is gone", str(folder), "`bench report` draws it anew")
    return said


def write_overview(studies: "list[Study]", folders: list[Path], output: Path) -> None:
    """Compare studies by their reports, and say where that is."""
    from bench.analysis.summary import Summary
    from bench.report.overview_report import write_overview

    summaries = [Summary.from_json(said_by(folder)) for folder in folders]
    write_overview(list(zip(studies, summaries, strict=True)), output)
    print(f"all     {output / 'index.html'}")


def stored(name: str, wanted: "Study | None", budget: Budget, uri: str | None) -> "tuple[Evidence, str]":
    """Return what the store holds of a study, and where its runs can be seen."""
    store, found = newest(name, wanted, budget, uri)
    evidence = read.gather(store, found)
    for line in evidence.lacking:
        print(f"{name}: {line}", file=sys.stderr)
    return evidence, store.connection.place


def newest(
    name: str, wanted: "Study | None", budget: Budget, uri: str | None
) -> "tuple[RunStore, FoundStudy]":
    """Return the store and the study's newest run in it; say if the study has changed since."""
    store = _open(name, wanted, uri)
    found, changed = read.newest(store, wanted, budget)
    if changed:
        print(f"{name} has changed since it was run: {changed}", file=sys.stderr)
    return store, found


def _open(name: str, wanted: "Study | None", uri: str | None) -> "RunStore":
    """Open the store of a study's runs; an unknown name is answered with the nearest known one."""
    try:
        return open_store(uri, read.EXPERIMENT.format(study=name))
    except NotStoredError:
        if wanted is None:
            find(name)
        raise
