"""A study as the run store holds it: found by its key or settings, and gathered as evidence."""

import gc
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.core.errors import NotStoredError
from bench.core.hashing import canonical_json
from bench.core.runs import ALSO, Purpose, Status
from bench.data.framing import AS_IT_IS
from bench.strategies.registry import tuned_strategy
from bench.study.loading import (
    parse,
)
from bench.study.metrics import METRICS, Ranking
from bench.study.schema import Study, with_changes
from bench.study.tasks import TASKS
from bench.system.csv_tables import from_csv
from bench.tracking import frames, store_uri
from bench.tracking.frames import FoundRun, FoundStudy
from bench.tracking.live_run import FILES
from bench.tracking.reader import GENERATION
from bench.tracking.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.evidence import Evidence
from bench.study_record.facts import (
    FACTS,
    ONE_OF_SEVERAL,
    PICTURES,
    SIZES,
    SPLIT,
    SPLIT_COLUMNS,
    STUDY,
    StudyFacts,
    fingerprint,
    flat,
    settings_digest,
    tuning_identity,
)
from bench.study_record.provenance import (
    provenance_of_runs,
    total_seconds,
)

EXPERIMENT = "bench/{study}"
PLAN = "plan.txt"  # of a final run


def find(store: RunStore, key: str) -> FoundStudy | None:
    """Return the study's run with this key, if there is one."""
    return next((found for found in store.reader.studies() if found.tags["bench.key"] == key), None)


def same(store: RunStore, wanted: Study) -> FoundStudy | None:
    """Return the study's run with these very settings that ended last, if there is one."""
    asked = settings_digest(wanted)
    return next((run for run in store.reader.studies() if run.tags.get("bench.study") == asked), None)


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
    where, found = store_uri.shown(store.connection.uri), store.reader.studies()
    recorded = [run for run in found if "bench.record" in run.tags]
    if found and not recorded:
        remedy = "`bench run` again records it, and trains nothing that is done"
        raise NotStoredError("the study was run before what its report needs was recorded", where, remedy)
    if wanted and (exact := same(store, wanted)):
        return exact, ""
    others = [r for r in recorded if r.tags["budget"] == budget and r.tags.get(SIZES) != ONE_OF_SEVERAL]
    if not others:
        what = f"the store holds no run of the study with the budget '{budget}'"
        raise NotStoredError(what, where, "run `bench run` first")
    chosen = next((run for run in others if run.status != "FAILED"), others[0])
    return chosen, _changed_settings(resolved(store, chosen), wanted) if wanted else ""


def resolved(store: RunStore, found: FoundStudy) -> Study:
    """Return the study as it was when it was run."""
    text = next(store.reader.read_all([found], STUDY)).decode()
    return parse(text, f"{STUDY} of the run {found.run_id}")


def gather(store: RunStore, found: FoundStudy) -> "Evidence":
    """Return what the store holds of a study, finished or not.

    Raises:
        InputError: if a file that belongs to a run is gone.
    """
    from bench.analysis.evidence import Evidence
    from bench.analysis.sequential import wanted_seeds

    study = resolved(store, found)
    facts = StudyFacts.from_json(next(store.reader.read_all([found], FACTS)))
    with _without_collector():
        runs, trials = _runs(store, study, facts.arms)
    done = _done(runs)
    tables = frames.table(runs), frames.table(trials, "trial")
    of_baselines = _runs_of_baselines(store, study, facts.baselines)
    evidence = Evidence(
        study=study,
        runs=tables[0],
        trials=tables[1],
        curves=store.reader.curves_frame(done),
        predictions=store.reader.predictions_frame(done),
        provenance={**facts.provenance} | provenance_of_runs(store, done, sum(map(total_seconds, tables))),
        stages=frames.stages(done),
        images=_unzipped(next(store.reader.read_all([found], PICTURES))),
        scores=store.reader.scores(done) if _ranks(study) else {},
        examples=store.reader.examples(done) if TASKS[study.task].keeps_pictures else {},
        near_duplicates=facts.near_duplicates,
        left_out=facts.left_out,
        run_pages=store.connection.run_pages,
        overlap=facts.overlap,
        budget=found.tags.get("budget", "default"),
        split=_split(store, found),
        side=facts.side,
        fit=facts.framing.fit,
        deep=facts.framing.levels != AS_IT_IS.levels,
        parts=_parts(store, done),
        baselines=_evidence_of_baselines(store, study, facts, of_baselines) if facts.baselines else None,
    )
    also = {name: _of_further(store, evidence, name, facts, runs) for name in facts.also_test}
    evidence = replace(evidence, wanted=wanted_seeds(evidence), also=also)
    wanted = sum(evidence.wanted.values()) + study.looks[0] * len(facts.baselines)
    whole = len(runs) + len(of_baselines) == wanted
    ended = [*done, *_done(of_baselines)]
    return replace(evidence, fingerprint=fingerprint(study, found.tags["bench.key"], ended) if whole else "")


def _split(store: RunStore, found: FoundStudy) -> "pd.DataFrame":
    """Return who trains on which image; empty where it was recorded before that was kept."""
    import pandas as pd

    if SPLIT not in json.loads(found.tags.get(FILES, "{}")):
        return pd.DataFrame(columns=list(SPLIT_COLUMNS))
    return from_csv(next(store.reader.read_all([found], SPLIT)), SPLIT_COLUMNS)


