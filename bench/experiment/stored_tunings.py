"""Every tuning that a run store holds, for whoever looks at it: read, never written."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from bench.core.errors import InputError, NotStoredError
from bench.experiment.arm_state import finished_trial
from bench.strategies.registry import STRATEGIES, tuned_strategy
from bench.study.metrics import METRICS
from bench.study.schema import Study
from bench.study_record import read
from bench.study_record.facts import FACTS, StudyFacts, tuning_identity
from bench.tracking import store_uri
from bench.tracking.connection import experiments
from bench.tracking.frames import FoundStudy
from bench.tracking.reader import RECORDED
from bench.tracking.store import RunStore, open_store
from bench.tuning.dashboard import Tuning

log = logging.getLogger(__name__)


def stored_tunings(uri: str | None) -> list[Tuning]:
    """Return the tunings of all studies of a store, each once, of each study those of its newest run first.

    They are called `study/strategy/seed 1`; another one of the same name, with other settings, has a number
    behind it.

    Raises:
        NotStoredError: if there is none.
    """
    found: dict[tuple[str, str, int], Tuning] = {}
    for experiment in sorted(experiments(uri)):
        store = open_store(uri, experiment)
        for run in store.reader.studies():
            if RECORDED in run.tags:
                for arm_key, study, strategy in _arms(store, run):
                    for seed, tuning in _tunings(store, study, strategy, arm_key):
                        found.setdefault((arm_key, tuning_identity(study), seed), tuning)
    tunings = list(found.values())
    if not tunings:
        where = store_uri.shown(store_uri.resolve_uri(uri))
        raise NotStoredError("the store holds no tuning", where, "run `bench run` first")
    return _with_own_names(tunings)


def _arms(store: RunStore, found: FoundStudy) -> Iterator[tuple[str, Study, str]]:
    """Yield each arm of a study's run: its key, the study, its strategy; what can't be read is named."""
    try:
        study = read.resolved(store, found)
        facts = StudyFacts.from_json(next(store.reader.read_all([found], FACTS)))
    except InputError as error:
        log.warning("a run of %s is left out: %s", found.tags["study"], error)
        return
    for strategy, arm_key in facts.arms.items():
        if strategy in STRATEGIES:
            yield arm_key, study, strategy
        else:
            log.warning("%s/%s is left out: there is no such strategy any more", study.name, strategy)


def _tunings(store: RunStore, study: Study, strategy: str, arm_key: str) -> Iterator[tuple[int, Tuning]]:
    """Yield an arm's seeds and their tunings."""
    tuned, metric = read.trials_of(store, study, arm_key), f"val/{study.metric}"
    values = store.reader.curve_values([trial for own in tuned.values() for trial in own], metric)
    for seed, own in tuned.items():
        finished = [finished_trial(run, metric, values[run.run_id]) for run in own]
        name = f"{study.name}/{strategy}/seed {seed}"
        yield seed, Tuning(name, tuned_strategy(strategy, study), METRICS[study.metric], finished)


def _with_own_names(tunings: list[Tuning]) -> list[Tuning]:
    counts = Counter[str]()
    named = []
    for tuning in tunings:
        counts[tuning.name] += 1
        number = counts[tuning.name]
        named.append(replace(tuning, name=f"{tuning.name} ({number})") if number > 1 else tuning)
    return named
