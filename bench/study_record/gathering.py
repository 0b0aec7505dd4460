"""What a report is made of: recorded in the store when a study begins, gathered later from the store alone.

With a study's run the store keeps the resolved study (`study.yaml`), the facts on its data and weights
(`study.json`) and small pictures of test images (`test_images.zip`). What is best, and which final runs
count, follows from the trials. So a report needs neither the data nor the weights, nor torch.
"""

import gc
import io
import json
import os
import shlex
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bench import __version__
from bench.core.errors import NotStoredError
from bench.core.hashing import canonical_json, digest
from bench.core.runs import Purpose, Status
from bench.core.versions import PROTOCOL
from bench.data.dataset import Dataset, Split
from bench.data.near_duplicates import NearDuplicate, in_words, near_duplicates
from bench.strategies.registry import STRATEGIES
from bench.study.loading import (
    as_yaml,
    available,
    load,
    parse,
)
from bench.study.schema import Study
from bench.tracking import frames, store_uri
from bench.tracking.frames import FoundRun, FoundStudy
from bench.tracking.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.evidence import Evidence
    from bench.experiment.plan import Plan

EXPERIMENT = "bench/{study}"
RECORD = 4  # raise it when what is recorded changes
GENERATION = "bench.generation"  # the tag of an arm's runs since it was forgotten with --fresh
STUDY, FACTS, PICTURES = "study.yaml", "study.json", "test_images.zip"
MOST_PICTURES, SIDE = 500, 64  # test images kept, evenly spaced; pixels


