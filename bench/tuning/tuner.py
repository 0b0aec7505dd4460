"""Choose hyperparameters with Optuna: the same number of trials for every strategy, the defaults first.

Every seed is tuned anew, on its own split and with its own trials, so that what differs between seeds holds
the luck of tuning too (Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks").

Nothing is kept here: an Optuna study is rebuilt in memory from the trials that are finished, whenever it is
to propose one, or to judge one that is running. What is proposed depends on the trials before it alone, by
number, since the sampler is seeded by the trial's number: whoever goes on gets what the first would have got.

The first trials fill the search space evenly, from a scrambled Sobol sequence (Bousquet et al. 2017,
"Critical hyper-parameters: no random, no cry"); TPE proposes those behind them, and learns from them.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from bench.core.runs import RunResult, Status, Value, derive_seed
from bench.strategies.base import Range, Strategy
from bench.study.metrics import METRICS
from bench.study.schema import Study
from bench.system.signals import deferred_interrupt
from bench.tuning.pruning import build_pruner
from bench.tuning.trials import Asked, FinishedTrial

Objective = Callable[[Sequence[Asked]], Iterable[RunResult]]

STATES = {
    Status.DONE: TrialState.COMPLETE,
    Status.PRUNED: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
}
DIRECTIONS = {"higher": StudyDirection.MAXIMIZE, "lower": StudyDirection.MINIMIZE}
_QUASI_RANDOM = 10  # trials, the defaults among them, before TPE learns from them
_LONGEST_SEQUENCE = 4  # 2 to this power are that many and more: Sobol's points come in powers of two


@dataclass(frozen=True)
class Tuned:
    """What tuning gave: how many trials were counted, and the best hyperparameters, if any is done."""

    trials: int
    best: Mapping[str, Value] | None
    best_score: float | None


class Tuner:
    """The trials of one arm and seed.

    Args:
        strategy: the arm's: its search space and defaults.
        seed: that all its trials train with, as the final run does.
        study: its `val/<metric>` is maximised, or minimised where lower values are better.
        evaluations: after how many steps a trial is evaluated.
        finished: the trials that count; those that are missing are run.
    """

    def __init__(
        self,
        strategy: Strategy,
        study: Study,
        seed: int,
        evaluations: Sequence[int],
        finished: Iterable[FinishedTrial] = (),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.strategy, self.tuning, self.metric = strategy, study.tuning, METRICS[study.metric]
        self.space, self.seed = search_space(strategy), seed
        self.pruner = build_pruner(study, evaluations)
        self.finished = {trial.number: trial for trial in finished if trial.number < study.tuning.trials}

    @property
    def missing(self) -> list[int]:
        """The numbers of the trials that are not finished."""
        return [number for number in range(self.tuning.trials) if number not in self.finished]

    def result(self) -> Tuned:
        """Return what the trials gave so far; ties go to the lower loss, then to the earlier."""
        scores = {n: trial.score for n, trial in self.finished.items() if trial.score is not None}
        if not scores:
            return Tuned(len(self.finished), None, None)
        sign = self.metric.sign
        best = max(scores, key=lambda number: (sign * scores[number], -self.finished[number].loss, -number))
        return Tuned(len(self.finished), self.finished[best].params, scores[best])

    def run(self, objective: Objective, *, together: bool = False) -> Tuned:
        """Run the trials that are missing and return the result.

        Args:
            objective: runs trials that were asked for together and gives their results, in order, but for
                those that are known.
            together: ask for groups, each of as many as don't learn from others; else for one at a time.
                Groups begin at the same numbers always: what a killed process left of one is trained with all
                of it.
        """
        group = self._startup_trials if together else 1
        while missing := self.missing:
            first = missing[0] // group * group
            self._run_group(range(first, min(first + group, self.tuning.trials)), objective)
        return self.result()

    def _run_group(self, numbers: Sequence[int], objective: Objective) -> None:
        """Run trials that are asked for together; each is judged by those before it."""
        running = [_RunningTrial(self, n, params) for n, params in self._propose(numbers).items()]
        asked = [Asked(t.number, t.params, t.report, known=t.number in self.finished) for t in running]
        unknown = [trial for trial in running if trial.number not in self.finished]
        for trial, result in zip(unknown, objective(asked), strict=True):
            self.finished[trial.number] = trial.finish(result)

    def _propose(self, numbers: Sequence[int]) -> dict[int, Mapping[str, Value]]:
        """Return the hyperparameters of a group; to a later one the earlier ones are running."""
        study = self.study_before(numbers[0])
        params: dict[int, Mapping[str, Value]] = {}
        for number in numbers:
            fixed = self.finished[number].params if number in self.finished else self._planned(number)
            trial = self.start(study, fixed, None if fixed else self._sampler(number))
            params[number] = trial.params
        return params

    def study_before(self, number: int) -> optuna.Study:
        """Return an Optuna study in memory of the trials before a number, but what failed in passing."""
        storage = optuna.storages.InMemoryStorage()
        direction = DIRECTIONS[self.metric.direction]
        study = optuna.create_study(storage=storage, direction=direction, pruner=self.pruner)
        for _, finished in sorted(self.finished.items()):
            if finished.number < number and not finished.failed_in_passing:
                trial = self.start(study, finished.params)
                for step, value in finished.reports:
                    trial.report(value, step)
                    trial.should_prune()  # the pruner notes what it has seen
                study.tell(trial, finished.score, STATES[finished.status])
        return study

    def start(
        self, study: optuna.Study, params: Mapping[str, Value] | None, sampler: BaseSampler | None = None
    ) -> optuna.Trial:
        """Begin a trial, with these hyperparameters or with what the sampler proposes."""
        study.sampler = sampler or RandomSampler(seed=0)
        if params is not None:
            study.enqueue_trial(dict(params))
        return study.ask(self.space)

    @property
    def _startup_trials(self) -> int:
        """How many trials there are before TPE learns from them."""
        return min(_QUASI_RANDOM, self.tuning.trials)

    def _planned(self, number: int) -> Mapping[str, Value] | None:
        """Return the hyperparameters of a trial that learns from no other; None: it does."""
        if number == 0:
            return self.strategy.defaults
        if number >= self._startup_trials or not self.space:
            return None
        space = self.strategy.search_space
        point = self._sequence[number - 1]
        return {name: span.at(float(share)) for (name, span), share in zip(space.items(), point, strict=True)}

    @cached_property
    def _sequence(self) -> np.ndarray:
        """Points that fill the unit cube of the search space evenly, shape (16, D)."""
        from scipy.stats.qmc import Sobol

        seed = derive_seed(self.tuning.seed, f"sobol {self.seed}")
        with deferred_interrupt():  # scipy would swallow it, and be left with half its tables
            points: np.ndarray = Sobol(len(self.space), rng=seed).random_base2(_LONGEST_SEQUENCE)
        return points

    def _sampler(self, number: int) -> BaseSampler:
        """Return the sampler of a trial, seeded by its number."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(
                seed=derive_seed(self.tuning.seed, f"trial {number} of seed {self.seed}") % 2**32,
                n_startup_trials=self._startup_trials,
                multivariate=True,
                group=True,
            )


