"""Where the numbers of a study come from: what is known before any run, and what the runs add."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.versions import PROTOCOL
from bench.data.further_tests import FurtherTest
from bench.data.groups import signs, signs_of_copies
from bench.data.left_out import summarise
from bench.data.near_duplicates import NearDuplicate, in_words
from bench.models.weights import Origin
from bench.study.loading import (
    available,
    load,
)
from bench.study.schema import Study
from bench.system.command_line import as_typed
from bench.tracking import store_uri
from bench.tracking.frames import FoundRun
from bench.tracking.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

from bench.study_record.facts import (
    FurtherFacts,
    PlannedStudy,
    groups,
    sizes,
)


def provenance_of_plan(plan: PlannedStudy, pairs: Sequence[NearDuplicate]) -> dict[str, Any]:
    """Say where the numbers come from, as far as it is known before any run."""
    dataset, split = plan.dataset, plan.splits[1]
    return {
        "command": store_uri.shown(as_typed(["bench", *_words(plan.study)])),  # without passwords
        "protocol": PROTOCOL,
        "data": without_folders(dataset.name),
        **({"data origin": dataset.origin} if not Path(dataset.origin).is_absolute() else {}),
        "data licence": dataset.licence,
        "data digest": dataset.digest,
        "classes": len(dataset.classes),
        **({"images are": words} if (words := dataset.framing.in_words) else {}),
        "images": sizes(split) | ({"note": "; ".join(plan.shortfalls)} if plan.shortfalls else {}),
        "split hash of seed 1": split.hash,
        **_groups(plan, pairs),
        "images left out": summarise(dataset.rejected),
        "near-duplicates across parts": in_words(pairs, split),
        "source weights": _named(plan.origin),
        "source weights identity": plan.origin.identity,
    }


def further_facts(test: FurtherTest) -> FurtherFacts:
    """Return what is recorded of a further test set."""
    data = test.dataset
    return FurtherFacts(without_folders(data.name), data.digest, len(test.indices), test.known)


def _groups(plan: PlannedStudy, pairs: Sequence[NearDuplicate]) -> dict[str, Any]:
    """Return what images are grouped by; or in words, what looks as if they should be."""
    dataset, target, split = plan.dataset, plan.study.target, plan.splits[1]
    if known := groups(dataset, split):
        return {"groups": known}
    copies = len({pair.name_a for pair in pairs if pair.part_a == "test"})
    found = signs(dataset, target) or signs_of_copies(dataset, target, copies, len(split.test))
    return {"groups": f"none are given, but {found}"} if found else {}


def _words(study: Study) -> list[str]:
    """Return what the command was given; `all` studies become this one, by the name it is found under."""
    given = sys.argv[1:]
    of_all = [
        word == "--study=all" or (word == "all" and (before == "--study" or not before.startswith("-")))
        for before, word in zip(["", *given], given, strict=False)
    ]
    if not any(of_all):
        return given
    own = next((name for name, path in available().items() if load(str(path)).name == study.name), study.name)
    return [
        word.removesuffix("all") + own if replaced else word
        for word, replaced in zip(given, of_all, strict=True)
    ]


def without_folders(data: str) -> str:
    """Return the name of data; of a path its last part: where it lies is nobody else's business."""
    return Path(data).name if data.startswith(os.sep) else data


def _named(origin: Origin) -> str:
    """Return where weights come from; of a file its name."""
    return f"file {Path(origin.text).name}" if origin.text.startswith("file ") else origin.text


def _store(uri: str) -> str:
    """Return the address of a store; of one on this machine no folders."""
    shown = store_uri.shown(uri)
    scheme, _, path = shown.partition(":")
    return f"{scheme}:{Path(path).name}" if scheme in {"sqlite", "file"} else shown


def provenance_of_runs(store: RunStore, done: Sequence[FoundRun], seconds: float) -> dict[str, Any]:
    """Say what the runs were computed on; the environment is that of the first one."""
    environments = [json.loads(run.tags.get("bench.environment", "{}")) for run in done]
    hardware = sorted({_hardware(environment) for environment in environments})
    return {
        "computed on": sorted({f"{e.get('device')} {e.get('precision')}" for e in environments}),
        "environment": environments[0] if environments else {},
        **({"date": _date(max(run.ended for run in done))} if done else {}),
        **({"different hardware": hardware} if len(hardware) > 1 else {}),
        "tracking store": _store(store.connection.uri),
        "seconds of all runs together": round(seconds),
    }


def _date(milliseconds: int) -> str:
    """Return the day on which it was, everywhere the same: that of UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()


def _hardware(environment: Mapping[str, Any]) -> str:
    """Return what computed a run, as far as it may move its numbers."""
    model = environment.get("device_name") or environment.get("processor")
    return ", ".join(str(part) for part in (environment.get("device"), model) if part) or "unknown"


def total_seconds(frame: "pd.DataFrame") -> float:
    """Return the seconds of training and evaluation in a frame of runs."""
    return float(frame[["train_seconds", "eval_seconds"]].sum().sum())
