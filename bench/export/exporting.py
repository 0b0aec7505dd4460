"""A model is written to a folder, in one form or several, once its answers are those of the run's model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.core.errors import InputError
from bench.export.card import model_card
from bench.export.exported import CARD, FACTS, is_export
from bench.export.formats import Format, Probabilities
from bench.export.served_model import ServedModel
from bench.export.stored_model import StoredModel
from bench.system.files import replacing_folder
from bench.system.locations import mark

TOLERANCE = 1e-4  # by which a probability may differ from that of the run's model
IMAGES = 8  # that answers are compared on, all at once and one by one
WARM_UP, MOST_TIMED, TIMED_SECONDS = 3, 50, 3.0


@dataclass(frozen=True)
class Written:
    """A form in which a model was written.

    Args:
        size: of its file, in bytes.
        difference: the largest between a probability of it and of the run's model.
        median, slow: milliseconds that an image takes by itself: the 50th and the 95th percentile.
    """

    format: Format
    size: int
    difference: float
    median: float
    slow: float


def write_export(
    stored: StoredModel, model: ServedModel, formats: Sequence[Format], folder: Path
) -> tuple[Written, ...]:
    """Write a model with its description and its card; nothing is left behind if anything goes wrong.

    Args:
        stored: the run that it is of.
        model: that run's model, or what a refit made of it, on the CPU.
        formats: in which it is written.
        folder: which it becomes; an export that is there is replaced.

    Raises:
        InputError: if the folder is something else, or the answers of a form are not those of the model.
    """
    check_folder(folder)
    images = stored.pictures(IMAGES)
    images = np.resize(images, (max(2, len(images)), *images.shape[1:]))
    with replacing_folder(folder) as temporary:
        mark(temporary)
        (temporary / FACTS).write_text(model.facts.model_dump_json(indent=2) + "\n", encoding="utf-8")
        written = tuple(_write(model, each, temporary, images) for each in formats)
        (temporary / CARD).write_text(model_card(stored, model.facts, written, TOLERANCE), encoding="utf-8")
    return written


def check_folder(folder: Path) -> None:
    """Raise InputError if a folder is there that is no export: nothing of others is replaced."""
    if folder.exists() and not is_export(folder):
        raise InputError("is there, and no exported model", str(folder), "name another with --output")


def _write(model: ServedModel, form: Format, folder: Path, images: np.ndarray) -> Written:
    file = folder / form.file
    form.write(model, file)
    answers = form.read(file, model.facts)
    difference = _compare(model, answers, form, images)
    median, slow = _milliseconds(answers, images)
    return Written(form, file.stat().st_size, difference, median, slow)


def _compare(model: ServedModel, answers: Probabilities, form: Format, images: np.ndarray) -> float:
    """Return the largest difference of a probability, of images all at once and one by one."""
    largest = 0.0
    for batch in (images, *np.split(images, len(images))):
        with torch.inference_mode():
            expected = model(torch.from_numpy(batch)).numpy()
        given = answers(batch)
        difference = float(np.abs(given - expected).max()) if given.shape == expected.shape else float("inf")
        if not difference <= TOLERANCE:  # NaN is no answer
            what = f"its probabilities differ from the run's by {difference:.2g}; {TOLERANCE:g} is allowed"
            raise InputError(what, f"the format {form.name}", "nothing was written; leave it out")
        largest = max(largest, difference)
    return largest


def _milliseconds(answers: Probabilities, images: np.ndarray) -> tuple[float, float]:
    """Return the 50th and the 95th percentile of the time that an image takes by itself, in milliseconds."""
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < WARM_UP + MOST_TIMED and time.perf_counter() - began < TIMED_SECONDS + WARM_UP:
        image = images[len(taken) % len(images)][None]
        started = time.perf_counter()
        answers(image)
        taken.append(1000 * (time.perf_counter() - started))
    timed = taken[min(WARM_UP, len(taken) - 1) :]
    return float(np.quantile(timed, 0.5)), float(np.quantile(timed, 0.95))
