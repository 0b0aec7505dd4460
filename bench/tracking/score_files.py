"""The scores of a run as a file, `scores.npz`: arrays of text and numbers; reading executes nothing."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.runs import Scores

if TYPE_CHECKING:
    import numpy as np

SCORES = "scores.npz"


def write_scores(scores: Scores, file: Path) -> None:
    """Write scores, compressed; names as UTF-8, so that whatever is in them reads back."""
    import numpy as np

    images, classes = _encoded(scores.images), _encoded(scores.classes)
    np.savez_compressed(file, values=scores.values, images=images, classes=classes)


def read_scores(content: bytes) -> Scores:
    """Return the scores that `write_scores` wrote."""
    import numpy as np

    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Scores(_decoded(arrays["images"]), _decoded(arrays["classes"]), arrays["values"])


def _encoded(names: Sequence[str]) -> "np.ndarray":
    import numpy as np

    return np.frombuffer("\0".join(names).encode("utf-8", "surrogatepass"), np.uint8)


def _decoded(names: "np.ndarray") -> tuple[str, ...]:
    return tuple(names.tobytes().decode("utf-8", "surrogatepass").split("\0"))
