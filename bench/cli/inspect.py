"""What can be looked at without running a study: `bench list`, `check`, `preview`, `cache` and `ui`."""

import textwrap
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import console
from bench.cli.options import (
    Budget,
    BudgetOption,
    Data,
    Debug,
    Device,
    Named,
    Output,
    Overrides,
    Strategies,
    StudyName,
    Tracking,
    changes,
)
from bench.core.errors import InputError, nearest
from bench.core.text import in_bytes

if TYPE_CHECKING:
    from bench.experiment.plan import Plan

LEAST_ROOM = 30  # columns for what is said of a name, however narrow a terminal is
Rows = list[tuple[str, str]]  # names and summaries


class Listing(Enum):
    """What can be listed."""

    studies = "studies"
    strategies = "strategies"
    tasks = "tasks"
    metrics = "metrics"
    baselines = "baselines"
    datasets = "datasets"
    models = "models"


def list_(
    what: Annotated[Listing, typer.Argument(show_default=False)] = Listing.studies,
    filter_: Annotated[str, typer.Argument(metavar="FILTER", help="part of the name")] = "",
    _debug: Debug = False,
) -> None:
    """List studies, or strategies, tasks, metrics, baselines, data sets or models."""
    everything = LISTINGS[what]()
    rows = [row for row in everything if filter_.lower() in row[0].lower()]
    if not rows:
        remedy = nearest(filter_, [name for name, _ in everything])
        raise InputError(f"no {what.value} match '{filter_}'", remedy=remedy)
    width, columns = max(len(name) for name, _ in rows) + 2, console.terminal_width()
    for name, summary in rows:
        line = f"{name:<{width}}{summary}".rstrip()
        room = max(columns or len(line), width + LEAST_ROOM)
        for part in textwrap.wrap(line, room, subsequent_indent=" " * width, break_long_words=False):
            console.say(part)


def _studies() -> Rows:
    from bench.data.loading import is_known
    from bench.study.loading import available, load

    rows = []
    for name, path in available().items():
        study = load(str(path))
        folder = study.target.data
        needs = "" if is_known(folder) else f" (needs --data DIR, or a folder {folder})"
        rows.append((name, f"{study.question}{needs}"))
    return rows


def _strategies() -> Rows:
    from bench.strategies.registry import STRATEGIES

    return [(record.name, record.summary) for record in STRATEGIES.values()]


def _tasks() -> Rows:
    from bench.study.tasks import TASKS

    return [(task.name, task.summary) for task in TASKS.values()]


def _metrics() -> Rows:
    from bench.study.metrics import METRICS

    lower = {"higher": "", "lower": "; lower is better"}
    return [(m.name, f"{m.summary}{lower[m.direction]} ({', '.join(m.tasks)})") for m in METRICS.values()]


def _baselines() -> Rows:
    from bench.study.baselines import BASELINES

    return [(baseline.name, baseline.summary) for baseline in BASELINES.values()]


def _datasets() -> Rows:
    from bench.data.sources.base import MASK_SOURCES, SOURCES

    with_masks = [(record.name, f"{record.summary} (segmentation)") for record in MASK_SOURCES.values()]
    return [(record.name, record.summary) for record in SOURCES.values()] + with_masks


def _models() -> Rows:
    from bench.models.libraries import LIBRARIES

    return [(f"{library.name}/{name}", "") for library in LIBRARIES.values() for name in library.names()]


LISTINGS: dict[Listing, Callable[[], Rows]] = {
    Listing.studies: _studies,
    Listing.strategies: _strategies,
    Listing.tasks: _tasks,
    Listing.metrics: _metrics,
    Listing.baselines: _baselines,
    Listing.datasets: _datasets,
    Listing.models: _models,
}


