"""Scores of logits and of confusion matrices; every metric is better when it is higher, but the loss."""

import torch
from torch import Tensor
from torch.nn import functional

from bench.data.dataset import NO_LABEL


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


def confusions(predicted: Tensor, masks: Tensor, classes: int) -> Tensor:
    """Return a confusion matrix for each image: int64, shape (B, classes, classes), truth by prediction.

    Args:
        predicted: int64, shape (B, H, W).
        masks: int64, shape (B, H, W); NO_LABEL pixels are not counted.
        classes: how many.
    """
    counted = masks != NO_LABEL
    image = torch.arange(len(masks), device=masks.device)[:, None, None]
    cell = ((image * classes + masks) * classes + predicted)[counted]
    return torch.bincount(cell, minlength=len(masks) * classes**2).view(-1, classes, classes)


def segmentation_scores(confusion: Tensor) -> dict[str, float]:
    """Return mean IoU and pixel accuracy of a set of images.

    The intersection over union of a class is that of all pixels of the set; the mean is over the classes that
    occur in the truth.

    Args:
        confusion: shape (classes, classes), truth by prediction, summed over the set.
    """
    counts = confusion.double()
    truth, hits = counts.sum(1), counts.diagonal()
    present = truth > 0
    union = truth + counts.sum(0) - hits
    return {
        "mean_iou": (hits[present] / union[present]).mean().item(),
        "pixel_accuracy": (hits.sum() / truth.sum()).item(),
    }


def scores_by_image(confusion: Tensor) -> Tensor:
    """Return the mean IoU of each image by itself, over the classes that it shows; NaN where it shows none.

    Args:
        confusion: shape (N, classes, classes).
    """
    counts = confusion.double()
    truth, hits = counts.sum(2), counts.diagonal(dim1=1, dim2=2)
    union = truth + counts.sum(1) - hits
    iou = torch.where(truth > 0, hits / union.clamp(min=1), 0)
    return iou.sum(1) / (truth > 0).sum(1)
