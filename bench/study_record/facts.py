"""What is recorded of a study when it begins, as types, and what tells one study from another."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from pydantic import TypeAdapter

from bench import __version__
from bench.core.hashing import canonical_json, digest
from bench.core.runs import Arm
from bench.core.versions import RECORD
from bench.data.dataset import Dataset, Split
from bench.data.framing import AS_IT_IS, Framing
from bench.data.further_tests import FurtherTest
from bench.data.near_duplicates import NearDuplicate
from bench.models.weights import Origin
from bench.study.schema import Study
from bench.tracking.frames import FoundRun

SIZES = "bench.sizes"  # the tag of a study's run with one of several numbers of training labels
ONE_OF_SEVERAL, ITS_OWN = "one of several", "its own, and one of several"
SPLIT_COLUMNS = ("image", "class", "part", "seeds")
STUDY, FACTS, PICTURES, SPLIT = "study.yaml", "study.json", "test_images.zip", "split.csv"  # of a study's run


class PlannedStudy(Protocol):
    """What a record is made of: `experiment.plan.Plan` is one."""

    @property
    def study(self) -> Study:
        """What was asked."""

    @property
    def dataset(self) -> Dataset:
        """The decoded images."""

    @property
    def origin(self) -> Origin:
        """Where the source's weights are from."""

    @property
    def splits(self) -> Mapping[int, Split]:
        """The parts of the data set, by seed."""

    @property
    def arms(self) -> Sequence[Arm]:
        """The strategies, each with all that decides its numbers."""

    @property
    def baselines(self) -> Sequence[Arm]:
        """The baselines, likewise."""

    @property
    def also_test(self) -> Mapping[str, FurtherTest]:
        """Further test sets by name."""

    @property
    def shortfalls(self) -> list[str]:
        """What there is less of than the study asks for."""


@dataclass(frozen=True)
class FurtherFacts:
    """A further test set.

    Args:
        data: where it is from, in words.
        digest: of its images and labels.
        images: how many are tested on.
        known: how many of these the study's own data have, too.
    """

    data: str
    digest: str
    images: int
    known: int


@dataclass(frozen=True)
class StudyFacts:
    """What a report needs to know beside the runs: kept as `study.json`.

    Args:
        arms: strategy to the key of its arm.
        classes: their names, in the order of the labels.
        side: pixels of the square that images are kept at.
        provenance: JSON types; see `provenance_of_plan`.
        near_duplicates: image, its part, the other image, its part.
        left_out: name and reason of each file of the data that could not be used.
        overlap: share of its training images that a seed has in common with another, mean over final seeds.
        baselines: baseline to the key of its arm.
        also_test: further test sets by name.
        framing: how pictures became squares.
    """

    arms: Mapping[str, str]
    classes: Sequence[str]
    side: int
    provenance: Mapping[str, Any]
    near_duplicates: tuple[NearDuplicate, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    overlap: float = 0.0
    baselines: Mapping[str, str] = field(default_factory=dict)
    also_test: Mapping[str, FurtherFacts] = field(default_factory=dict)
    framing: Framing = AS_IT_IS

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> "StudyFacts":
        """Return the facts that `as_json` gave; those of an earlier version may lack what has a default."""
        return TypeAdapter(cls).validate_json(text)


def identity(plan: PlannedStudy) -> str:
    """Return the SHA-256 of what a record says: the same needs no other record."""
    return digest([RECORD, plan.study.model_dump(mode="json"), plan.dataset.name, plan.dataset.digest])


def fingerprint(study: Study, key: str, done: Sequence[FoundRun]) -> str:
    """Return the SHA-256 of what a report says: of what was asked, and of the runs that answer it."""
    return digest([__version__, study.model_dump(mode="json"), key, {run.key: run.run_id for run in done}])


def settings_digest(study: Study) -> str:
    """Return the SHA-256 of all settings of a study."""
    return digest(study.model_dump(mode="json"))


def tuning_identity(study: Study) -> str:
    """Return what tells a study's trials from those of one that tunes the same arm in another way.

    The number of trials is part of it: how many are drawn at random before others learn from them follows
    from it, so more trials are not the same ones and some.
    """
    return canonical_json([study.tuning.pruner, study.tuning.seed, study.tuning.trials])


def sizes(split: Split) -> dict[str, int]:
    """Return how many images each part has, in words."""
    return {"train images": len(split.train), "val images": len(split.val), "test images": len(split.test)}


def groups(dataset: Dataset, split: Split) -> dict[str, Any]:
    """Return what images are grouped by, and how many groups each part has; nothing where there are none."""
    if dataset.groups is None:
        return {}
    parts = {"train": split.train, "val": split.val, "test": split.test}
    counts = {f"in {part}": len(np.unique(dataset.groups[indices])) for part, indices in parts.items()}
    return {"kind": dataset.group_kind, **counts}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level of dotted names."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        )
    return result
