"""The scores of a run as a file, `scores.npz`: arrays of text and numbers; reading executes nothing."""

import io
from pathlib import Path

import numpy as np

from bench.core.runs import Scores

SCORES = "scores.npz"


def write_scores(scores: Scores, file: Path) -> None:
    """Write scores, compressed; names as UTF-8, so that whatever is in them reads back."""
    names = {
        name: np.frombuffer("\0".join(texts).encode("utf-8", "surrogatepass"), np.uint8)
        for name, texts in (("images", scores.images), ("classes", scores.classes))
    }
    np.savez_compressed(file, values=scores.values, **names)


def read_scores(content: bytes) -> Scores:
    """Return the scores that `write_scores` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        images, classes = (
            arrays[name].tobytes().decode("utf-8", "surrogatepass").split("\0")
            for name in ("images", "classes")
        )
        return Scores(tuple(images), tuple(classes), arrays["values"])