def check(
    named: Named = None,
    study: StudyName = None,
    strategy: Strategies = [],  # noqa: B006
    budget: BudgetOption = Budget.default,
    data: Data = None,
    device: Device = "auto",
    set_: Overrides = [],  # noqa: B006
    _debug: Debug = False,
) -> None:
    """Show the resolved study, then build every strategy and train it one step."""
    from bench.experiment.time_budget import expected_minutes
    from bench.system.accelerators import check_wish

    check_wish(device)
    laid_out, chosen = _planned(named, study, data, changes(strategy, set_), budget)
    console.show([laid_out.study])
    console.announce(laid_out, chosen)
    from bench.training.check import try_step
    from bench.training.setup import Compute, TrainingSetup

    compute = Compute(device, measures=False)
    setup = TrainingSetup(laid_out.study, laid_out.dataset, laid_out.origin, compute)
    console.say(f"  device   {setup.device}, {setup.execution.precision}")
    for line in setup.left_to_measure():
        console.say(f"  at run   {line}")
    console.say(f"  time     about {expected_minutes(laid_out, setup.device)} minutes for all runs here")
    for arm in laid_out.arms:
        matrix, parameters = try_step(setup, arm, laid_out.splits[1])
        console.say()
        console.say(f"{arm.strategy}: {parameters:,} trainable parameters; one step done")
        console.say_lines(matrix)


def preview(
    named: Named = None,
    study: StudyName = None,
    data: Data = None,
    images: Annotated[int, typer.Option(min=1, max=64, help="rows of the picture")] = 8,
    output: Output = Path("reports"),
    set_: Overrides = [],  # noqa: B006
    _debug: Debug = False,
) -> None:
    """Draw what augmentation does to the first training images."""
    from bench.experiment.augmentation_preview import preview_grid
    from bench.report.preview import preview as draw
    from bench.system.files import check_writable

    check_writable(output, "--output")
    laid_out, _ = _planned(named, study, data, changes([], set_), Budget.default)
    grid, labels = preview_grid(laid_out.study, laid_out.dataset, laid_out.splits[1], images)
    path = output / laid_out.study.name / "preview.png"
    draw(grid, labels, path)
    console.say(str(path))


def _planned(
    named: str | None, study: str | None, data: str | None, changed: list[str], budget: Budget
) -> "tuple[Plan, Sequence[tuple[str, str]]]":
    """Return the plan of the one study that is asked for, and what was chosen for it."""
    from bench.experiment.plan import plan
    from bench.experiment.subject import drafts, settle, subject_of

    draft, *more = drafts(subject_of(named, study, data), changed, budget.value)
    if more:
        raise InputError("`all` is several studies", "--study", "name one of them: `bench list`")
    made = settle(draft)
    return plan(made.study), made.chosen


def cache(
    action: Annotated[str, typer.Argument(metavar="[clear]", help="without it, sizes are shown")] = "",
    kind: Annotated[str, typer.Argument(metavar="[KIND|all]", help="images, features or steps")] = "all",
    _debug: Debug = False,
) -> None:
    """Show how much is kept to be faster, or clear it: what is needed again is computed again."""
    from bench.experiment.caches import CACHES
    from bench.system import locations

    if action not in {"", "clear"}:
        raise InputError(f"unknown action '{action}'", "cache", nearest(action, ["clear"]))
    kinds = list(CACHES.values()) if kind == "all" else [CACHES.get_or_raise(kind, "cache clear")]
    for each in kinds:
        size = each.clear() if action else each.size()
        console.say(f"{each.name:<8}  {in_bytes(size):>8}  {'freed' if action else each.summary}")
    if not action:
        console.say(f"in        {locations.cache()}")


def ui(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 5000,
    tuning: Annotated[
        bool, typer.Option("--tuning", help="Optuna's dashboard on all stored trials, instead")
    ] = False,
    tracking_uri: Tracking = None,
    _debug: Debug = False,
) -> None:
    """Open the MLflow UI on the store that `bench run` writes to."""
    if not tuning:
        from bench.tracking.ui import run_ui

        run_ui(tracking_uri, host, port)
        return
    from bench.tuning import dashboard

    dashboard.check_installed()
    from bench.experiment.stored_tunings import stored_tunings

    dashboard.serve(dashboard.rebuild(stored_tunings(tracking_uri)), host, port, console.say)
