"""What results are measured against beside strategies: one record for each baseline, which needs no training.

How one is computed is in `training/baselines.py`.
"""

from dataclasses import dataclass

from bench.core.registry import Registry


@dataclass(frozen=True)
class Baseline:
    """A classifier of little: what is right without transfer, or by next to no learning.

    Args:
        name: as a study and the tables have it.
        summary: one line.
        frozen: whether it sees the source model's features, which its results then depend on.
    """

    name: str
    summary: str
    frozen: bool = False


BASELINES: Registry[Baseline] = Registry("baseline")
BASELINES.add(Baseline("majority", "the class that most training images have"))
BASELINES.add(
    Baseline(
        "colour_histogram",
        "extremely randomised trees (Geurts et al. 2006) on how often colours occur in an image",
    )
)
BASELINES.add(
    Baseline(
        "nearest_neighbours",
        "the training images with the nearest frozen features, by cosine; how many is chosen on validation",
        frozen=True,
    )
)
