"""What a final run keeps of its predictions for the test images: files beside its metrics."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.system.csv_tables import to_csv
from bench.tracking.score_files import SCORES, write_scores

if TYPE_CHECKING:
    from bench.training.targets.base import PredictionRecord


def write_predictions(record: "PredictionRecord", folder: Path, below: str = "") -> dict[str, Path]:
    """Write `predictions.csv`, and scores and pictures if a record has any.

    Args:
        record: of a final run.
        folder: to write to; made if it is missing.
        below: what stands before the names of the files in the store.

    Returns:
        the files by name.
    """
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    files = {"predictions.csv": folder / "predictions.csv"}
    text = to_csv(pd.DataFrame(record.columns))
    files["predictions.csv"].write_text(text, encoding="utf-8", newline="")
    if (scores := record.scores) is not None:
        files[SCORES] = folder / SCORES
        write_scores(scores, files[SCORES])
    for name, content in record.pictures.items():
        files[name] = folder / Path(name).name
        files[name].write_bytes(content)
    return {f"{below}{name}": file for name, file in files.items()}
