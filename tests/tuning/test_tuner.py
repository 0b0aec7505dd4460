"""Tuning: equal trials, defaults first, pruning, and a storage that survives."""

import subprocess
import sys

import pytest

from bench.core.runs import (
    Arm,
    Purpose,
    RunResult,
    RunSpec,
    Status,
)
from bench.strategies.registry import STRATEGIES
from bench.study.loading import load
from bench.tuning.tuner import Asked, Tuner

ARM = Arm("s", "discriminative", {"data": "d"})


def make_tuner(path=None, trials=6, pruner="none", epochs=4, seed=0, arm=ARM):
    tuning = {"trials": trials, "pruner": pruner, "seed": seed}
    settings = [f"training.epochs={epochs}", *(f"tuning.{name}={value}" for name, value in tuning.items())]
    return Tuner(arm, STRATEGIES[arm.strategy], load("small_similar", settings), path)


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
    return lambda asked: (run(t.number, t.params, t.report) for t in asked if not t.told)


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


def test_tuning_is_reproducible_and_a_resumed_one_asks_for_the_same(tmp_path):
    straight, resumed = [], []
    make_tuner(tmp_path / "a.journal").run(objective(straight))
    make_tuner(tmp_path / "b.journal", trials=3).run(objective(resumed))
    make_tuner(tmp_path / "b.journal").run(objective(resumed))
    assert resumed == straight
    other = []
    make_tuner(tmp_path / "a.journal", seed=1).run(objective(other))
    assert other[1] != straight[1]


def test_trials_asked_for_together_are_as_many_as_are_random_and_pruned_by_the_same_rules(tmp_path):
    seen, sizes = [], []
    tuner = make_tuner(tmp_path / "journal", trials=8, pruner="successive_halving")

    def together(asked):
        sizes.append(len(asked))
        return objective(seen)(asked)

    tuned = tuner.run(together, together=True)
    assert sizes == [2, 2, 2, 2]
    assert [number for number, _ in seen] == list(range(8))
    assert seen[0][1] == STRATEGIES["discriminative"].defaults
    assert len({tuple(params.values()) for _, params in seen}) == 8
    assert tuned.trials == 8
    assert "PRUNED" in [trial.state.name for trial in tuner.study.get_trials()]


def test_a_finished_arm_runs_nothing_and_fewer_trials_look_at_the_first_ones(tmp_path):
    seen, none = [], []
    path = tmp_path / "journal"
    tuned = make_tuner(path).run(objective(seen))
    assert make_tuner(path).run(objective(none)) == tuned
    first = make_tuner(path, trials=2).result()
    assert first.best == min(seen[:2], key=lambda trial: abs(trial[1]["decay"] - 0.7))[1]
    assert none == []


def test_the_first_trial_is_never_pruned_and_hopeless_ones_are():
    seen = []
    tuner = make_tuner(pruner="successive_halving", trials=8)
    tuner.run(objective(seen))
    states = [trial.state.name for trial in tuner.study.get_trials()]
    assert states[0] == "COMPLETE"
    assert "PRUNED" in states


def test_failed_trials_count_and_are_never_best():
    def fail(number, params, report):
        return RunResult(RunSpec(ARM, params, 0, Purpose.TRIAL), Status.FAILED, error="diverged")

    tuned = make_tuner(trials=3).run(one_by_one(fail))
    assert tuned.trials == 3
    assert tuned.best is None


def failing(seen, number, *, diverged):
    """Trial `number` fails."""

    def run(trial, params, report):
        if trial != number:
            return next(iter(objective(seen)([Asked(trial, params, report)])))
        seen.append((trial, dict(params)))
        spec = RunSpec(ARM, params, 0, Purpose.TRIAL)
        return RunResult(spec, Status.FAILED, error="the driver is gone", diverged=diverged)

    return one_by_one(run)


@pytest.mark.parametrize("together", [False, True])
def test_what_failed_in_passing_is_tried_again_by_the_next_command(tmp_path, together):
    path, seen, again = tmp_path / "journal", [], []
    assert make_tuner(path, trials=4).run(failing(seen, 1, diverged=False), together=together).trials == 4
    same_command, next_command = make_tuner(path, trials=4), make_tuner(path, trials=4)
    next_command.began = 1.0
    assert same_command.run(objective(again), together=together).trials == 4
    assert again == []
    assert next_command.result().trials == 3
    assert next_command.run(objective(again), together=together).trials == 4
    assert again == [seen[1]]
    assert next_command.run(objective(again), together=together).trials == 4
    assert again == [seen[1]]


def test_what_failed_by_itself_is_not_tried_again(tmp_path):
    make_tuner(tmp_path / "journal", trials=3).run(failing([], 1, diverged=True))
    tuner, seen = make_tuner(tmp_path / "journal", trials=3), []
    tuner.began = 1.0
    assert tuner.run(objective(seen)).trials == 3
    assert seen == []


