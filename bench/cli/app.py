"""The command line. Heavy imports happen inside the commands, so that `bench --help` is instant."""

import logging
import os
import signal
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import __version__
from bench.core.errors import InputError, NotStoredError, nearest

if TYPE_CHECKING:
    from bench.study.schema import Study

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
    tasks = "tasks"
    metrics = "metrics"
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
    from bench.cli import commands
    from bench.experiment.study_runner import Options
    from bench.system import signals

    signal.signal(signal.SIGTERM, signals.stop)  # what a batch system sends before it kills
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
        _show(_checked(studies, counts))
        return
    options = Options(
        data, device, tracking_uri, fresh, jobs,
        deterministic=deterministic, budget=budget.value, sizes=bool(counts),
    )  # fmt: skip
    try:
        if counts:
            whole = [commands.run_sizes(loaded, counts, options, output) for loaded in studies]
            raise typer.Exit(0 if all(whole) else 1)
        places = [output / commands.report_name(loaded, budget.value) for loaded in studies]
        folders = [
            commands.run_one(loaded, options, place) for loaded, place in zip(studies, places, strict=True)
        ]
    except KeyboardInterrupt:
        print("bench: interrupted; the same command (without --fresh) goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None
    if len(folders) > 1:
        commands.write_overview(studies, folders, output / "all")
    if any(result["failed"] for folder in folders for result in commands.said_by(folder)["results"]):
        raise typer.Exit(1)


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
    from bench.cli import commands
    from bench.report.study_report import write

    folders, studies = [], []
    if counts := _counts(sizes):
        for loaded in _load_all(study, list(set_), budget):
            folder = output / f"{commands.report_name(loaded, budget.value)}-sizes"
            commands.report_sizes(loaded, counts, tracking_uri, folder)
        return
    for name, wanted in _asked_for(study, list(set_), budget):
        try:
            evidence, place = commands.stored(name, wanted, budget.value, tracking_uri)
        except NotStoredError as error:
            if study != "all":
                raise
            print(f"left out  {name}: {error.what}")
            continue
        folders.append(output / commands.report_name(evidence.study, budget.value))
        studies.append(evidence.study)
        write(evidence, folders[-1])
        commands.conclude(folders[-1], place)
    if not folders:
        raise InputError("the store holds none of the studies", "--study", "run `bench run` first")
    if study == "all":
        commands.write_overview(studies, folders, output / "all")


@app.command()
def register(
    study: StudyName,
    budget: BudgetOption = Budget.default,
    set_: Overrides = [],  # noqa: B006
    tracking_uri: Tracking = None,
) -> None:
    """Register the best final run of a study in MLflow, as a model that carries its preprocessing."""
    from bench.cli import commands
    from bench.export import served_model
    from bench.study_record import read

    ((name, wanted),) = _asked_for(study, list(set_), budget)
    store, found = commands.newest(name, wanted, budget.value, tracking_uri)
    print(served_model.register(store, found, read.gather(store, found)))


def _asked_for(name: str, changes: list[str], budget: Budget) -> "list[tuple[str, Study | None]]":
    """Return the names of the studies, each with what its file says now; a name without a file has none."""
    from bench.study.loading import available

    if name == "all" or name in available() or Path(name).suffix or os.sep in name:
        return [(loaded.name, loaded) for loaded in _load_all(name, changes, budget)]
    return [(name, None)]


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
    """List studies, strategies, tasks, metrics, data sets or models."""
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
        from bench.data.loading import is_known
        from bench.study.loading import available, load

        studies = {name: load(str(path)) for name, path in available().items()}
        needed = {
            name: ""
            if is_known(folder := study.target.data)
            else f" (needs --data DIR, or a folder {folder})"
            for name, study in studies.items()
        }
        return [(name, f"{study.question}{needed[name]}") for name, study in studies.items()]
    if what is Listing.strategies:
        from bench.strategies.registry import STRATEGIES

        return [(record.name, record.summary) for record in STRATEGIES.values()]
    if what is Listing.metrics:
        from bench.study.metrics import METRICS

        return [(m.name, f"{m.summary} ({', '.join(m.tasks)})") for m in METRICS.values()]
    if what is Listing.tasks:
        from bench.study.tasks import TASKS

        return [(task.name, task.summary) for task in TASKS.values()]
    if what is Listing.datasets:
        from bench.data.sources.base import MASK_SOURCES, SOURCES

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
    from bench.cli import commands
    from bench.experiment.plan import plan
    from bench.study.loading import load

    laid_out = plan(load(study, set_, budget.value), data)
    _show([laid_out.study])
    commands.announce(laid_out)
    from bench.experiment.run_executor import RunExecutor
    from bench.training.setup import TrainingSetup

    setup = TrainingSetup(laid_out.study, laid_out.dataset, laid_out.origin, device)
    print(f"  device   {setup.device}, {setup.execution.precision}")
    for arm in laid_out.arms:
        matrix, parameters = RunExecutor(setup).try_step(arm, laid_out.splits[1])
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
    from bench.experiment.augmentation_preview import preview_grid
    from bench.experiment.plan import plan
    from bench.report.preview import preview as draw
    from bench.study.loading import load

    laid_out = plan(load(study, set_), data)
    grid, labels = preview_grid(laid_out.study, laid_out.dataset, laid_out.splits[1], images)
    path = output / laid_out.study.name / "preview.png"
    draw(grid, labels, path)
    print(path)


def _load_all(name: str, changes: list[str], budget: Budget) -> "list[Study]":
    """Load one study, or all of classification on packaged data: what they measure can be compared."""
    from bench.study.loading import available, load

    if name != "all":
        return [load(name, changes, budget.value)]
    from bench.data.sources.base import SOURCES

    studies = [load(str(path), changes, budget.value) for path in available().values()]
    return [s for s in studies if s.target.data in SOURCES and "/" not in s.target.data]


def _checked(studies: "list[Study]", counts: list[int]) -> "list[Study]":
    """Return the studies, each with every number of labels where there are several; their models exist."""
    from bench.models.libraries import split_name
    from bench.study.budgets import with_labels

    for study in studies:
        split_name(study.source.model)
    return [with_labels(study, count) for study in studies for count in counts] if counts else studies


def _show(studies: "list[Study]") -> None:
    """Print resolved studies as YAML."""
    from bench.study.loading import as_yaml

    print("---\n".join(as_yaml(study) for study in studies))
