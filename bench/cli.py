"""The command line. Heavy imports happen inside the commands, so that `bench --help` is instant."""

import logging
import os
import signal
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench import __version__
from bench.errors import InputError, NotStoredError, nearest

if TYPE_CHECKING:
    from bench.analysis import Evidence
    from bench.planning import Plan
    from bench.runner import Options
    from bench.study import Study
    from bench.tracking.frames import FoundStudy
    from bench.tracking.store import RunStore

app = typer.Typer(
    name="bench",
    help="How should I use these pretrained weights on my data? Measured under one protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Budget(Enum):
    """Preset of trials, seeds, epochs and labels."""

    smoke = "smoke"
    default = "default"
    full = "full"


class Listing(Enum):
    """What can be listed."""

    studies = "studies"
    strategies = "strategies"
    datasets = "datasets"
    models = "models"


StudyName = Annotated[
    str, typer.Option("--study", metavar="NAME|PATH", help="a study's name or its YAML file")
]
StudyNames = Annotated[
    str, typer.Option("--study", metavar="NAME|PATH|all", help="a name, a YAML file, or all on packaged data")
]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="override a value: training.epochs=3")
]
Folder = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="folder of class folders instead of the study's data"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>")]
Tracking = Annotated[
    str | None,
    typer.Option(metavar="URI", help="MLflow store; default: MLFLOW_TRACKING_URI, else a local file"),
]
Output = Annotated[Path, typer.Option(metavar="DIR", help="where reports go")]
Sizes = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="numbers of training labels: accuracy against labels, crossovers"),
]
BudgetOption = Annotated[Budget, typer.Option(help="smoke: does it work; full: for a paper")]