@pytest.mark.parametrize("place", ["tell", "enqueue_trial", "set_trial_user_attr"])
def test_a_kill_while_a_trial_is_told_or_asked_for_again_costs_none(tmp_path, place):
    class Killed(BaseException):
        pass

    def killed_after(call, count, *, before):
        def wrapped(*args, **options):
            calls.append(args)
            if before and len(calls) == count:
                raise Killed
            given = call(*args, **options)
            if len(calls) == count:
                raise Killed
            return given

        calls = []
        return wrapped

    straight, resumed, path = [], [], tmp_path / "journal"
    make_tuner(pruner="successive_halving").run(objective(straight))
    first = make_tuner(path, pruner="successive_halving")
    first.study.tell = killed_after(first.study.tell, 3, before=True)
    with pytest.raises(Killed):
        first.run(objective(resumed))
    if place != "tell":  # the second process is killed too, while it puts right what the first one left
        second = make_tuner(path, pruner="successive_halving")
        owner = second.study if place == "enqueue_trial" else second.storage
        setattr(owner, place, killed_after(getattr(owner, place), 1, before=False))
        with pytest.raises(Killed):
            second.run(objective(resumed))
    last = make_tuner(path, pruner="successive_halving")
    assert last.result().trials == 2
    assert last.run(objective(resumed)) == make_tuner(path, pruner="successive_halving").result()
    assert resumed == [*straight[:3], *straight[2:]]


def test_trials_that_are_asked_for_again_keep_their_numbers(tmp_path):
    """All failed in passing, and the next two commands are killed while they try again."""

    class Killed(BaseException):
        pass

    def dies(number, seen):
        def run(asked):
            for trial in asked:
                seen.append((trial.number, dict(trial.params)))
                if trial.number == number:
                    raise Killed
                yield next(iter(objective([])([trial])))

        return run

    def all_fail(asked):
        for trial in asked:
            seen.append((trial.number, dict(trial.params)))
            spec = RunSpec(ARM, trial.params, 0, Purpose.TRIAL)
            yield RunResult(spec, Status.FAILED, error="the driver is gone")

    path, seen = tmp_path / "journal", []
    make_tuner(path, trials=4).run(all_fail)
    first = list(seen)
    for command, number in ((1.0, 0), (2.0, 2)):
        tuner = make_tuner(path, trials=4)
        tuner.began = command
        with pytest.raises(Killed):
            tuner.run(dies(number, seen))
    last = make_tuner(path, trials=4)
    last.began = 3.0
    assert last.run(objective(seen)).trials == 4
    assert seen == [*first, first[0], *first[:3], *first[2:]]


def test_what_is_forgotten_begins_a_new_generation(tmp_path):
    tuner = make_tuner(tmp_path / "journal")
    assert tuner.generation == ""
    tuner.run(objective([]))
    generations = set()
    for _ in range(2):
        tuner.forget()
        again = make_tuner(tmp_path / "journal")
        assert again.result().trials == 0
        generations |= {again.generation}
    assert len(generations) == 2
    assert make_tuner(tmp_path / "journal", seed=1).generation == ""


def test_trials_left_from_a_killed_group_are_asked_for_again(tmp_path):
    class Killed(BaseException):
        pass

    def die(asked):
        yield next(iter(objective(resumed)(asked[:1])))
        if asked[0].number == 3:
            raise Killed

        yield from objective(resumed)(asked[1:])

    straight, resumed = [], []
    make_tuner(trials=9).run(objective(straight), together=True)
    with pytest.raises(Killed):
        make_tuner(tmp_path / "journal", trials=9).run(die, together=True)
    make_tuner(tmp_path / "journal", trials=9).run(objective(resumed), together=True)
    assert resumed == straight


@pytest.mark.parametrize("killed", [0, 2])
def test_a_trial_whose_process_was_killed_is_done_again(tmp_path, killed):
    path = tmp_path / "journal"
    script = (
        "import os, sys; sys.path.insert(0, '.')\n"
        "from tests.test_tuning import make_tuner, objective\n"
        "from pathlib import Path\n"
        "inner = objective([])\n"
        "def die(asked):\n"
        f"    if asked[0].number == {killed}: os.kill(os.getpid(), 9)\n"
        "    return inner(asked)\n"
        f"make_tuner(Path({str(path)!r})).run(die)\n"
    )
    died = subprocess.run([sys.executable, "-c", script], check=False)
    assert died.returncode == -9
    seen, straight = [], []
    assert make_tuner(path).result().trials == killed
    assert make_tuner(path).run(objective(seen)).trials == 6
    make_tuner().run(objective(straight))
    assert seen == straight[killed:]


@pytest.mark.parametrize("pruner", ["successive_halving", "median", "none"])
def test_every_pruner_lets_a_rising_study_end(pruner):
    tuned = make_tuner(pruner=pruner, trials=4, epochs=1).run(objective([], epochs=1))
    assert tuned.best is not None
