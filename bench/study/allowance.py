"""How long a run may train: optimisation steps, the same for every strategy and every number of labels.

Epochs are no measure of it: two of them are 8 steps with 100 training images and 126 with 2,000.
"""

from bench.study.schema import Training

DEFAULT_STEPS = 300  # of a run whose study names neither steps nor epochs


def batches_per_epoch(images: int, batch_size: int) -> int:
    """Return in how many batches an epoch goes through the training images, none of them a single image."""
    return max(1, min(-(-images // batch_size), images // 2))


def evaluation_steps(training: Training, images: int) -> tuple[int, ...]:
    """Return after how many optimisation steps val is looked at; the last is all that a run may take.

    Where the study names epochs, that is after each of them.

    Args:
        training: the study's.
        images: to train on.
    """
    if training.epochs is not None:
        per_epoch = batches_per_epoch(images, training.batch_size)
        return tuple(per_epoch * (epoch + 1) for epoch in range(training.epochs))
    steps = training.steps or DEFAULT_STEPS
    count = min(training.evaluations, steps)
    return tuple(round(steps * (number + 1) / count) for number in range(count))
