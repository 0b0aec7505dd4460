"""What a study keeps in the run store when it begins: a report needs neither data nor weights nor torch."""

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bench.core.hashing import canonical_json
from bench.data.dataset import Dataset
from bench.data.near_duplicates import near_duplicates
from bench.data.splits import overlap
from bench.study.loading import (
    as_yaml,
)
from bench.study.tasks import TASKS
from bench.study_record.facts import (
    FACTS,
    ITS_OWN,
    ONE_OF_SEVERAL,
    PICTURES,
    SIZES,
    SPLIT,
    SPLIT_COLUMNS,
    STUDY,
    PlannedStudy,
    StudyFacts,
    identity,
    settings_digest,
)
from bench.study_record.provenance import (
    further_facts,
    provenance_of_plan,
)
from bench.system.csv_tables import to_csv
from bench.tracking.frames import FoundStudy
from bench.tracking.live_run import FILES
from bench.tracking.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

MOST_PICTURES, SIDE = 500, 64  # test images kept, evenly spaced; pixels


def record(store: RunStore, run_id: str, plan: PlannedStudy, budget: str, *, sizes: bool = False) -> None:
    """Keep with a study's run what its reports will need.

    Args:
        store: of the study's experiment.
        run_id: of the study's run.
        plan: what is run.
        budget: the name of its preset.
        sizes: whether it is one of several numbers of training labels: not what the study's file says.
    """
    pairs = near_duplicates(plan.dataset, list(plan.splits.values()))
    facts = StudyFacts(
        arms={arm.strategy: arm.key for arm in plan.arms},
        classes=plan.dataset.classes,
        side=plan.dataset.images.shape[1],
        provenance=provenance_of_plan(plan, pairs),
        near_duplicates=tuple(pairs),
        left_out=tuple((r.name, r.reason) for r in plan.dataset.rejected),
        baselines={arm.strategy: arm.key for arm in plan.baselines},
        framing=plan.dataset.framing,
        also_test={name: further_facts(test) for name, test in plan.also_test.items()},
        overlap=overlap([plan.splits[seed].train for seed in range(1, plan.study.most_seeds + 1)]),
    )
    sizes_of_files: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (
            (STUDY, as_yaml(plan.study).encode()),
            (FACTS, json.dumps(facts.as_json(), indent=2, ensure_ascii=False).encode()),
            (SPLIT, to_csv(_split(plan)).encode()),
            (PICTURES, _zipped(_pictures(plan.dataset, plan.splits[1].test))),
        ):
            file = Path(folder) / name
            file.write_bytes(content)
            store.writer.upload(run_id, name, file)
            sizes_of_files[name] = len(content)
    tags = {"bench.record": identity(plan), "bench.study": settings_digest(plan.study), "budget": budget}
    tags |= {FILES: canonical_json(sizes_of_files)}
    tags |= {SIZES: ONE_OF_SEVERAL} if sizes else {}
    store.writer.write(run_id, [], {}, tags)


def mark_as_asked_for(store: RunStore, found: FoundStudy) -> None:
    """Say that a study's run, which is one of several numbers of labels, is also what its file says."""
    if found.tags.get(SIZES) == ONE_OF_SEVERAL:
        store.writer.write(found.run_id, [], {}, {SIZES: ITS_OWN})


def is_recorded(found: FoundStudy, plan: PlannedStudy) -> bool:
    """Say whether what a report on this plan needs is kept with a study's run."""
    return found.tags.get("bench.record") == identity(plan)


def _split(plan: PlannedStudy) -> "pd.DataFrame":
    """Return a row for each image of any part: its name, class and part, and which seeds train on it."""
    import pandas as pd

    dataset, first = plan.dataset, plan.splits[1]
    trains_on: dict[int, list[int]] = {}
    for seed in range(1, plan.study.most_seeds + 1):
        for index in plan.splits[seed].train:
            trains_on.setdefault(int(index), []).append(seed)
    parts = [("train", np.array(sorted(trains_on), dtype=int)), ("val", first.val), ("test", first.test)]
    one_class = TASKS[plan.study.task].one_class
    rows = [
        (
            dataset.names[i],
            dataset.classes[dataset.labels[i]] if one_class else "",
            part,
            " ".join(map(str, trains_on.get(i, []))),
        )
        for part, indices in parts
        for i in indices.tolist()
    ]
    return pd.DataFrame(rows, columns=list(SPLIT_COLUMNS))


def _pictures(dataset: Dataset, test: np.ndarray) -> dict[str, bytes]:
    """Return small PNG pictures of test images by name."""
    chosen = test[np.linspace(0, len(test) - 1, min(MOST_PICTURES, len(test))).astype(int)]
    pictures = {}
    for index in chosen:
        picture = Image.fromarray(dataset.images[index])
        picture.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        pictures[dataset.names[index]] = buffer.getvalue()
    return pictures


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """Return an archive whose bytes depend on nothing but the files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()