def main() -> None:
    """Run the command line and leave with its exit status."""
    # Threads that wait for work must sleep: spinning ones cost a twentieth less on an idle machine, but make
    # training ten times slower beside any other busy process. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        app()
    except InputError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a folder that can't be written, a disk that is full
        where = f": {error.filename}" if error.filename else ""  # a write that fails names no file
        print(f"bench: {error.strerror or error}{where}", file=sys.stderr)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="show the version")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    study: StudyNames,
    strategy: Annotated[list[str], typer.Option(help="only this one; may be repeated")] = [],  # noqa: B006
    trials: Annotated[int | None, typer.Option(min=1, help="tuning trials for each strategy")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="final runs for each strategy")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="epochs of every run")] = None,
    budget: BudgetOption = Budget.default,
    device: Device = "auto",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="processes that share the runs; default: as many as fit")
    ] = None,
    sizes: Sizes = None,
    data: Folder = None,
    tracking_uri: Tracking = None,
    output: Output = Path("reports"),
    set_: Overrides = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the resolved study and stop")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="do everything again")] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="the same bits each time on a GPU too; slower there")
    ] = False,
) -> None:
    """Run a study: tune every strategy, do the final runs, write the report."""
    from bench import interrupts
    from bench.runner import Options

    signal.signal(signal.SIGTERM, interrupts.stop)  # what a batch system sends before it kills
    chosen = {
        "strategies": list(strategy) or None,
        "tuning.trials": trials,
        "seeds": seeds,
        "training.epochs": epochs,
    }
    changes = [f"{key}={value}" for key, value in chosen.items() if value is not None] + list(set_)
    counts = _counts(sizes)
    studies = _load_all(study, changes, budget)
    if dry_run:
        for loaded in studies:
            _show(loaded)
        return
    options = Options(
        data, device, tracking_uri, fresh, jobs,
        deterministic=deterministic, budget=budget.value, sizes=bool(counts),
    )  # fmt: skip
    try:
        if counts:
            whole = [_run_sizes(loaded, counts, options, output) for loaded in studies]
            raise typer.Exit(0 if all(whole) else 1)
        folders = [_run_one(loaded, options, output / _report_name(loaded, budget)) for loaded in studies]
    except KeyboardInterrupt:
        print("bench: interrupted; the same command (without --fresh) goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None
    if len(folders) > 1:
        _write_overview(studies, folders, output / "all")
    if any(result["failed"] for folder in folders for result in _said(folder)["results"]):
        raise typer.Exit(1)


def _run_one(study: "Study", options: "Options", folder: Path) -> Path:
    """Run a study; return the folder of its report, which is drawn anew if there is anything new to say."""
    from bench import paths, progress, standing
    from bench.planning import plan
    from bench.runner import Runner

    _check_writable(folder)
    laid_out = plan(study, options.folder)
    _announce(laid_out)
    with progress.choose(study.metric) as view:
        runner = Runner(laid_out, options, view)
        runner.run()
        with paths.locked(paths.home() / "locks" / f"{laid_out.key[:32]}.report.lock"):  # or each draws it
            if not standing.stands(folder, runner.fingerprint):
                from bench.publishing import publish
                from bench.report import write

                evidence = runner.evidence()
                write(evidence, folder)
                publish(runner.store, runner.found, evidence, _said(folder), folder)
    _conclude(folder, runner.store.place)
    return folder


def _check_writable(folder: Path) -> None:
    """Raise InputError now, and not after hours, if a report can't be written to its folder."""
    standing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        raise InputError(f"{standing} is no folder that can be written to", "--output", "name another one")


def _report_name(study: "Study", budget: Budget) -> str:
    """Return the report's folder; a smoke run must not replace the report of a full one."""
    return study.name if budget is Budget.default else f"{study.name}-{budget.value}"


def _counts(sizes: str | None) -> list[int]:
    """Return the numbers of labels in `50,100,300`, ascending; none where nothing is given."""
    words = sizes.split(",") if sizes is not None else []
    example = "for example --sizes 50,100,300"
    wrong = next((word for word in words if not word.strip().isdecimal() or int(word) == 0), None)
    if wrong is not None:
        raise InputError(f"'{wrong.strip()}' is not a number of labels", "--sizes", example)
    counts = sorted({int(word) for word in words})
    if len(counts) == 1:
        raise InputError("one size is no curve", "--sizes", f"give two or more, {example}")
    return counts


def _run_sizes(study: "Study", counts: list[int], options: "Options", output: Path) -> bool:
    """Run a study with each number of labels, then report on them together; say whether all runs are done."""
    from bench import progress
    from bench.planning import plan
    from bench.runner import Runner
    from bench.study import with_labels

    if study.task != "classification":
        raise InputError(f"--sizes is not for {study.task}", study.name, "leave it out")
    folder = output / f"{_report_name(study, Budget(options.budget))}-sizes"
    _check_writable(folder)
    plans = {}
    for count in reversed(counts):  # the largest first: that there are too few images is said before training
        plans[count] = plan(with_labels(study, count), options.folder)
        if len(plans[count].splits[1].train) != count:
            most = len(plans[count].splits[1].train)
            raise InputError(f"{count} is more than the budget's cap", "--sizes", f"give at most {most}")
    for count in counts:
        _announce(plans[count])
        with progress.choose(study.metric) as view:
            Runner(plans[count], options, view).run()
    return _report_sizes(study, counts, options.tracking_uri, folder)


def _report_sizes(study: "Study", counts: list[int], uri: str | None, folder: Path) -> bool:
    """Report on the sizes of a study that the store holds; say whether all runs of them are done."""
    from bench import gathering
    from bench.analysis.efficiency import efficiency
    from bench.report import write_sizes
    from bench.study import with_labels

    store = _open(study.name, study, uri)
    found = {count: gathering.same(store, with_labels(study, count)) for count in counts}
    evidence = {count: gathering.gather(store, run) for count, run in found.items() if run is not None}
    if not evidence:
        what = f"the store holds no run of {study.name} with these sizes"
        raise NotStoredError(what, "--sizes", "run `bench run` with them first")
    summary = efficiency(evidence)
    write_sizes(summary, evidence, folder)
    if missing := [f"{count:,}" for count in counts if count not in evidence]:
        print(f"{study.name}: nothing is stored of {', '.join(missing)} labels", file=sys.stderr)
    for line in [*(summary.words(crossover) for crossover in summary.crossovers), *summary.notes]:
        print(line)
    print(f"report  {folder / 'index.html'}\nruns    {store.place}")
    return not any(one.lacking for one in evidence.values())


def _announce(plan: "Plan") -> None:
    """Say what is about to be run, and on what."""
    study, first = plan.study, plan.splits[1]
    dataset = plan.dataset
    print(f"{study.name}: {study.question}")
    print(f"  data     {dataset.name}: {len(dataset.classes)} classes; train {len(first.train)}, ", end="")
    print(f"val {len(first.val)}, test {len(first.test)} images ({dataset.origin})")
    print(f"  weights  {plan.study.source.model}: {plan.origin.text}")
    print(
        f"  budget   {study.tuning.trials} trials and {study.seeds} seeds of {study.training.epochs} epochs ",
        end="",
    )
    print(f"for each of {len(study.strategies)} strategies", flush=True)
    for rejected in dataset.rejected:
        print(f"  left out {rejected.name}: {rejected.reason}")


def _conclude(folder: Path, runs: str) -> None:
    """Print a report's table and verdict, and say where everything is."""
    from rich.console import Console
    from rich.table import Table

    said = _said(folder)
    shown = Table(*said["table"]["headers"], title=said["study"])
    for row in said["table"]["rows"]:
        shown.add_row(*row)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(shown)
    console.print(said["verdict"], soft_wrap=True)
    print(f"report  {folder / 'index.html'}\nruns    {runs}")


def _said(folder: Path) -> dict[str, Any]:
    """Return what a report that was just written, or found standing, says."""
    from bench import standing

    said = standing.read(folder)
    if said is None:
        raise InputError("the report is gone", str(folder), "`bench report` draws it anew")
    return said


def _write_overview(studies: "list[Study]", folders: list[Path], output: Path) -> None:
    from bench.analysis import Summary
    from bench.report import write_overview

    summaries = [Summary.from_json(_said(folder)) for folder in folders]
    write_overview(list(zip(studies, summaries, strict=True)), output)
    print(f"all     {output / 'index.html'}")


@app.command()
def report(
    study: StudyNames,
    budget: BudgetOption = Budget.default,
    sizes: Sizes = None,
    set_: Overrides = [],  # noqa: B006
    tracking_uri: Tracking = None,
    output: Output = Path("reports"),
) -> None:
    """Write the report of a study that was run, as far as it is, from the run store alone."""
    from bench.report import write

    folders, studies = [], []
    if counts := _counts(sizes):
        for loaded in _load_all(study, list(set_), budget):
            _report_sizes(loaded, counts, tracking_uri, output / f"{_report_name(loaded, budget)}-sizes")
        return
    for name, wanted in _asked_for(study, list(set_), budget):
        try:
            evidence, place = _stored(name, wanted, budget, tracking_uri)
        except NotStoredError as error:
            if study != "all":
                raise
            print(f"left out  {name}: {error.what}")
            continue
        folders.append(output / _report_name(evidence.study, budget))
        studies.append(evidence.study)
        write(evidence, folders[-1])
        _conclude(folders[-1], place)
    if not folders:
        raise InputError("the store holds none of the studies", "--study", "run `bench run` first")
    if study == "all":
        _write_overview(studies, folders, output / "all")


@app.command()
def register(
    study: StudyName,
    budget: BudgetOption = Budget.default,
    set_: Overrides = [],  # noqa: B006
    tracking_uri: Tracking = None,
) -> None:
    """Register the best final run of a study in MLflow, as a model that carries its preprocessing."""
    from bench import gathering, serving

    ((name, wanted),) = _asked_for(study, list(set_), budget)
    store, found = _newest(name, wanted, budget, tracking_uri)
    print(serving.register(store, found, gathering.gather(store, found)))


def _asked_for(name: str, changes: list[str], budget: Budget) -> "list[tuple[str, Study | None]]":
    """Return the names of the studies, each with what its file says now; a name without a file has none."""
    from bench.study import available

    if name == "all" or name in available() or Path(name).suffix or os.sep in name:
        return [(loaded.name, loaded) for loaded in _load_all(name, changes, budget)]
    return [(name, None)]


def _stored(name: str, wanted: "Study | None", budget: Budget, uri: str | None) -> "tuple[Evidence, str]":
    """Return what the store holds of a study, and where its runs can be seen."""
    from bench import gathering

    store, found = _newest(name, wanted, budget, uri)
    evidence = gathering.gather(store, found)
    for line in evidence.lacking:
        print(f"{name}: {line}", file=sys.stderr)
    return evidence, store.place


def _newest(
    name: str, wanted: "Study | None", budget: Budget, uri: str | None
) -> "tuple[RunStore, FoundStudy]":
    """Return the store and the study's newest run in it; say if the study has changed since."""
    from bench import gathering

    store = _open(name, wanted, uri)
    found, changed = gathering.newest(store, wanted, budget.value)
    if changed:
        print(f"{name} has changed since it was run: {changed}", file=sys.stderr)
    return store, found


def _open(name: str, wanted: "Study | None", uri: str | None) -> "RunStore":
    """Open the store of a study's runs; an unknown name is answered with the nearest known one."""
    from bench import gathering
    from bench.study import find
    from bench.tracking.store import RunStore

    try:
        return RunStore(uri, gathering.EXPERIMENT.format(study=name), create=False)
    except NotStoredError:
        if wanted is None:
            find(name)
        raise


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 5000,
    tracking_uri: Tracking = None,
) -> None:
    """Open the MLflow UI on the store that `bench run` writes to."""
    from bench.tracking.ui import run_ui

    run_ui(tracking_uri, host, port)


