"""Lay out a study: its data, weights, splits and arms. Pure but for opening files; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.core.runs import Arm, Purpose, RunSpec
from bench.data import loading, splits
from bench.data.dataset import Dataset, Split
from bench.data.further_tests import FurtherTest, further_tests, identities
from bench.models.weights import Origin, locate
from bench.strategies.registry import STRATEGIES
from bench.study.allowance import evaluation_steps
from bench.study.baselines import BASELINES
from bench.study.schema import Study
from bench.study.tasks import TASKS

USUAL_STAGES = 6  # for what is asked about a strategy before there is a model
# Of a target, what the digests of its data cover.
IN_THE_DIGEST = {"data", "groups", "group_pattern", "also_test", "fit"}


@dataclass(frozen=True, eq=False)
class Plan:
    """A study with its data, its weights and its arms: everything that is known before any training."""

    study: Study
    dataset: Dataset
    origin: Origin
    splits: Mapping[int, Split]
    arms: tuple[Arm, ...]
    baselines: tuple[Arm, ...] = ()
    also_test: Mapping[str, FurtherTest] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """SHA-256 over arms, tuning and budgets: the study's run in MLflow."""
        study = self.study.model_dump(mode="json")
        return digest([[arm.key for arm in self.arms], study["tuning"], study["seeds"]])

    @property
    def seeds(self) -> list[int]:
        """The seeds: each has its own split, its own tuning and its own final run."""
        return list(range(1, self.study.most_seeds + 1))

    def runs_of_baseline(self, arm: Arm) -> list[RunSpec]:
        """Return the runs of a baseline: one for each seed that no strategy can do without."""
        return [RunSpec(arm, {}, seed, Purpose.FINAL) for seed in self.seeds[: self.study.looks[0]]]

    @property
    def evaluations(self) -> tuple[int, ...]:
        """After how many optimisation steps a run is evaluated; the last is all that it may take."""
        return evaluation_steps(self.study.training, len(self.splits[1].train))

    @property
    def shortfalls(self) -> list[str]:
        """What of val and test is less than the study asks for; the same for every seed."""
        return splits.shortfalls(self.splits[1], self.study.target, len(self.dataset.classes))


def check_strategies(study: Study) -> None:
    """Raise InputError for a strategy that there is not, or that doesn't go with the study's head."""
    for number, expected in enumerate(study.expected):
        for key in ("strategy", "over"):
            if (named := getattr(expected, key)) is not None:
                STRATEGIES.get_or_raise(named, f"expected.{number}.{key}")
    for number, name in enumerate(study.strategies):
        strategy = STRATEGIES.get_or_raise(name, f"strategies.{number}")
        strategy.check_installed(f"strategies.{number}")
        needs_linear = strategy.plan(USUAL_STAGES, strategy.defaults).needs_linear_head
        if needs_linear and not TASKS[study.task].one_class:
            raise InputError(f"{name} is for one class an image", f"strategies.{number}", "leave it out")
        if needs_linear and (study.head.kind != "linear" or study.head.dropout):
            raise InputError(
                f"{name} needs a linear head without dropout", "head", "leave out one of the two"
            )


def plan(study: Study) -> Plan:
    """Open data and weights and lay out the arms; mistakes in the study are found here or in the worker."""
    check_strategies(study)
    origin = locate(study.source)
    dataset = loading.load(study.target, task=study.task)
    parts = {seed: splits.split(dataset, study.target, seed) for seed in range(1, study.most_seeds + 1)}
    # What is not set is left out, so that a new optional setting changes no key.
    settings = {
        "data": dataset.digest,
        "target": study.target.model_dump(mode="json", exclude=IN_THE_DIGEST, exclude_none=True),
        "model": study.source.model,
        "weights": origin.identity,
        "normalisation": [study.source.mean, study.source.std],
        "head": study.head.model_dump(mode="json", exclude_none=True),
        "training": study.training.model_dump(mode="json", exclude_none=True),
        "metric": study.metric,
    }
    also_test = further_tests(study.target, dataset)
    if also_test:
        settings["also test"] = identities(also_test)
    if study.task != Study.model_fields["task"].default:
        settings["task"] = study.task
    arms = tuple(
        Arm(study.name, name, {**settings, "strategy": STRATEGIES[name].fingerprint})
        for name in study.strategies
    )
    baselines = tuple(Arm(study.name, name, _seen_by(name, settings)) for name in study.baselines)
    return Plan(study, dataset, origin, parts, arms, baselines, also_test)


def _seen_by(baseline: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the numbers of a baseline: nothing that is trained by gradient steps."""
    of_images = {"data", "target", "metric"}
    of_features = {"model", "weights", "normalisation"} if BASELINES[baseline].frozen else set()
    return {name: settings[name] for name in sorted(of_images | of_features)} | {"baseline": True}
