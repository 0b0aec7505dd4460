"""The command line. Heavy imports happen inside the commands, so that `bench --help` is instant."""

import logging
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench import __version__
from bench.errors import InputError, nearest

if TYPE_CHECKING:
    from bench.analysis import Evidence
    from bench.planning import Plan
    from bench.runner import Options
    from bench.study import Study

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
        print(f"bench: {error.strerror}: {error.filename}", file=sys.stderr)
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
    data: Folder = None,
    tracking_uri: Tracking = None,
    output: Output = Path("reports"),
    set_: Overrides = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the resolved study and stop")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="do everything again")] = False,
) -> None:
    """Run a study: tune every strategy, do the final runs, write the report."""
    from bench.runner import Options

    chosen = {
        "strategies": list(strategy) or None,
        "tuning.trials": trials,
        "seeds": seeds,
        "training.epochs": epochs,
    }
    changes = [f"{key}={value}" for key, value in chosen.items() if value is not None] + list(set_)
    studies = _load_all(study, changes, budget)
    if dry_run:
        for loaded in studies:
            _show(loaded)
        return
    options = Options(data, device, tracking_uri, fresh, jobs)
    try:
        results = [_run_one(loaded, options, output / _report_name(loaded, budget)) for loaded in studies]
    except KeyboardInterrupt:
        print("bench: interrupted; the same command (without --fresh) goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None
    if len(results) > 1:
        _write_overview(results, output / "all")
    if any((evidence.runs["status"] != "done").any() for evidence in results):
        raise typer.Exit(1)


def _run_one(study: "Study", options: "Options", folder: Path) -> "Evidence":
    from bench import progress
    from bench.planning import plan
    from bench.runner import Runner

    _check_writable(folder)
    laid_out = plan(study, options.folder)
    _announce(laid_out)
    with progress.choose(study.metric) as view:
        runner = Runner(laid_out, options, view)
        evidence = runner.run()
    _conclude(evidence, folder, runner.store.place)
    return evidence


def _check_writable(folder: Path) -> None:
    """Raise InputError now, and not after hours, if a report can't be written to its folder."""
    standing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        raise InputError(f"{standing} is no folder that can be written to", "--output", "name another one")


def _report_name(study: "Study", budget: Budget) -> str:
    """Return the report's folder; a smoke run must not replace the report of a full one."""
    return study.name if budget is Budget.default else f"{study.name}-{budget.value}"


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


def _conclude(evidence: "Evidence", folder: Path, runs: str) -> None:
    """Write the report, print its table, and say where everything is."""
    from rich.console import Console
    from rich.table import Table

    from bench.analysis import summarise
    from bench.report import table, write

    write(evidence, folder)
    summary = summarise(evidence)
    headers, rows = table(summary)
    shown = Table(*headers, title=evidence.study.name)
    for row in rows:
        shown.add_row(*row)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(shown)
    console.print(summary.verdict, soft_wrap=True)
    print(f"report  {folder / 'index.html'}\nruns    {runs}")


def _write_overview(results: "list[Evidence]", folder: Path) -> None:
    from bench.analysis import summarise
    from bench.report import write_overview

    write_overview([(evidence.study, summarise(evidence)) for evidence in results], folder)
    print(f"all     {folder / 'index.html'}")


@app.command()
def report(
    study: StudyNames,
    budget: BudgetOption = Budget.default,
    data: Folder = None,
    set_: Overrides = [],  # noqa: B006
    tracking_uri: Tracking = None,
    output: Output = Path("reports"),
) -> None:
    """Write the report of a study that was run, without running anything."""
    from bench.planning import plan
    from bench.progress import Progress
    from bench.runner import Options, Runner

    results = []
    for loaded in _load_all(study, list(set_), budget):
        runner = Runner(plan(loaded, data), Options(data, "auto", tracking_uri), Progress(loaded.metric))
        results.append(runner.evidence())
        _conclude(results[-1], output / _report_name(loaded, budget), runner.store.place)
    if len(results) > 1:
        _write_overview(results, output / "all")


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
        from bench.data import SOURCES

        return [(record.name, record.summary) for record in SOURCES.values()]
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
    """Load one study, or all that stand on packaged data."""
    from bench.study import available, load

    if name != "all":
        return [load(name, changes, budget.value)]
    from bench.data import SOURCES

    studies = [load(str(path), changes, budget.value) for path in available().values()]
    return [s for s in studies if s.target.data in SOURCES and "/" not in s.target.data]


def _show(study: "Study") -> None:
    """Print the resolved study as YAML."""
    import yaml

    values: dict[str, Any] = study.model_dump(mode="json")
    print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100))
