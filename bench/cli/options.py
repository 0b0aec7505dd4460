"""The options that commands share, and what their texts mean."""

import json
import os
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import completion, console
from bench.core.errors import InputError


class Budget(Enum):
    """Preset of trials, seeds, steps and labels."""

    smoke = "smoke"
    default = "default"
    full = "full"


Named = Annotated[
    str | None,
    typer.Argument(
        metavar="STUDY|DIR|CSV",
        help="a study's name or YAML file, or a folder or table of images",
        autocompletion=completion.subjects,
    ),
]


def _study(metavar: str, help_: str) -> Any:
    return typer.Option("--study", metavar=metavar, help=help_, autocompletion=completion.studies)


StudyName = Annotated[str | None, _study("NAME|PATH", "a study's name or its YAML file")]
StudyNames = Annotated[str | None, _study("NAME|PATH|all", "a name, a YAML file, or all on packaged data")]
Strategies = Annotated[
    list[str],
    typer.Option(
        "--strategy",
        metavar="S[,S...]",
        help="only these strategies; may be repeated",
        autocompletion=completion.strategies,
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE[,...]",
        help="override values: training.steps=600,seeds=3",
        autocompletion=completion.settings,
    ),
]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR|CSV", help="folder or table of images instead of the study's data"),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:<number>", autocompletion=completion.devices)
]
Tracking = Annotated[
    str | None,
    typer.Option(metavar="URI", help="MLflow store; default: MLFLOW_TRACKING_URI, else a local file"),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="run on a Ray cluster: auto, HOST:PORT or ray://HOST:PORT; needs a server's URI",
    ),
]
Output = Annotated[Path, typer.Option(metavar="DIR", help="where reports go")]
Sizes = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="numbers of training labels: accuracy against labels, crossovers"),
]
BudgetOption = Annotated[Budget, typer.Option(help="smoke: does it work; full: for a paper")]


def _debug(wished: bool) -> bool:
    if wished:
        os.environ["BENCH_DEBUG"] = "1"  # for all processes
    return wished


Debug = Annotated[
    bool,
    typer.Option(
        "--debug", callback=_debug, help="show where errors come from, also in failed runs (BENCH_DEBUG=1)"
    ),
]


def _voice(voice: console.Voice) -> Callable[[bool], bool]:
    """Return what an option does that says how much is printed."""

    def choose(wished: bool) -> bool:
        if wished:
            console.speak(voice)
        return wished

    return choose


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=_voice(console.Voice.quiet), help="print the answer and nothing else"
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_voice(console.Voice.json),
        help="print what the report says as JSON, a line for each study",
    ),
]


def changes(strategies: list[str], set_: list[str], **values: int | None) -> list[str]:
    """Return what options say as `key=value`; the dots of a key are written `__` here."""
    changed = [f"{key.replace('__', '.')}={value}" for key, value in values.items() if value is not None]
    names = [name.strip() for text in strategies for name in text.split(",") if name.strip()]
    said = [change for text in set_ for change in _changes_in(text)]
    return [f"strategies={json.dumps(names)}"] * bool(strategies) + changed + said


def _changes_in(text: str) -> list[str]:
    """Return the `key=value` in a text; a comma before anything but a key is part of a value."""
    from bench.study.schema import Study

    keys = "|".join(Study.model_fields)
    return re.split(rf",\s*(?=(?:{keys})(?:\.\w+)*=)", text)


def label_counts(sizes: str | None) -> list[int]:
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
