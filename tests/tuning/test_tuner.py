"""Tuning: equal trials, defaults first, pruning; and whoever goes on gets what the first would have got."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace

import optuna
import pytest
from optuna.study import StudyDirection
from scipy.stats import qmc

from bench.core.runs import Arm, Purpose, RunResult, RunSpec, Status
from bench.strategies.registry import STRATEGIES
from bench.study.allowance import evaluation_steps
from bench.study.loading import load
from bench.tuning.pruning import build_pruner, first_rung
from bench.tuning.trials import Asked
from bench.tuning.tuner import Tuner

ARM = Arm("s", "discriminative", {"data": "d"})


def make_tuner(finished=(), trials=6, pruner="none", epochs=4, seed=0, metric="accuracy"):
    tuning = {"trials": trials, "pruner": pruner, "seed": seed}
    settings = [f"training.epochs={epochs}", *(f"tuning.{name}={value}" for name, value in tuning.items())]
    settings.append(f"metric={metric}")
    study = load("small_similar", settings)
    evaluations = evaluation_steps(study.training, study.training.batch_size)
    return Tuner(STRATEGIES[ARM.strategy], study, 1, evaluations, finished)


def objective(seen, epochs=4):
    """A run whose val accuracy is best at a decay of 0.7."""

    def run(number, params, report):
        seen.append((number, dict(params)))
        spec = RunSpec(ARM, params, 0, Purpose.TRIAL)
        value = 1 - abs(params["decay"] - 0.7)
        metrics = {"val/accuracy": value, "val/loss": 1 - value}
        for epoch in range(1, epochs + 1):
            if not report(epoch, value * epoch / epochs) and epoch < epochs:
                return RunResult(spec, Status.PRUNED, metrics)
        return RunResult(spec, Status.DONE, metrics)

    return one_by_one(run)


def one_by_one(run):
    return lambda asked: (run(t.number, t.params, t.report) for t in asked if not t.known)


def test_the_defaults_are_the_first_trial_and_the_best_is_found():
    seen = []
    tuned = make_tuner().run(objective(seen))
    assert [number for number, _ in seen] == list(range(6))
    assert seen[0][1] == STRATEGIES["discriminative"].defaults
    best = min(seen, key=lambda trial: abs(trial[1]["decay"] - 0.7))
    assert tuned.best == best[1]
    assert tuned.trials == 6
    for _, params in seen:
        for name, span in STRATEGIES["discriminative"].search_space.items():
            assert span.low <= params[name] <= span.high


@pytest.mark.parametrize("pruner", ["successive_halving", "median", "none"])
def test_where_lower_is_better_the_same_is_proposed_pruned_and_chosen(error_rate, pruner):
    """By an error rate what is by the accuracy: Optuna's sampler and pruner know which way is better."""

    def wrong(number, params, report):
        result = run(number, params, lambda epoch, value: report(epoch, 1 - value))
        return replace(
            result, metrics={**result.metrics, "val/error_rate": 1 - result.metrics["val/accuracy"]}
        )

    def run(number, params, report):
        asked = Asked(number, params, report)
        return next(iter(objective([], epochs=8)([asked])))

    by_accuracy = make_tuner(trials=12, pruner=pruner, epochs=8)
    by_error = make_tuner(trials=12, pruner=pruner, epochs=8, metric="error_rate")
    best, same = by_accuracy.run(one_by_one(run)), by_error.run(one_by_one(wrong))
    assert by_error.study_before(12).direction is StudyDirection.MINIMIZE
    assert same.best == best.best
    assert same.best_score == 1 - best.best_score
    for one, other in zip(by_accuracy.finished.values(), by_error.finished.values(), strict=True):
        assert (one.params, one.status) == (other.params, other.status)


@pytest.mark.parametrize("pruner", ["successive_halving", "median", "none"])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("done", [(0,), (0, 1, 2), (0, 1, 3), (1, 2, 6), (0, 4, 7)])
def test_whoever_goes_on_asks_for_the_same_and_prunes_the_same(pruner, together, done):
    """Whatever is done already, in any order of commands, by whomever."""
    straight = make_tuner(trials=8, pruner=pruner, epochs=8)
    expected = straight.run(objective([], epochs=8), together=together)
    resumed, seen = (
        make_tuner([straight.finished[n] for n in reversed(done)], 8, pruner, epochs=8),
        [],
    )
    assert resumed.result().trials == len(done)
    assert resumed.run(objective(seen, epochs=8), together=together) == expected
    assert resumed.finished == straight.finished
    assert [number for number, _ in seen] == [n for n in range(8) if n not in done]


def test_another_seed_gives_other_trials():
    straight, other = [], []
    make_tuner().run(objective(straight))
    make_tuner(seed=1).run(objective(other))
    assert other[0] == straight[0]
    assert other[1] != straight[1]


def test_trials_asked_for_together_are_as_many_as_learn_from_no_other_and_pruned_by_the_same_rules():
    seen, sizes = [], []
    tuner = make_tuner(trials=12, pruner="successive_halving")

    def together(asked):
        sizes.append(len(asked))
        return objective(seen)(asked)

    tuned = tuner.run(together, together=True)
    assert sizes == [10, 2]
    assert [number for number, _ in seen] == list(range(12))
    assert seen[0][1] == STRATEGIES["discriminative"].defaults
    assert len({tuple(params.values()) for _, params in seen}) == 12
    assert tuned.trials == 12
    assert Status.PRUNED in {trial.status for trial in tuner.finished.values()}


