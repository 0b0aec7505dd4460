"""Scores of a batch of logits; every metric here is better when it is higher, but the loss."""

import torch
from torch import Tensor
from torch.nn import functional


def score(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return loss (mean cross-entropy, nats), accuracy, and balanced accuracy (mean recall over classes).

    Args:
        logits: shape (N, classes).
        labels: int64, shape (N,); every class occurs.
    """
    correct = logits.argmax(1).eq(labels).double()
    classes = logits.shape[1]
    counts = torch.bincount(labels, minlength=classes)
    hits = torch.zeros(classes, dtype=torch.double, device=labels.device).index_add_(0, labels, correct)
    present = counts > 0
    return {
        "loss": functional.cross_entropy(logits.float(), labels).item(),
        "accuracy": correct.mean().item(),
        "balanced_accuracy": (hits[present] / counts[present]).mean().item(),
    }