@dataclass(eq=False)
class _RunningTrial:
    """A trial that is asked for; it is judged by the trials before it, which are finished when it reports."""

    tuner: Tuner
    number: int
    params: Mapping[str, Value]
    reports: list[tuple[int, float]] = field(default_factory=list)

    @cached_property
    def _trial(self) -> optuna.Trial:
        return self.tuner.start(self.tuner.study_before(self.number), self.params)

    def report(self, step: int, value: float) -> bool:
        """Note the value of an evaluation; say whether the trial goes on."""
        self.reports.append((step, value))
        self._trial.report(value, step)
        return not self._trial.should_prune()

    def finish(self, result: RunResult) -> FinishedTrial:
        """Return what came of it."""
        return FinishedTrial(
            self.number,
            self.params,
            result.status,
            result.metrics[f"val/{self.tuner.metric.name}"] if result.status is Status.DONE else None,
            result.metrics.get("val/loss", 0.0),
            tuple(self.reports),
            result.diverged,
        )


def search_space(strategy: Strategy) -> dict[str, BaseDistribution]:
    """Return what is tuned of a strategy, as Optuna has it."""
    return {name: _distribution(span) for name, span in strategy.search_space.items()}


def _distribution(span: Range) -> BaseDistribution:
    if span.integer:
        return IntDistribution(int(span.low), int(span.high), log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)
