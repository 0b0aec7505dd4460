"""Predicted masks as files: classes as the numbers that a mask holds, and as colours over the picture."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.core.errors import InputError
from bench.data.dataset import NO_LABEL
from bench.data.decoding import open_image, upright
from bench.data.framing import AS_IT_IS, Framing
from bench.data.mask_colours import WHITE, colours, overlay
from bench.export.prediction import Predicted
from bench.system.files import replacing
from bench.system.locations import mark

MASKS, OVERLAYS = "masks", "overlays"


class MaskFolder:
    """Writes masks below a folder, each under the name of its picture.

    Args:
        folder: gets `masks/`, as large as the pictures, in which each pixel is the number of its class (255
            where the model is unsure), with a colour table; and `overlays/`, to look at.
        names: of all pictures that there will be: what they share of their path is left out.
        framing: how deep pixels are scaled.

    Raises:
        InputError: if two pictures would get the same mask.
    """

    def __init__(self, folder: Path, names: Iterable[str], framing: Framing = AS_IT_IS) -> None:
        self.folder, self.framing = folder, framing
        self._files = _file_names(list(names))
        folder.mkdir(parents=True, exist_ok=True)
        mark(folder)

    def write(self, one: Predicted) -> Path:
        """Write what the model says of a picture; return the mask's file."""
        assert one.answer.mask is not None, "this task has masks"
        resized = Image.fromarray(one.answer.mask).resize(one.picture.size, Image.Resampling.NEAREST)
        mask = np.asarray(resized)
        picture = Image.fromarray(mask, "P")
        table = np.concatenate([colours(NO_LABEL), WHITE[None]])
        picture.putpalette(table.tobytes())
        file = self.folder / MASKS / self._files[one.name]
        _save(picture, file)
        _save(
            Image.fromarray(overlay(self._pixels(one), mask)), self.folder / OVERLAYS / self._files[one.name]
        )
        return file

    def _pixels(self, one: Predicted) -> np.ndarray:
        """Return the picture itself, as large as it is; of one of a data set, as that keeps it."""
        if one.picture.size == one.picture.pixels.shape[1::-1]:
            return one.picture.pixels
        with open_image(Path(one.name)) as image:
            return np.asarray(upright(image, self.framing))


def _save(picture: Image.Image, file: Path) -> None:
    with replacing(file) as temporary:
        picture.save(temporary, "PNG", optimize=True)


def _file_names(names: list[str]) -> dict[str, str]:
    """Return the file of each picture's mask: its path without what all share, with another suffix."""
    folders = {os.path.dirname(name) for name in names}  # noqa: PTH120 - names of data sets are no paths
    shared = (
        os.path.commonpath(folders) if len(folders) > 1 and "" not in folders else min(folders, default="")
    )
    found = {name: f"{os.path.splitext(os.path.relpath(name, shared or '.'))[0]}.png" for name in names}  # noqa: PTH122
    taken: dict[str, str] = {}
    for name, file in found.items():
        if (other := taken.setdefault(file, name)) != name:
            raise InputError(f"{name} and {other} would get the same mask", "--masks", "predict them apart")
    return found
