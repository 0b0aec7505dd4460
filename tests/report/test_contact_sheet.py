"""A contact sheet shows every picture, whatever its number and the length of what is said."""

import numpy as np
import pytest
from PIL import Image

from bench.report.contact_sheet import draw_sheet


@pytest.mark.parametrize("count", [1, 7, 24])
def test_every_picture_is_on_it(count, tmp_path):
    colours = np.random.default_rng(0).integers(60, 200, (count, 3), dtype=np.uint8)
    pictures = [np.full((20, 20, 3), colour, np.uint8) for colour in colours]
    captions = [("0.51 a class with a very long name indeed", f"{n}.png") for n in range(count)]
    draw_sheet(pictures, captions, "Least certain", tmp_path / "sheet.png", {"sky": (10, 20, 250)})
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    there = {tuple(colour) for colour in np.unique(pixels, axis=0)}
    assert {tuple(colour) for colour in colours} | {(10, 20, 250)} <= there
