"""What a final run keeps of its predictions, written and read again."""

import numpy as np
import pytest

from bench.core.runs import Scores
from bench.experiment.prediction_files import write_predictions
from bench.tracking.score_files import SCORES, read_scores
from bench.training.targets.base import PredictionRecord

NAMES = ("a b.png", "\u00e9,\n.png", "\udce9.png")  # the last: bytes that are no UTF-8


def test_scores_read_back_with_their_names(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    record = PredictionRecord({"image": ["x"]}, Scores(NAMES, ("ant", ""), values))
    files = write_predictions(record, tmp_path)
    stored = read_scores(files[SCORES].read_bytes())
    assert (stored.images, stored.classes) == (NAMES, ("ant", ""))
    assert np.array_equal(stored.values, values)


@pytest.mark.parametrize("pictures", [{}, {"examples/best.png": b"png"}])
def test_what_a_record_lacks_is_not_written(tmp_path, pictures):
    files = write_predictions(PredictionRecord({"image": ["x"]}, pictures=pictures), tmp_path)
    assert set(files) == {"predictions.csv", *pictures}
    assert all(file.is_file() for file in files.values())
