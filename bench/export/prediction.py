"""Pictures of any shape to answers: what the model is shown is what it would be shown in the evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.data.conversion import Picture, convert_pictures
from bench.data.decoding import part_shown
from bench.data.loading import storing
from bench.export.answers.base import Answer, answering
from bench.export.served_model import ServedModel
from bench.training.inputs import EVAL_BATCH, EVAL_PIXELS

MOST_AT_ONCE = 64  # pictures that are decoded together


@dataclass(frozen=True, eq=False)
class Predicted:
    """A picture with what the model says of it.

    Args:
        name: its file, or its name in a data set.
        picture: as it was shown.
    """

    name: str
    picture: Picture
    answer: Answer


@dataclass(frozen=True)
class LeftOut:
    """A picture of which nothing can be said, and why."""

    name: str
    reason: str


def predict_files(
    model: ServedModel, files: Sequence[Path], threshold: float | None
) -> Iterator[Predicted | LeftOut]:
    """Yield what a model says of each file, in their order; of those that can't be read, why.

    Args:
        model: on its device.
        files: pictures of any shape.
        threshold: what is less probable is not said; None: that of the task.
    """
    to_stored = storing(model.facts.task, model.facts.side, model.facts.framing)
    for start in range(0, len(files), MOST_AT_ONCE):
        some = files[start : start + MOST_AT_ONCE]
        read = convert_pictures(some, to_stored)
        known = predict_pictures(model, [one for one in read if isinstance(one, Picture)], threshold)
        for file, one in zip(some, read, strict=True):
            if isinstance(one, Picture):
                yield Predicted(str(file), one, next(known))
            else:
                yield LeftOut(str(file), one)


def predict_stored(
    model: ServedModel, images: np.ndarray, names: Sequence[str], threshold: float | None
) -> Iterator[Predicted]:
    """Yield what a model says of images that are stored already: uint8, shape (N, side, side, 3)."""
    for start in range(0, len(images), MOST_AT_ONCE):
        some = [Picture(image, image.shape[1::-1]) for image in images[start : start + MOST_AT_ONCE]]
        answers = predict_pictures(model, some, threshold)
        for name, picture, answer in zip(names[start:], some, answers, strict=False):
            yield Predicted(name, picture, answer)


def predict_pictures(
    model: ServedModel, pictures: Sequence[Picture], threshold: float | None
) -> Iterator[Answer]:
    """Yield what a model says of pictures as they are stored."""
    facts, task = model.facts, answering(model.facts.task)
    least = task.THRESHOLD if threshold is None else threshold
    device = next(model.parameters()).device
    size = max(1, min(EVAL_BATCH, EVAL_PIXELS[device.type] // facts.image_size**2))
    for start in range(0, len(pictures), size):
        some = pictures[start : start + size]
        pixels = np.stack([picture.pixels for picture in some])
        with torch.inference_mode():
            probabilities = model(torch.from_numpy(pixels).to(device)).cpu().numpy()
        for each, picture in zip(probabilities, some, strict=True):
            yield task.answer(_of_picture(each, picture), facts.classes, least)


def _of_picture(probabilities: np.ndarray, picture: Picture) -> np.ndarray:
    """Return what is said of the picture, and not of the grey around it: (classes, ...)."""
    if probabilities.ndim == 1:
        return probabilities
    rows, columns = part_shown(picture.size, probabilities.shape[-1])
    return probabilities[:, rows, columns]
