"""Choose hyperparameters with Optuna: the same number of trials for every strategy, the defaults first.

The only file that imports optuna. Storage is a journal file: it survives the process, and many may open it.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from bench.errors import InputError
from bench.paths import drop_half_line, locked
from bench.spec import Arm, RunResult, Status, Value, derive_seed, digest
from bench.strategies import Range, Strategy
from bench.study import Tuning

Report = Callable[[int, float], bool]  # (epoch, value) to whether the trial goes on


@dataclass(frozen=True)
class Asked:
    """A trial to run: its number from 0, its hyperparameters, and where its epochs are reported.

    Args:
        told: it is done, and here only because the others of its group were trained together with it.
        again: an earlier process began it, and may have stored what came of it.
    """

    number: int
    params: Mapping[str, Value]
    report: Report
    told: bool = False
    again: bool = False


Objective = Callable[[Sequence[Asked]], Iterable[RunResult]]

_STATES = {
    Status.DONE: TrialState.COMPLETE,
    Status.PRUNED: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
}
_RANDOM_SHARE = 3  # the first of every three trials are random, then TPE learns from them


@dataclass(frozen=True)
class Tuned:
    """What tuning an arm gave: how many trials were counted, and the best hyperparameters, if any is done."""

    trials: int
    best: Mapping[str, Value] | None
    best_value: float | None


class Tuner:
    """The trials of one arm.

    Args:
        path: the journal file; None keeps the trials in memory.
        epochs: of a trial.
        metric: `val/<metric>`, maximised.
    """

    def __init__(
        self, arm: Arm, strategy: Strategy, tuning: Tuning, epochs: int, metric: str, path: Path | None
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.strategy, self.tuning, self.metric = strategy, tuning, metric
        self.name = f"{arm.strategy}-{digest([arm.key, tuning.pruner, tuning.seed])[:32]}"
        self.space = {name: _distribution(r) for name, r in strategy.search_space.items()}
        self.storage = _storage(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study = optuna.create_study(
                study_name=self.name,
                storage=self.storage,
                direction="maximize",
                pruner=build_pruner(tuning, epochs),
                load_if_exists=True,
            )

    def result(self) -> Tuned:
        """Return what the first `tuning.trials` gave; ties go to the lower loss, then to the earlier."""
        counted = self._counted()[: self.tuning.trials]
        done = [t for t in counted if t.state == TrialState.COMPLETE]
        if not done:
            return Tuned(len(counted), None, None)
        best = max(done, key=lambda t: (t.values[0], -t.user_attrs["val_loss"], -t.number))
        return Tuned(len(counted), best.params, best.values[0])

    def forget(self) -> None:
        """Delete all trials of the arm."""
        optuna.delete_study(study_name=self.name, storage=self.storage)

    def run(self, objective: Objective, *, together: bool = False) -> Tuned:
        """Run the trials that are missing and return the result.

        Args:
            objective: runs trials that were asked for together and gives their results, in order, but for
                those that were told.
            together: ask for groups, each of as many as begin at random; else for one at a time. Groups
                begin at the same numbers always: what a killed process left of one is trained with all of it.
        """
        self._end_leftovers()
        while (number := len(counted := self._counted())) < self.tuning.trials:
            group = self._random if together else 1
            first = number // group * group
            trials = [self._ask(n) for n in range(number, min(first + group, self.tuning.trials))]
            told = [
                Asked(n, trial.params, lambda _epoch, _value: True, told=True)
                for n, trial in enumerate(counted[first:], first)
            ]
            asked = [
                Asked(n, trial.params, _reporter(trial), again="again" in trial.user_attrs)
                for n, trial in enumerate(trials, number)
            ]
            for trial, result in zip(trials, objective([*told, *asked]), strict=True):
                trial.set_user_attr("run_key", result.spec.key)
                trial.set_user_attr("val_loss", result.metrics.get("val/loss", 0.0))
                value = result.metrics[f"val/{self.metric}"] if result.status is Status.DONE else None
                self.study.tell(trial, value, _STATES[result.status])
        return self.result()

    @property
    def _random(self) -> int:
        """How many trials are drawn before TPE learns from them."""
        return max(2, self.tuning.trials // _RANDOM_SHARE)

    def _ask(self, number: int) -> optuna.Trial:
        """Ask for a trial. Its sampler is seeded by its number, so that a resumed study asks for the same."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.sampler = TPESampler(
                seed=derive_seed(self.tuning.seed, f"trial {number}") % 2**32,
                n_startup_trials=self._random,
                multivariate=True,
                group=True,
            )
        if number == 0 and not self.study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
            self.study.enqueue_trial(dict(self.strategy.defaults))
        trial = self.study.ask(self.space)
        trial.set_user_attr("number", number)
        return trial

    def _counted(self) -> list[FrozenTrial]:
        """Return the trials that were told, in order; one whose process died is not counted."""
        return [
            t
            for t in self.study.get_trials(deepcopy=False)
            if "run_key" in t.user_attrs and t.state.is_finished()
        ]

    def _end_leftovers(self) -> None:
        """End trials that a killed process left running, and put them down to be asked for first.

        TPE would take them for hopeless ones under way; what it would ask for instead could differ.
        """
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
                if "number" in trial.user_attrs:
                    self.study.enqueue_trial(trial.params, user_attrs={"again": True})


def _reporter(trial: optuna.Trial) -> Report:
    def report(epoch: int, value: float) -> bool:
        trial.report(value, epoch)
        return not trial.should_prune()

    return report


def _distribution(span: Range) -> BaseDistribution:
    if span.integer:
        return IntDistribution(int(span.low), int(span.high), log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)


def build_pruner(tuning: Tuning, epochs: int) -> BasePruner:
    """Return the pruner, with the same rules for every strategy.

    Successive halving (Li et al. 2020, ASHA): rungs at a quarter of the epochs and three times that; the best
    third of what reached a rung goes on. Median: stops what is below the median of earlier trials.
    """
    first = max(1, round(epochs / 4))
    if tuning.pruner == "successive_halving":
        return _Halving(min_resource=first, reduction_factor=3, min_early_stopping_rate=0)
    if tuning.pruner == "median":
        return MedianPruner(n_startup_trials=1, n_warmup_steps=first)
    return NopPruner()


class _Halving(SuccessiveHalvingPruner):
    """Successive halving among the trials that count: what a killed process left had been counted too."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Say whether a trial is to end."""
        return super().prune(cast("optuna.Study", _Competitors(study)), trial)


class _Competitors:
    """An Optuna study without the trials that a killed process left."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def get_trials(self, **options: Any) -> list[FrozenTrial]:
        trials = self._study.get_trials(**options)
        return [t for t in trials if "run_key" in t.user_attrs or not t.state.is_finished()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


class _JournalLock:
    """A lock that the system releases if its holder dies; Optuna's own would be waited for half a minute.

    Whoever gets it removes the half line of a writer that died, or for which the disk had no room: all that
    was written after it would be lost.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._held: contextlib.ExitStack | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self._journal.with_suffix(".lock")))
            drop_half_line(self._journal)
            self._held = stack.pop_all()
        return True

    def release(self) -> None:
        """Let others have it."""
        assert self._held
        self._held.close()


def _storage(path: Path | None) -> Any:
    if path is None:
        return optuna.storages.InMemoryStorage()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return JournalStorage(JournalFileBackend(str(path), lock_obj=cast("Any", _JournalLock(path))))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the tuning journal can't be read ({error})", str(path), "move it away") from error
