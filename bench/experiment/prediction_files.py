"""What a final run keeps of its predictions for the test images: files beside its metrics."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.system.csv_tables import to_csv

if TYPE_CHECKING:
    from bench.training.targets.base import PredictionRecord


def write_predictions(record: "PredictionRecord", folder: Path) -> dict[str, Path]:
    """Write `predictions.csv` and the pictures of a record, if it has any; return the files by name."""
    import pandas as pd

    files = {"predictions.csv": folder / "predictions.csv"}
    text = to_csv(pd.DataFrame(record.columns))
    files["predictions.csv"].write_text(text, encoding="utf-8", newline="")
    for name, content in record.pictures.items():
        files[name] = folder / Path(name).name
        files[name].write_bytes(content)
    return files
