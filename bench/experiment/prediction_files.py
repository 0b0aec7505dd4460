"""What a final run keeps of what it said about the test images: files beside its metrics."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.data.dataset import NO_LABEL, Dataset
from bench.data.mask_colours import paint
from bench.system.csv_tables import to_csv

if TYPE_CHECKING:
    from bench.experiment.run_executor import Finished

GAP = 4  # pixels between the pictures of an example


def write_predictions(finished: "Finished", dataset: Dataset, folder: Path) -> dict[str, Path]:
    """Write `predictions.csv`, and for segmentation `examples/*.png`; return the files by name.

    Of classes: image, target, prediction, probability. Of masks, a row for each image and each class that its
    truth or its prediction shows: image, target (the class), and in pixels truth, predicted, intersection.
    """
    assert finished.answers is not None
    assert finished.test is not None
    import pandas as pd

    table = folder / "predictions.csv"
    columns = _of_classes(finished, dataset) if dataset.masks is None else _of_masks(finished, dataset)
    table.write_text(to_csv(pd.DataFrame(columns)), encoding="utf-8", newline="")
    files = {table.name: table}
    for name, (index, mask) in finished.examples.items():
        files[f"examples/{name}.png"] = _draw(dataset, index, mask, folder / f"{name}.png")
    return files


def _of_classes(finished: "Finished", dataset: Dataset) -> dict[str, object]:
    logits, test = finished.answers, finished.test
    assert logits is not None
    assert test is not None
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return {
        "image": [dataset.names[i] for i in test],
        "target": [dataset.classes[i] for i in dataset.labels[test]],
        "prediction": [dataset.classes[i] for i in logits.argmax(1)],
        "probability": (shifted.max(1) / shifted.sum(1)).round(6),
    }


def _of_masks(finished: "Finished", dataset: Dataset) -> dict[str, object]:
    answers, test = finished.answers, finished.test
    assert answers is not None
    assert test is not None
    size = len(dataset.classes)
    counts = answers[:, 1:].reshape(-1, size, size).astype(np.int64)
    truth, predicted = counts.sum(2), counts.sum(1)
    image, label = np.nonzero(truth + predicted)
    return {
        "image": [dataset.names[test[i]] for i in image],
        "target": [dataset.classes[c] for c in label],
        "truth": truth[image, label],
        "predicted": predicted[image, label],
        "intersection": counts[image, label, label],
    }


def _draw(dataset: Dataset, index: int, mask: np.ndarray, path: Path) -> Path:
    """Draw image, truth and prediction side by side, where there are labels; it knows image and classes."""
    assert dataset.masks is not None
    side, truth = dataset.images.shape[1], dataset.masks[index]
    tiles = [dataset.images[index], paint(truth), paint(np.where(truth == NO_LABEL, NO_LABEL, mask))]
    sheet = np.full((side, 3 * side + 2 * GAP, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        left = place * (side + GAP)
        sheet[:, left : left + side] = tile
    about = PngInfo()
    about.add_text("image", dataset.names[index])
    about.add_text("classes", json.dumps(dataset.classes))
    Image.fromarray(sheet).save(path, pnginfo=about, optimize=True)
    return path
