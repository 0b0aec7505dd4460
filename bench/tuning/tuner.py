"""Choose hyperparameters with Optuna: the same number of trials for every strategy, the defaults first.

The only file that imports optuna. Storage is a journal file: it survives the process, and many may open it.
"""

import contextlib
import uuid
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

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.core.runs import (
    Arm,
    RunResult,
    Status,
    Value,
    derive_seed,
)
from bench.strategies.base import Range, Strategy
from bench.study.schema import Study, Tuning
from bench.system.files import drop_half_line
from bench.system.locks import locked

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
        study: its `val/<metric>` is maximised.
        path: the journal file; None keeps the trials in memory.
        began: what marks this command; a trial that failed under another one, for a reason that may have
            passed, is asked for again.
    """

    def __init__(
        self, arm: Arm, strategy: Strategy, study: Study, path: Path | None, began: float = 0.0
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        tuning, metric = study.tuning, study.metric
        self.strategy, self.tuning, self.metric = strategy, tuning, metric
        self.name = f"{arm.strategy}-{digest([arm.key, tuning.pruner, tuning.seed])[:32]}"
        self.space = {name: _distribution(r) for name, r in strategy.search_space.items()}
        self.storage, self.began = _storage(path), began
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.pruner = build_pruner(tuning, study.training.epochs)
        self._open_generation()

    def _open_generation(self) -> None:
        """Open the trials since the arm's runs were last forgotten, and note the mark of all since then."""
        first = self._open(self.name)
        self.generation = str(first.user_attrs.get("generation", ""))  # empty if they never were
        self.study = self._open(f"{self.name}-{self.generation}") if self.generation else first

    def _open(self, name: str) -> optuna.Study:
        return optuna.create_study(
            study_name=name,
            storage=self.storage,
            direction="maximize",
            pruner=self.pruner,
            load_if_exists=True,
        )

    def result(self) -> Tuned:
        """Return what the first `tuning.trials` gave; ties go to the lower loss, then to the earlier."""
        counted = [trial for n, trial in sorted(self._counted().items()) if n < self.tuning.trials]
        done = [t for t in counted if t.state == TrialState.COMPLETE]
        if not done:
            return Tuned(len(counted), None, None)
        best = max(
            done,
            key=lambda t: (t.values[0], -t.user_attrs["val_loss"], -t.user_attrs.get("number", t.number)),
        )
        return Tuned(len(counted), best.params, best.values[0])

    def forget(self) -> None:
        """Begin a new generation of the arm's trials and runs; those before stay in the journal, unread."""
        self._open(self.name).set_user_attr("generation", uuid.uuid4().hex)
        self._open_generation()

    def run(self, objective: Objective, *, together: bool = False) -> Tuned:
        """Run the trials that are missing and return the result.

        Args:
            objective: runs trials that were asked for together and gives their results, in order, but for
                those that were told.
            together: ask for groups, each of as many as begin at random; else for one at a time. Groups
                begin at the same numbers always: what a killed process left of one is trained with all of it.
        """
        self._ask_again()
        while missing := sorted({*range(self.tuning.trials)} - {*(counted := self._counted())}):
            group = self._random if together else 1
            first = missing[0] // group * group
            members = range(first, min(first + group, self.tuning.trials))
            trials = {n: self._ask(n) for n in members if n not in counted}
            asked = {
                n: Asked(n, trial.params, _reporter(trial), again="again" in trial.user_attrs)
                for n, trial in trials.items()
            }
            told = {
                n: Asked(n, counted[n].params, lambda _epoch, _value: True, told=True)
                for n in members
                if n in counted
            }
            group_of_all = [(asked | told)[n] for n in members]
            for trial, result in zip(trials.values(), objective(group_of_all), strict=True):
                self._tell(trial, result)
        return self.result()

    def _tell(self, trial: optuna.Trial, result: RunResult) -> None:
        trial.set_user_attr("run_key", result.spec.key)
        trial.set_user_attr("val_loss", result.metrics.get("val/loss", 0.0))
        if result.status is Status.FAILED and not result.diverged:
            trial.set_user_attr("may_pass", self.began)
        value = result.metrics[f"val/{self.metric}"] if result.status is Status.DONE else None
        self.study.tell(trial, value, _STATES[result.status])

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

    def _counted(self) -> dict[int, FrozenTrial]:
        """Return the trials that were told, by number; one whose process died is not counted."""
        told = [t for t in self.study.get_trials(deepcopy=False) if _counts(t) and not self._may_pass(t)]
        return {t.user_attrs.get("number", t.number): t for t in told}

    def _may_pass(self, trial: FrozenTrial) -> bool:
        """Say whether a trial failed for a reason that may have passed since, such as a broken driver."""
        return bool(trial.user_attrs.get("may_pass", self.began) != self.began)

    def _ask_again(self) -> None:
        """Put down, to be asked for first, what a killed process left running and what failed in passing.

        TPE would take a trial that was left for a hopeless one under way, and could ask for another instead.
        It is marked before it is told to have failed: its process may have been about to tell its result.
        """
        trials = self.study.get_trials(deepcopy=False)
        counted = self._counted()
        failed = [t for t in trials if _counts(t) and self._may_pass(t)]
        old = [t for t in trials if t.state in {TrialState.WAITING, TrialState.RUNNING}]
        wanted = {t.user_attrs["number"]: t for t in [*failed, *old] if "number" in t.user_attrs}
        for number, trial in sorted(wanted.items()):  # all of them anew: they are asked for in this order
            if number not in counted:
                begun = trial.state == TrialState.RUNNING or "again" in trial.user_attrs
                attributes = {"number": number, **({"again": True} if begun else {})}
                params = trial.system_attrs.get("fixed_params") or trial.params
                self.study.enqueue_trial(params, attributes)
        for trial in old:
            if "number" in trial.user_attrs or trial.state == TrialState.RUNNING:
                self.storage.set_trial_user_attr(trial._trial_id, "left", True)  # noqa: SLF001
                self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # noqa: SLF001


def _counts(trial: FrozenTrial) -> bool:
    """Say whether a trial was told what came of it."""
    return "run_key" in trial.user_attrs and trial.state.is_finished() and "left" not in trial.user_attrs


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
        return [
            t for t in trials if (_counts(t) and "may_pass" not in t.user_attrs) or not t.state.is_finished()
        ]

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
