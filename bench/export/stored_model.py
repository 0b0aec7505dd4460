"""Which run of the store a person means by a name, and its model."""

import io
import re
import zipfile
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bench.analysis.results import by_validation
from bench.analysis.summary import Summary, summarise
from bench.core.errors import InputError, NotStoredError, closest
from bench.data import loading, splits
from bench.data.dataset import Dataset, Split
from bench.export.model_facts import ModelFacts, Scores
from bench.export.served_model import ServedModel, build_served
from bench.models.factory import build, statistics
from bench.models.weights import locate
from bench.strategies.registry import STRATEGIES
from bench.study.metrics import METRICS
from bench.study.schema import Study
from bench.study_record import read
from bench.study_record.facts import FACTS, PICTURES, StudyFacts
from bench.study_record.publish import RECOMMENDED
from bench.tracking import connection, model_registry, store_uri
from bench.tracking.frames import FoundRun, FoundStudy
from bench.tracking.store import RunStore, open_store

if TYPE_CHECKING:
    from bench.analysis.evidence import Evidence

TEMPERATURE = "val/temperature"
WEIGHTS = "weights.safetensors"
RUN_ID = re.compile(r"[0-9a-f]{32}")
REMEDY = "give a study, a run's id, a registered model, or a folder that `bench export` wrote"


@dataclass(frozen=True, eq=False)
class StoredModel:
    """A final run in the store, with the study that it is of.

    Args:
        store: of the study's experiment.
        found: the study's run.
        run: the final run.
    """

    store: RunStore
    found: FoundStudy
    run: FoundRun

    @cached_property
    def study(self) -> Study:
        """As it was when it was run."""
        return read.resolved(self.store, self.found)

    @cached_property
    def recorded(self) -> StudyFacts:
        """What the study's run says of its data."""
        return StudyFacts.from_json(next(self.store.reader.read_all([self.found], FACTS)))

    @cached_property
    def evidence(self) -> "Evidence":
        """All that is stored of the study."""
        return read.gather(self.store, self.found)

    @cached_property
    def summary(self) -> Summary:
        """What the study's report says."""
        return summarise(self.evidence)

    @cached_property
    def facts(self) -> ModelFacts:
        """What is to be known of the model."""
        study, recorded, run = self.study, self.recorded, self.run
        strategy, size, classes = STRATEGIES[run.tags["strategy"]], study.target.image_size, recorded.classes
        stages = build(study.source, study.head, len(classes), size, strategy.start, 0).stages
        mean, std = statistics(study.source)
        return ModelFacts(
            study=study.name,
            task=study.task,
            strategy=strategy.name,
            seed=int(run.tags["seed"]),
            params=dict(run.params),
            run=run.run_id,
            budget=self.found.tags.get("budget", "default"),
            trained_on="train and val" if study.training.refit else "train",
            classes=tuple(classes),
            framing=recorded.framing,
            side=recorded.side,
            image_size=size,
            source=study.source,
            head=study.head,
            readout=strategy.plan(len(stages), run.params).readout,
            mean=mean,
            std=std,
            temperature=run.metrics.get(TEMPERATURE, 1.0),
            data=str(recorded.provenance["data"]),
            digest=str(recorded.provenance["data digest"]),
            licence=str(recorded.provenance["data licence"]),
            weights=str(recorded.provenance["source weights"]),
            scores=Scores(
                metric=study.metric,
                val=run.metrics.get(f"val/{study.metric}"),
                test=run.metrics.get(f"test/{study.metric}"),
            ),
        )

    @property
    def facts_with_interval(self) -> ModelFacts:
        """The same with what its strategy reaches over all seeds, for which the whole study is read."""
        result = self.summary.result(self.run.tags["strategy"])
        if result.test is None:
            return self.facts
        test = result.test
        known = {"strategy_test": test.value, "low": test.low, "high": test.high, "seeds": test.seeds}
        scores = self.facts.scores.model_copy(update=known)
        return self.facts.model_copy(update={"scores": scores})

    def load(self) -> ServedModel:
        """Return the run's model.

        Raises:
            InputError: if the source's weights are not those that the study was run with, or can't be found.
        """
        from safetensors.torch import load

        check_weights(self.study, self.recorded, self.run.tags["strategy"])
        weights = load(next(self.store.reader.read_all([self.run], WEIGHTS)))
        return build_served(self.facts, weights, whole=False)

    def dataset(self) -> Dataset:
        """Return the study's data.

        Raises:
            InputError: if they can't be opened, or are not those that the study was run on.
        """
        dataset = loading.load(self.study.target, task=self.study.task)
        if dataset.digest != self.recorded.provenance["data digest"]:
            what = "the data are not those that the study was run on"
            raise InputError(what, self.study.target.data, "put those back, or run the study again")
        return dataset

    def split(self, dataset: Dataset) -> Split:
        """Return which images the run was trained on, chosen by and tested on."""
        return splits.split(dataset, self.study.target, int(self.run.tags["seed"]))

    def pictures(self, most: int) -> np.ndarray:
        """Return some of the test images as the record keeps them, small: uint8, (N, side, side, 3)."""
        archive = zipfile.ZipFile(io.BytesIO(next(self.store.reader.read_all([self.found], PICTURES))))
        names = archive.namelist()
        chosen = [names[n] for n in np.linspace(0, len(names) - 1, min(most, len(names))).astype(int)]
        side = (self.recorded.side, self.recorded.side)
        images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB").resize(side) for name in chosen]
        return np.stack([np.asarray(image) for image in images])


