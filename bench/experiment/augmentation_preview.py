"""A picture of what augmentation does to the images."""

import numpy as np
import torch

from bench.data.dataset import Dataset, Split
from bench.data.mask_colours import overlay
from bench.study.schema import Study
from bench.training.inputs import Images
from bench.training.targets.segmentation import Masks


def preview_grid(
    study: Study, dataset: Dataset, parts: Split, images: int, views: int = 7
) -> tuple[np.ndarray, list[str]]:
    """Return what augmentation does, uint8 (images, 1 + views, side, side, 3): first the evaluation view.

    The images are spread over the classes; the second value names them.
    """
    chosen = parts.train[np.argsort(dataset.labels[parts.train], kind="stable")]
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(images, len(chosen))).astype(int)]
    shown = Images(dataset, study.target, (0.0,) * 3, (1.0,) * 3, "cpu")
    limit = study.target.augmentation.views or views
    columns = [shown.evaluate(chosen)]
    columns += [shown.show(chosen, np.full(len(chosen), view)) for view in range(min(views, limit))]
    grid = torch.stack(columns, 1).permute(0, 1, 3, 4, 2).mul(255).round().clamp(0, 255).to(torch.uint8)
    captions = [dataset.caption(index) for index in chosen]
    if dataset.masks is None:
        return grid.numpy(), captions
    masks = Masks(dataset, study.target, "cpu")
    truth = [masks.evaluate(chosen)]
    truth += [masks.show(chosen, np.full(len(chosen), view)) for view in range(min(views, limit))]
    overlaid = overlay(grid.numpy(), torch.stack(truth, 1).numpy())
    return overlaid, captions