def test_known_trials_take_part_in_their_group():
    straight = make_tuner(trials=13)
    straight.run(objective([]), together=True)
    groups = []

    def together(asked):
        groups.append([(trial.number, trial.known) for trial in asked])
        return objective([])(asked)

    kept = [trial for n, trial in straight.finished.items() if n != 11]
    resumed = make_tuner(kept, trials=13)
    resumed.run(together, together=True)
    assert groups == [[(10, True), (11, False), (12, True)]]
    assert resumed.finished == straight.finished


def test_a_finished_arm_runs_nothing():
    first, none = make_tuner(), []
    tuned = first.run(objective([]))
    assert make_tuner(first.finished.values()).run(objective(none)) == tuned
    assert none == []


def test_equal_scores_go_to_the_lower_loss_then_to_the_earlier():
    tuner = make_tuner(trials=3)
    tuner.run(objective([]))
    trials = [
        replace(trial, score=0.5, loss=loss)
        for trial, loss in zip(tuner.finished.values(), (0.2, 0.1, 0.1), strict=True)
    ]
    assert make_tuner(trials, trials=3).result().best == trials[1].params


def test_the_first_trial_is_never_pruned_and_hopeless_ones_are():
    tuner = make_tuner(pruner="successive_halving", trials=8)
    tuner.run(objective([]))
    states = [trial.status for _, trial in sorted(tuner.finished.items())]
    assert states[0] is Status.DONE
    assert Status.PRUNED in states


def test_failed_trials_count_and_are_never_best():
    def fail(number, params, report):
        return RunResult(RunSpec(ARM, params, 0, Purpose.TRIAL), Status.FAILED, error="diverged")

    tuned = make_tuner(trials=3).run(one_by_one(fail))
    assert tuned.trials == 3
    assert tuned.best is None


@pytest.mark.parametrize("diverged", [False, True])
def test_what_failed_in_passing_is_no_rival_of_others_and_what_diverged_is(diverged):
    """A trial that reached the first rung ahead of all others, and failed then."""

    def run(number, params, report):
        spec, failed = RunSpec(ARM, params, 0, Purpose.TRIAL), number == 1
        for epoch in range(1, 9):
            goes_on = report(epoch, 0.99 if failed else 0.5)
            if failed and epoch == 3:
                return RunResult(spec, Status.FAILED, error="the driver is gone", diverged=diverged)
            if not goes_on and epoch < 8:
                return RunResult(spec, Status.PRUNED, {"val/accuracy": 0.5})
        return RunResult(spec, Status.DONE, {"val/accuracy": 0.5, "val/loss": 0.5})

    tuner = make_tuner(trials=3, pruner="successive_halving", epochs=8)
    tuner.run(one_by_one(run))
    assert tuner.finished[1].failed_in_passing is not diverged
    assert tuner.finished[2].status is (Status.PRUNED if diverged else Status.DONE)
    again = make_tuner([tuner.finished[0], tuner.finished[1]], 3, "successive_halving", epochs=8)
    again.run(one_by_one(run))
    assert again.finished == tuner.finished


def test_a_group_whose_first_trials_are_finished_may_die_and_go_on():
    class Killed(BaseException):
        pass

    def die(asked):
        yield next(iter(objective([])(asked[:1])))
        if asked[0].number == 10:
            raise Killed
        yield from objective([])(asked[1:])

    straight = make_tuner(trials=13)
    straight.run(objective([]), together=True)
    killed = make_tuner(trials=13)
    with pytest.raises(Killed):
        killed.run(die, together=True)
    assert sorted(killed.finished) == list(range(11))
    resumed = make_tuner(killed.finished.values(), trials=13)
    resumed.run(objective([]), together=True)
    assert resumed.finished == straight.finished


def test_results_that_are_too_few_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        make_tuner(trials=2).run(lambda _asked: [])


@pytest.mark.parametrize("pruner", ["successive_halving", "median", "none"])
def test_every_pruner_lets_a_rising_study_end(pruner):
    tuned = make_tuner(pruner=pruner, trials=4, epochs=1).run(objective([], epochs=1))
    assert tuned.best is not None


def test_the_first_trials_fill_the_search_space_evenly():
    seen = []
    make_tuner(trials=10).run(objective(seen))
    for name, span in STRATEGIES["discriminative"].search_space.items():
        drawn = [params[name] for _, params in seen[1:]]
        middle = span.at(0.5)
        assert 3 <= sum(value < middle for value in drawn) <= 6, f"half of {name} is hardly tried"


def test_more_trials_begin_with_the_same():
    few, many = [], []
    make_tuner(trials=4).run(objective(few))
    make_tuner(trials=9).run(objective(many))
    assert many[:4] == few


@pytest.mark.parametrize(("warmup", "first"), [(0.1, 100), (0.25, 100), (0.5, 160), (0.8, 240)])
def test_nothing_is_judged_before_a_third_of_the_steps_or_the_end_of_the_warm_up(warmup, first):
    study = load("small_similar", ["training.steps=300", f"training.warmup={warmup}"])
    evaluations = evaluation_steps(study.training, 190)
    assert first_rung(study, evaluations) == first
    pruner = build_pruner(study, evaluations)
    optuna_study = optuna.create_study(direction="maximize", pruner=pruner)
    for value in (0.9, 0.1):
        trial = optuna_study.ask()
        for step in evaluations:
            trial.report(value, step)
            if trial.should_prune():
                assert (value, step) == (0.1, first)
                break
        else:
            optuna_study.tell(trial, value)


def test_ctrl_c_is_not_lost_while_the_sequence_is_made(monkeypatch):
    """What scipy compiles swallows whatever a signal handler raises in it."""

    class Swallowing(qmc.Sobol):
        def random_base2(self, m):
            with suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            return super().random_base2(m)

    monkeypatch.setattr(qmc, "Sobol", Swallowing)
    with pytest.raises(KeyboardInterrupt):
        make_tuner().run(objective([]))