@app.command("list")
def list_(
    what: Listing,
    filter_: Annotated[str, typer.Argument(metavar="FILTER", help="part of the name")] = "",
) -> None:
    """List studies, strategies, data sets or models."""
    rows = [row for row in _listing(what) if filter_.lower() in row[0].lower()]
    if not rows:
        raise InputError(
            f"no {what.value} match '{filter_}'", remedy=nearest(filter_, [r[0] for r in _listing(what)])
        )
    width = max(len(name) for name, _ in rows)
    for name, summary in rows:
        print(f"{name:<{width}}  {summary}".rstrip())


def _listing(what: Listing) -> list[tuple[str, str]]:
    if what is Listing.studies:
        from bench.study import available, load

        return [(name, load(str(path)).question) for name, path in available().items()]
    if what is Listing.strategies:
        from bench.strategies import STRATEGIES

        return [(record.name, record.summary) for record in STRATEGIES.values()]
    if what is Listing.datasets:
        from bench.data import MASK_SOURCES, SOURCES

        with_masks = [(record.name, f"{record.summary} (segmentation)") for record in MASK_SOURCES.values()]
        return [(record.name, record.summary) for record in SOURCES.values()] + with_masks
    from bench.models.libraries import LIBRARIES

    return [(f"{library.name}/{name}", "") for library in LIBRARIES.values() for name in library.names()]