def check_weights(study: Study, recorded: StudyFacts, strategy: str) -> None:
    """Raise InputError if the source's weights, where they are needed, are not those of the study's runs."""
    then = recorded.provenance["source weights identity"]
    if STRATEGIES[strategy].start == "pretrained" and then != (now := locate(study.source).identity):
        what = f"the source's weights are not those that the study was run with: {then} then, {now} now"
        raise InputError(what, "source.weights", "put those back, or run the study again")


def find(name: str, uri: str | None, budget: str, strategy: str | None = None) -> StoredModel:
    """Return the run that a name means.

    Args:
        name: a study that was run, a run's id, or a registered model: `bench-x`, `bench-x@2`, `models:/...`.
        uri: of the store; None: the usual one.
        budget: of a study that is named, the runs with this budget.
        strategy: of a study that is named; None: the one that its report recommends.

    Raises:
        InputError: if there is none; it says which are near.
    """
    if RUN_ID.fullmatch(name):
        _refuse(strategy, name)
        return of_run(name, uri)
    if not name.startswith(model_registry.SCHEME):
        try:
            store = open_store(uri, read.EXPERIMENT.format(study=name), to_read=True)
        except NotStoredError:
            pass
        else:
            return chosen(store, read.newest(store, None, budget)[0], strategy)
    run_id = model_registry.run_of(uri, name)
    if run_id is None:
        raise _unknown(name, uri)
    _refuse(strategy, name)
    return of_run(run_id, uri)


def _refuse(strategy: str | None, name: str) -> None:
    if strategy:
        raise InputError(f"{name} is one run", "--strategy", "leave it out, or name the study")


def _unknown(name: str, uri: str | None) -> InputError:
    prefix = read.EXPERIMENT.format(study="")
    try:
        experiments = connection.experiments(uri)
    except NotStoredError as error:
        return error
    known = [each.removeprefix(prefix) for each in experiments if each.startswith(prefix)]
    close = closest(name, [*known, *model_registry.names(uri)])
    return InputError(f"nothing is stored of '{name}'", "", f"did you mean '{close}'?" if close else REMEDY)


def chosen(store: RunStore, found: FoundStudy, strategy: str | None = None) -> StoredModel:
    """Return the final run of a study that is to be used.

    Of the strategy that its report recommends, unless one is named; where none is recommended, of the best by
    mean validation metric. Of the strategy it is the best seed by the same.
    """
    evidence = read.gather(store, found)
    names = by_validation(evidence)
    if not names:
        raise InputError("no final run is done", evidence.study.name, "run `bench run` first")
    if strategy and strategy not in names:
        close = closest(strategy, names) or ", ".join(names)
        raise InputError(f"no final run of '{strategy}' is done", "--strategy", f"there is {close}")
    recommended = found.tags.get(RECOMMENDED)
    usual = recommended if recommended in names else names[0]
    runs = evidence.done[evidence.done["strategy"] == (strategy or usual)]
    scores = METRICS[evidence.study.metric].sign * runs[f"val_{evidence.study.metric}"]
    run_id = str(runs["mlflow_run_id"].iloc[int(scores.argmax())])
    return StoredModel(store, found, store.reader.run(run_id))


def of_run(run_id: str, uri: str | None) -> StoredModel:
    """Return a final run by its id.

    Raises:
        InputError: if there is none, or it has no model.
    """
    experiment = connection.experiment_of(uri, run_id)
    store = open_store(uri, experiment, to_read=True)
    run, study_run = store.reader.run(run_id), store.reader.study_of(run_id)
    found = next((one for one in store.reader.studies() if one.run_id == study_run), None)
    if found is None or "bench.record" not in found.tags:
        where = store_uri.shown(store.connection.uri)
        raise InputError(f"the run {run_id} is of no study that is recorded", where, "run the study again")
    return StoredModel(store, found, run)