def _parts(store: RunStore, done: list[FoundRun]) -> dict[str, tuple[str, ...]]:
    """Return what the model's stages consist of, which is the same for all runs of a study."""
    known = [run for run in done if PLAN in json.loads(run.tags.get(FILES, "{}"))]
    if not known:
        return {}
    return parts_of_stages(next(store.reader.read_all(known[:1], PLAN)).decode())


def parts_of_stages(plan: str) -> dict[str, tuple[str, ...]]:
    """Return from the text of a run's plan the stages, and what the names in each begin with."""
    _, _, behind = plan.partition("stages: ")
    lines = (line.partition(": ") for line in behind.splitlines()[1:])
    return {name: tuple(parts.split()) for name, _, parts in lines}


def _done(runs: Iterable[FoundRun]) -> list[FoundRun]:
    return [run for run in runs if run.status is Status.DONE]


def _runs_of_baselines(store: RunStore, study: Study, arms: Mapping[str, str]) -> list[FoundRun]:
    """Return the runs of baselines that count, by baseline and seed; `arms` are keys by baseline."""
    found: list[FoundRun] = []
    for key in arms.values():
        generation = store.reader.generation(key)
        own = [
            run
            for run in store.reader.runs_of_arm(key, Purpose.FINAL)
            if run.tags.get(GENERATION, "") == generation
        ]
        found += frames.by_seed(own, range(1, study.looks[0] + 1))
    return found


def _evidence_of_baselines(
    store: RunStore, study: Study, facts: StudyFacts, runs: list[FoundRun]
) -> "Evidence":
    """Return what is known of baselines as if they were strategies: their results are got the same way."""
    from bench.analysis.evidence import Evidence

    done = _done(runs)
    return Evidence(
        study=with_changes(study, strategies=tuple(facts.baselines), baselines=(), seeds=study.looks[0]),
        runs=frames.table(runs),
        trials=frames.table([], "trial"),
        curves=frames.curves([]),
        predictions=store.reader.predictions_frame(done),
        scores=store.reader.scores(done) if _ranks(study) else {},
        overlap=facts.overlap,
    )


def _of_further(
    store: RunStore, evidence: "Evidence", name: str, facts: StudyFacts, runs: list[FoundRun]
) -> "Evidence":
    """Return the evidence of a further test set: of the same runs, with what it reads instead of test."""
    below, done, there = f"{ALSO}{name}/", _done(runs), facts.also_test[name]
    known = f"{there.known} of its images are also in the study's own data" if there.known else ""
    return replace(
        evidence,
        runs=frames.table([frames.with_further(run, below) for run in runs]),
        predictions=store.reader.predictions_frame(done, below),
        scores=store.reader.scores(done, below) if _ranks(evidence.study) else {},
        provenance={"data": there.data, "data digest": there.digest, "images": there.images, "known": known},
        near_duplicates=(),
        baselines=None,
    )


def _ranks(study: Study) -> bool:
    """Say whether a report needs what images are ranked by."""
    statistics = (METRICS[study.metric].statistic, TASKS[study.task].class_statistic)
    return any(isinstance(statistic, Ranking) for statistic in statistics)


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


def _runs(store: RunStore, study: Study, arms: Mapping[str, str]) -> tuple[list[FoundRun], list[FoundRun]]:
    """Return the final runs that count, by strategy and seed, and the trials; `arms` are keys by strategy.

    Those from before an arm was forgotten with --fresh don't count.
    """
    runs: list[FoundRun] = []
    trials: list[FoundRun] = []
    for strategy, key in arms.items():
        tuned = trials_of(store, study, key)
        trials += [trial for own in tuned.values() for trial in own]
        best = {
            str(seed): frames.best_params(own, study.metric)
            or canonical_json(tuned_strategy(strategy, study).defaults)
            for seed, own in tuned.items()
            if len(own) == study.tuning.trials
        }
        if best:
            generation = trials[-1].tags.get(GENERATION)
            finals = [
                run
                for run in store.reader.runs_of_arm(key, Purpose.FINAL)
                if run.tags["bench.params"] == best.get(run.tags["seed"])
                and run.tags.get(GENERATION) == generation
            ]
            runs += frames.by_seed(finals, range(1, study.most_seeds + 1))
    return runs, trials


def trials_of(store: RunStore, study: Study, arm_key: str) -> dict[int, list[FoundRun]]:
    """Return by seed the trials of an arm that count: of the study's tuning, since it was forgotten."""
    tuning = tuning_identity(study)
    found = [
        run
        for run in store.reader.runs_of_arm(arm_key, Purpose.TRIAL)
        if run.tags.get("bench.tuning", tuning) == tuning
    ]
    generation = found[0].tags.get(GENERATION) if found else None
    tuned = frames.trials_by_seed(run for run in found if run.tags.get(GENERATION) == generation)
    return {seed: own for seed, own in tuned.items() if 1 <= seed <= study.most_seeds}


def _changed_settings(before: Study, now: Study) -> str:
    """Say in which settings two studies differ."""
    old, new = (flat(study.model_dump(mode="json")) for study in (before, now))
    changed = [name for name in new if old.get(name) != new[name]]
    said = [f"{name} was {old.get(name)}, is {new[name]}" for name in changed[:3]]
    return "; ".join(said + [f"and {len(changed) - 3} more"] * (len(changed) > 3))


def _unzipped(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}
