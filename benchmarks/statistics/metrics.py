"""How often the intervals of other metrics hold the true value: classes of uneven size, images in groups."""

import numpy as np

from bench.analysis.predictions.base import Predictions
from bench.analysis.predictions.classification import one_class_counts
from bench.analysis.statistics import measured, value
from bench.study.metrics import METRICS

NAMES = ("balanced_accuracy", "macro_f1", "auroc", "average_precision")
CLASSES = (0.6, 0.3, 0.1)
SEEDS, GROUPS, SIZE = 5, 40, 12
LARGE, REPEATS = 3000, 60  # images of a test set as good as infinite, and how many of them


def draw(random, groups, size, seeds):
    """Return predictions by scores that are the class, and effects of image, group, seed and run."""
    count = groups * size
    labels, group = random.choice(len(CLASSES), count, p=CLASSES), np.repeat(np.arange(groups), size)

    def normal(sd, *shape):
        return sd * random.normal(size=(*shape, len(CLASSES)))

    scores = 1.5 * np.eye(len(CLASSES))[labels] + normal(0.5, groups)[group] + normal(0.7, count)
    scores = (
        scores + normal(0.25, seeds, 1) + normal(0.2, seeds, groups)[:, group] + normal(0.5, seeds, count)
    )
    one_hot, found = np.eye(len(CLASSES)), scores.argmax(axis=2)
    counts = one_class_counts(one_hot[labels], one_hot[found])
    return Predictions(
        rows={("one", seed): seed for seed in range(seeds)},
        correct=(found == labels).astype(float),
        targets=labels.astype(str),
        dropped=0,
        count=lambda: counts,
        scores=scores,
        group_names=tuple(map(str, group)),
    )


def coverage(studies, random):
    """Return how often the interval of each metric holds the value of an infinite test set and all seeds."""
    whole = [draw(random, LARGE, 1, 1) for _ in range(REPEATS)]
    truth = {name: np.mean([value(METRICS[name], one) for one in whole]) for name in NAMES}
    inside = dict.fromkeys(NAMES, 0)
    for _ in range(studies):
        predictions = draw(random, GROUPS, SIZE, SEEDS)
        for name in NAMES:
            found = measured(METRICS[name], predictions).estimate(range(SEEDS))
            inside[name] += found.low <= truth[name] <= found.high
    return {name: count / studies for name, count in inside.items()}