def record(store: RunStore, run_id: str, plan: "Plan", budget: str, *, sizes: bool = False) -> None:
    """Keep with a study's run what its reports will need.

    Args:
        store: of the study's experiment.
        run_id: of the study's run.
        plan: what is run.
        budget: the name of its preset.
        sizes: whether it is one of several numbers of training labels: not what the study's file says.
    """
    pictures = _pictures(plan.dataset, plan.splits[1].test)
    pairs = near_duplicates(plan.dataset, list(plan.splits.values()))
    facts = {
        "arms": {arm.strategy: arm.key for arm in plan.arms},
        "classes": plan.dataset.classes,
        "side": plan.dataset.images.shape[1],  # pixels, that images are kept at
        "provenance": _provenance(plan, pairs),
        "near_duplicates": pairs,  # image, its part, the other, its part
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (
            (STUDY, as_yaml(plan.study).encode()),
            (FACTS, json.dumps(facts, indent=2, ensure_ascii=False).encode()),
            (PICTURES, _zipped(pictures)),
        ):
            file = Path(folder) / name
            file.write_bytes(content)
            store.upload(run_id, name, file)
    tags = {"bench.record": _identity(plan), "bench.study": _asked(plan.study), "budget": budget}
    tags |= {"bench.sizes": "one of several"} if sizes else {}
    store.write(run_id, [], {}, tags)


def is_recorded(found: FoundStudy, plan: "Plan") -> bool:
    """Say whether what a report on this plan needs is kept with a study's run."""
    return found.tags.get("bench.record") == _identity(plan)


def find(store: RunStore, key: str) -> FoundStudy | None:
    """Return the study's run with this key, if there is one."""
    return next((found for found in store.studies() if found.tags["bench.key"] == key), None)


def same(store: RunStore, wanted: Study) -> FoundStudy | None:
    """Return the study's run with these very settings that ended last, if there is one."""
    asked = _asked(wanted)
    return next((run for run in store.studies() if run.tags.get("bench.study") == asked), None)


def newest(store: RunStore, wanted: Study | None, budget: str) -> tuple[FoundStudy, str]:
    """Return the study's run that ended last, and how what was asked then differs from what is asked now.

    One that failed, because of a mistake in its settings perhaps, is taken only if there is no other.

    Args:
        store: of the study's experiment.
        wanted: a run with these very settings goes before all others; None: there is nothing to compare with.
        budget: that of the run, where none has the settings.

    Raises:
        NotStoredError: if there is none, or it was made before reports needed a record.
    """
    where, found = store_uri.shown(store.uri), store.studies()
    recorded = [run for run in found if "bench.record" in run.tags]
    if found and not recorded:
        remedy = "`bench run` again records it, and trains nothing that is done"
        raise NotStoredError("the study was run before what its report needs was recorded", where, remedy)
    if wanted and (exact := same(store, wanted)):
        return exact, ""
    others = [run for run in recorded if run.tags["budget"] == budget and "bench.sizes" not in run.tags]
    if not others:
        what = f"the store holds no run of the study with the budget '{budget}'"
        raise NotStoredError(what, where, "run `bench run` first")
    chosen = next((run for run in others if run.status != "FAILED"), others[0])
    return chosen, _difference(resolved(store, chosen), wanted) if wanted else ""


def resolved(store: RunStore, found: FoundStudy) -> Study:
    """Return the study as it was when it was run."""
    text = next(store.read_all([found], STUDY)).decode()
    return parse(text, f"{STUDY} of the run {found.run_id}")


def gather(store: RunStore, found: FoundStudy) -> "Evidence":
    """Return what the store holds of a study, finished or not.

    Raises:
        InputError: if a file that belongs to a run is gone.
    """
    from bench.analysis.evidence import Evidence

    study = resolved(store, found)
    facts = json.loads(next(store.read_all([found], FACTS)))
    with _without_collector():
        runs, trials = _runs(store, study, facts["arms"])
    done = [run for run in runs if run.status is Status.DONE]
    tables = frames.table(runs), frames.table(trials, "trial")
    whole = len(runs) == study.seeds * len(study.strategies)
    return Evidence(
        study=study,
        runs=tables[0],
        trials=tables[1],
        curves=store.curves_frame(done),
        predictions=store.predictions_frame(done),
        provenance=facts["provenance"] | _computed(store, done, sum(map(_seconds, tables))),
        stages=frames.stages(done),
        images=_unzipped(next(store.read_all([found], PICTURES))),
        examples=store.examples(done) if study.task == "segmentation" else {},
        near_duplicates=tuple(map(tuple, facts.get("near_duplicates", ()))),  # recorded from RECORD 4 on
        run_pages=store.run_pages,
        fingerprint=fingerprint(study, found.tags["bench.key"], done) if whole else "",
    )


@contextmanager
def _without_collector() -> Iterator[None]:
    """Let no cyclic garbage be looked for: MLflow's many rows take twice as long with it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def fingerprint(study: Study, key: str, done: Sequence[FoundRun]) -> str:
    """Return the SHA-256 of what a report says: of what was asked, and of the runs that answer it."""
    return digest([__version__, study.model_dump(mode="json"), key, {run.key: run.run_id for run in done}])


def sizes(split: Split) -> dict[str, int]:
    """Return how many images each part has, in words."""
    return {"train images": len(split.train), "val images": len(split.val), "test images": len(split.test)}


def tuning_identity(study: Study) -> str:
    """Return what tells a study's trials from those of one that tunes the same arm in another way."""
    return canonical_json([study.tuning.pruner, study.tuning.seed])


def _runs(store: RunStore, study: Study, arms: Mapping[str, str]) -> tuple[list[FoundRun], list[FoundRun]]:
    """Return the final runs that count, by strategy and seed, and the trials; `arms` are keys by strategy.

    Those from before an arm was forgotten with --fresh don't count.
    """
    runs: list[FoundRun] = []
    trials: list[FoundRun] = []
    tuning = tuning_identity(study)
    for strategy, key in arms.items():
        found = [
            run
            for run in store.runs_of_arm(key, Purpose.TRIAL)
            if run.tags.get("bench.tuning", tuning) == tuning
        ]
        generation = found[0].tags.get(GENERATION) if found else None
        own = frames.by_trial((run for run in found if run.tags.get(GENERATION) == generation), [key])
        own = [trial for trial in own if int(trial.tags["trial"]) < study.tuning.trials]
        trials += own
        if len(own) == study.tuning.trials:
            best = frames.best_params(own, study.metric) or canonical_json(STRATEGIES[strategy].defaults)
            finals = [
                run
                for run in store.runs_of_arm(key, Purpose.FINAL)
                if run.tags["bench.params"] == best and run.tags.get(GENERATION) == generation
            ]
            runs += frames.by_seed(finals, range(1, study.seeds + 1))
    return runs, trials


def _asked(study: Study) -> str:
    return digest(study.model_dump(mode="json"))


def _identity(plan: "Plan") -> str:
    return digest([RECORD, plan.study.model_dump(mode="json"), plan.dataset.name, plan.dataset.digest])


def _difference(before: Study, now: Study) -> str:
    """Say in which settings two studies differ."""
    old, new = (flat(study.model_dump(mode="json")) for study in (before, now))
    changed = [name for name in new if old.get(name) != new[name]]
    said = [f"{name} was {old.get(name)}, is {new[name]}" for name in changed[:3]]
    return "; ".join(said + [f"and {len(changed) - 3} more"] * (len(changed) > 3))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level of dotted names."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        )
    return result


def _provenance(plan: "Plan", pairs: Sequence[NearDuplicate]) -> dict[str, Any]:
    """Say where the numbers come from, as far as it is known before any run."""
    dataset, split = plan.dataset, plan.splits[1]
    return {
        "command": store_uri.shown(
            shlex.join(["bench", "run", *_arguments(plan.study)])
        ),  # without passwords
        "protocol": PROTOCOL,
        "data": dataset.name,
        "data origin": _seen_from_here(dataset.origin),
        "data licence": dataset.licence,
        "data digest": dataset.digest,
        "classes": len(dataset.classes),
        "images": sizes(split) | ({"note": "; ".join(plan.shortfalls)} if plan.shortfalls else {}),
        "split hash of seed 1": split.hash,
        "images left out": [f"{r.name}: {r.reason}" for r in dataset.rejected],
        "near-duplicates across parts": in_words(pairs, split),
        "source weights": plan.origin.text,
        "source weights identity": plan.origin.identity,
    }


def _arguments(study: Study) -> list[str]:
    """Return what the command was given; `--study all` becomes the study's own name."""
    given = sys.argv[2:]
    of_all = [
        word == "--study=all" or (before, word) == ("--study", "all")
        for before, word in zip(["", *given], given, strict=False)
    ]
    if not any(of_all):
        return given
    own = next((name for name, path in available().items() if load(str(path)).name == study.name), study.name)
    return [
        word.removesuffix("all") + own if replaced else word
        for word, replaced in zip(given, of_all, strict=True)
    ]


def _seen_from_here(origin: str) -> str:
    """Return where data come from; a folder as seen from the current one: reports leave this machine."""
    return os.path.relpath(origin) if origin.startswith(os.sep) else origin


def _computed(store: RunStore, done: Sequence[FoundRun], seconds: float) -> dict[str, Any]:
    """Say what the runs were computed on; the environment is that of the first one."""
    environments = [json.loads(run.tags.get("bench.environment", "{}")) for run in done]
    return {
        "computed on": sorted({f"{e.get('device')} {e.get('precision')}" for e in environments}),
        "environment": environments[0] if environments else {},
        "tracking store": store_uri.shown(store.uri).replace(f"{Path.cwd()}/", ""),
        "seconds of all runs together": round(seconds),
    }


def _seconds(frame: "pd.DataFrame") -> float:
    """Return the seconds of training and evaluation in a frame of runs."""
    return float(frame[["train_seconds", "eval_seconds"]].sum().sum())


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


def _unzipped(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}
