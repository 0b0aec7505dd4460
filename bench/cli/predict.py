"""`bench predict` and `bench export`: a trained model on any pictures, and as files that others load."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import console
from bench.cli.options import Budget, BudgetOption, Debug, Device, Tracking
from bench.cli.report import report_name
from bench.core.errors import InputError
from bench.core.text import in_bytes

if TYPE_CHECKING:
    from bench.export.model_facts import Trained
    from bench.export.predictions import Predictions
    from bench.export.served_model import ServedModel
    from bench.export.stored_model import StoredModel

MOST_ON_SHEET = 24  # pictures
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="a study or data that were run, a run's id, a registered model, or an export",
        show_default=False,
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[IMAGES]...", help="files, folders or patterns; without any, the study's test images"
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option("--strategy", metavar="S", help="of a study; default: what its report recommends"),
]


def predict(
    model: Model,
    images: Images = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="write a table")] = None,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="P", help="leave open what is less probable (0 to 1)"),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="FILE", help="draw the least certain as a PNG")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", metavar="DIR", help="write masks and overlays (segmentation)")
    ] = None,
    strategy: Strategy = None,
    budget: BudgetOption = Budget.default,
    device: Device = "auto",
    tracking_uri: Tracking = None,
    _debug: Debug = False,
) -> None:
    """Say what a trained model sees in images of any shape."""
    _check(threshold, device, {"--csv": csv, "--sheet": sheet}, masks)
    from bench.data.pictures import find_pictures

    files = find_pictures(images) if images else None
    served, stored = _load(model, tracking_uri, budget, strategy)
    console.complain(f"model {served.facts.in_words}")
    found = _predict(served, stored, files, (threshold, device, bool(sheet), masks))
    if csv:
        from bench.system.csv_tables import to_csv
        from bench.system.files import write_text

        write_text(csv, to_csv(found.frame()))
    if sheet:
        _draw(found, sheet)
    for line in found.left_out:
        console.complain(f"left out {line.name}: {line.reason}")
    if not found.rows:
        raise InputError("there is no picture that can be opened", files[0].name if files else "")
    if json_:
        console.say_lines(json.dumps(found.as_json(), ensure_ascii=False, indent=2))
    else:
        console.show_table(("file", "class", "probability"), list(found.shown))


def _check(threshold: float | None, device: str, files: dict[str, Path | None], masks: Path | None) -> None:
    """Raise InputError for whatever can be found wrong before anything is opened."""
    from bench.system.accelerators import check_wish
    from bench.system.files import check_writable

    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"{threshold:g} is no probability", "--threshold", "give a number from 0 to 1")
    check_wish(device)
    for option, file in files.items():
        if file is not None and file.is_dir():
            raise InputError(f"{file} is a folder", option, "name a file")
        if file is not None:
            check_writable(file.parent, option)
    if masks is not None:
        check_writable(masks, "--masks")


def _load(
    name: str, uri: str | None, budget: Budget, strategy: str | None
) -> "tuple[ServedModel, StoredModel | None]":
    """Return the model that is meant, and the run that it is, unless it is an export."""
    from bench.export import exported
    from bench.system.locations import expanded

    if exported.is_export(expanded(name)):
        return exported.load(expanded(name)), None
    stored = _stored(name, uri, budget, strategy)
    return stored.load(), stored


def _stored(name: str, uri: str | None, budget: Budget, strategy: str | None) -> "StoredModel":
    """Return the run that is meant; data, or a study's file, stand for the study of that name."""
    from bench.experiment.subject import study_name
    from bench.export.stored_model import find

    return find(study_name(name, budget.value), uri, budget.value, strategy)


def _predict(
    served: "ServedModel",
    stored: "StoredModel | None",
    files: Sequence[Path] | None,
    wished: tuple[float | None, str, bool, Path | None],
) -> "Predictions":
    """Predict pictures, or the study's test images; `wished`: threshold, device, sheet, masks."""
    from bench.export.masks import MaskFolder
    from bench.export.prediction import predict_files, predict_stored
    from bench.export.predictions import collect
    from bench.study.tasks import TASKS
    from bench.training.devices import choose_device, configure

    threshold, device, sheet, masks = wished
    if masks is not None and not TASKS[served.facts.task].keeps_pictures:
        raise InputError(f"a model of {served.facts.task} gives no masks", "--masks", "leave it out")
    chosen = choose_device(device)
    configure(chosen, None, deterministic=False, full_precision=True)
    served = served.to(chosen)
    if files is not None:
        names = [str(file) for file in files]
        predicted = predict_files(served, files, threshold)
    elif stored is not None:
        dataset = stored.dataset()
        test = stored.split(dataset).test
        names = [dataset.names[i] for i in test]
        predicted = predict_stored(served, dataset.images[test], names, threshold)
    else:
        raise InputError("an export has no test images", "IMAGES", "name files, a folder or a pattern")
    folder = MaskFolder(masks, names, served.facts.framing) if masks else None
    return collect(served.facts, predicted, MOST_ON_SHEET if sheet else 0, folder)


def _draw(found: "Predictions", sheet: Path) -> None:
    from bench.report.contact_sheet import draw_sheet

    title = f"Least certain of {len(found.rows):,} images: {found.facts.in_words}"
    draw_sheet(found.pictures(), found.captions(), title, sheet, found.legend())


def export(
    model: Model,
    format_: Annotated[
        str, typer.Option("--format", metavar="F[,F...]", help="safetensors (always), torch, onnx")
    ] = "safetensors",
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="default: exports/<study>", show_default=False)
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="train once more, on validation images too")] = False,
    all_labels: Annotated[
        bool, typer.Option("--all-labels", help="train once more, on all images: no test score of its own")
    ] = False,
    strategy: Strategy = None,
    budget: BudgetOption = Budget.default,
    device: Device = "auto",
    tracking_uri: Tracking = None,
    _debug: Debug = False,
) -> None:
    """Write a trained model, its preprocessing and a card to a folder, once its answers are compared."""
    from bench.system.accelerators import check_wish
    from bench.system.files import check_writable

    if refit and all_labels:
        raise InputError("--refit and --all-labels say both what to train on", "", "give one of them")
    check_wish(device)
    if output:
        check_writable(output, "--output")
    from bench.export.exporting import check_folder, write_export
    from bench.export.formats import formats_named
    from bench.export.refitting import refitted
    from bench.training.devices import configure

    formats = formats_named(format_)
    stored = _stored(model, tracking_uri, budget, strategy)
    which = "-all-labels" if all_labels else "-refit" * refit
    folder = output or Path("exports") / f"{report_name(stored.study.name, stored.facts.budget)}{which}"
    check_folder(folder)
    trained_on: Trained = "all labels" if all_labels else "train and val" if refit else "train"
    served = stored.load() if trained_on == "train" else refitted(stored, trained_on, device)
    configure("cpu", None, deterministic=False, full_precision=True)
    written = write_export(stored, served, formats, folder)
    rows = [
        (one.format.name, in_bytes(one.size), f"{one.median:.1f}", f"{one.slow:.1f}", f"{one.difference:.1g}")
        for one in written
    ]
    console.say(f"{folder}: {served.facts.in_words}")
    console.show_table(("format", "size", "ms p50", "ms p95", "largest difference"), rows)
    console.say(f"card    {folder / 'README.md'}")
