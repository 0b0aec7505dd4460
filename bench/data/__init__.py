"""Data: sources, decoded images, splits, near-duplicates; `bench.data.augment` needs torch: it is apart."""

from bench.data.dataset import (
    PART_NAMES,
    TEST,
    TRAIN,
    UNASSIGNED,
    VAL,
    Dataset,
    Rejected,
    Split,
    stored_side,
)
from bench.data.duplicates import NearDuplicate, in_words, near_duplicates
from bench.data.loading import find_source, is_known, load
from bench.data.source import MASK_SOURCES, SOURCES, Raw, Source
from bench.data.splitting import shortfalls, split

__all__ = [
    "MASK_SOURCES",
    "PART_NAMES",
    "SOURCES",
    "TEST",
    "TRAIN",
    "UNASSIGNED",
    "VAL",
    "Dataset",
    "NearDuplicate",
    "Raw",
    "Rejected",
    "Source",
    "Split",
    "find_source",
    "in_words",
    "is_known",
    "load",
    "near_duplicates",
    "shortfalls",
    "split",
    "stored_side",
]
