"""Every number that is raised by hand, and what raising it means; CHANGELOG.md says what made each rise."""

from typing import Literal

PROTOCOL = 2  # in every arm's key: results stop being comparable with earlier ones
RECORD = 8  # what a study's run keeps for its report (study_record/facts.py): it is recorded anew
REPORT = 9  # what a report's files hold (report/, study_record/freshness.py): it is written again
CHECKPOINT = 1  # what a run in flight keeps (training/checkpoints.py): one of another version begins anew
FEATURES = 2  # what the same images and weights give as frozen features (training/cached_features.py)
IMAGES = 5  # what the image store holds (data/image_store.py): the same files are decoded anew
EXPORT: Literal[1] = 1  # what `model.json` of an export says (export/model_facts.py): others are refused