@app.command()
def check(
    study: StudyName,
    budget: BudgetOption = Budget.default,
    data: Folder = None,
    device: Device = "auto",
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Show the resolved study, then build every strategy and train it one step."""
    from bench.planning import plan
    from bench.study import load

    laid_out = plan(load(study, set_, budget.value), data)
    _show(laid_out.study)
    _announce(laid_out)
    from bench.worker import Worker

    worker = Worker(laid_out.study, laid_out.dataset, laid_out.origin, device)
    print(f"  device   {worker.device}, {worker.execution.precision}")
    for arm in laid_out.arms:
        matrix, parameters = worker.try_step(arm, laid_out.splits[1])
        print(f"\n{arm.strategy}: {parameters:,} trainable parameters; one step done\n{matrix}", end="")


@app.command()
def preview(
    study: StudyName,
    data: Folder = None,
    images: Annotated[int, typer.Option(min=1, max=64, help="rows of the picture")] = 8,
    output: Output = Path("reports"),
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Draw what augmentation does to the first training images."""
    from bench.planning import plan
    from bench.report import preview as draw
    from bench.study import load
    from bench.worker import preview_grid

    laid_out = plan(load(study, set_), data)
    grid, labels = preview_grid(laid_out.study, laid_out.dataset, laid_out.splits[1], images)
    path = output / laid_out.study.name / "preview.png"
    draw(grid, labels, path)
    print(path)


def _load_all(name: str, changes: list[str], budget: Budget) -> "list[Study]":
    """Load one study, or all of classification on packaged data: what they measure can be compared."""
    from bench.study import available, load

    if name != "all":
        return [load(name, changes, budget.value)]
    from bench.data import SOURCES

    studies = [load(str(path), changes, budget.value) for path in available().values()]
    return [s for s in studies if s.target.data in SOURCES and "/" not in s.target.data]


def _show(study: "Study") -> None:
    """Print the resolved study as YAML."""
    from bench.study import as_yaml

    print(as_yaml(study))
