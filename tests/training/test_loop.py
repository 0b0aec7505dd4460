"""Schedules, optimizer settings, scores, and how the loop ends."""

import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

import bench.training.checkpoints
import bench.training.loop
from bench.core.versions import CHECKPOINT
from bench.experiment.machine import this_machine
from bench.strategies.plan import Phase, TransferPlan
from bench.strategies.registry import STRATEGIES
from bench.study.schema import Training
from bench.training.checkpoints import Checkpoint, CheckpointFile
from bench.training.inputs import batches
from bench.training.loop import _Loop, phase_evaluations, train
from bench.training.metrics import score
from bench.training.problem import DivergedError
from bench.training.schedules import Course, rate_factor
from tests.test_contract import dataset, problem_for, random_weights  # noqa: F401 - fixtures

SCHEDULES = ("plateau", "one_cycle", "cosine", "step", "constant")


@given(st.sampled_from(SCHEDULES), st.floats(0, 1), st.floats(0, 0.9))
def test_rates_stay_between_zero_and_the_peak(schedule, progress, warmup):
    assert 0 <= rate_factor(progress, Training(schedule=schedule, warmup=warmup)) <= 1 + 1e-9


def test_schedules_have_their_known_values():
    one_cycle = Training(schedule="one_cycle", warmup=0.25)
    assert rate_factor(0, one_cycle) == pytest.approx(1 / 25)
    assert rate_factor(0.25, one_cycle) == pytest.approx(1)
    assert rate_factor(1, one_cycle) == pytest.approx(1e-4)
    cosine = Training(schedule="cosine", warmup=0.2)
    assert [rate_factor(p, cosine) for p in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx(
        [0, 0.5, 1, 0.5, 0], abs=1e-12
    )
    step = Training(schedule="step", step_every=0.3, step_factor=0.1)
    assert [rate_factor(p, step) for p in (0, 0.29, 0.3, 0.6, 0.9)] == pytest.approx([1, 1, 0.1, 0.01, 0.001])


def test_one_cycle_is_that_of_torch():
    steps = 40
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, steps, pct_start=0.25, final_div_factor=400)
    ours = Training(schedule="one_cycle", warmup=0.25)
    for step in range(steps):
        # torch's peak is at step pct * steps - 1, its end at the last step; ours is the same curve
        peak = 0.25 * steps - 1
        progress = 0.25 * step / peak if step <= peak else 0.25 + 0.75 * (step - peak) / (steps - 1 - peak)
        assert rate_factor(progress, ours) == pytest.approx(theirs.get_last_lr()[0], abs=1e-4)
        optimizer.step()
        theirs.step()


@given(st.integers(2, 400), st.integers(2, 64))
def test_batches_hold_every_image_once_and_none_is_single(count, size):
    parts = list(batches(np.arange(count), size))
    assert np.array_equal(np.concatenate(parts), np.arange(count))
    lengths = [len(part) for part in parts]
    assert max(lengths) <= max(size, 3)
    assert min(lengths) >= 2
    assert max(lengths) - min(lengths) <= 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=40))
def test_scores_are_those_of_scikit_learn(pairs):
    labels, predictions = (np.array(column) for column in zip(*pairs, strict=True))
    logits = torch.nn.functional.one_hot(torch.from_numpy(predictions), 4).float()
    scores = score(logits, torch.from_numpy(labels))
    assert scores["accuracy"] == pytest.approx((labels == predictions).mean())
    with np.errstate(all="ignore"):
        assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predictions))
    spread = math.log(math.e + 3)
    assert scores["loss"] == pytest.approx(
        np.where(labels == predictions, spread - 1, spread).mean(), rel=1e-5
    )


def test_phases_share_the_evaluations(dataset, random_weights):  # noqa: F811
    plan = TransferPlan("pretrained", (Phase(0.3, (0, 1)), Phase(0.7, (1, 1))))
    problem = replace(problem_for(STRATEGIES["full"], random_weights("timm/resnet10t"), dataset), plan=plan)

    def phases(**training):
        return phase_evaluations(replace(problem, training=Training(**training)))

    assert phases(steps=20, evaluations=10) == [(0, (2, 4, 6)), (1, (2, 4, 6, 8, 10, 12, 14))]
    assert phases(steps=7, evaluations=1) == [(1, (7,))]
    ends = [evaluations[-1] for _, evaluations in phases(steps=31, evaluations=5)]
    assert sum(ends) == 31


def run_course(values, evaluations=10, patience=3, *, may_stop=True):
    """Return the course of a phase of ten steps an evaluation, and the factor of each step that it took."""
    training = Training(schedule="plateau", warmup=0.1, cooldown=0.2, patience=patience)
    course = Course(training, [10 * (n + 1) for n in range(evaluations)], may_stop=may_stop)
    factors = []
    for value in values:
        if course.is_over:
            break
        factors += [course.factor(step) for step in range(course.steps_done, course.next_evaluation)]
        course.note(value)
    assert course.is_over
    return factors


def test_a_rate_stays_at_its_peak_until_the_cooldown_and_ends_at_zero():
    factors = run_course(range(10))
    assert len(factors) == 100, "a curve that rises to the end takes all its steps"
    assert factors[:10] == pytest.approx([(step + 0.5) / 10 for step in range(10)])
    assert set(factors[10:80]) == {1.0}
    assert factors[80:] == pytest.approx([1 - ((step + 0.5) / 20) ** 0.5 for step in range(20)])


def test_a_plateau_ends_a_phase_early_with_a_cooldown_in_proportion():
    flat = [0, 1, 1, 0.5, 1, 1, 1, 1, 1, 1]  # the best is the second; three after it are no better
    factors = run_course(flat)
    assert len(factors) == 60, "five evaluations at the peak, one of cooldown"
    assert set(factors[10:50]) == {1.0}
    assert factors[50] < 1
    assert factors[-1] < 0.05
    assert len(run_course(flat, may_stop=False)) == 100


def test_what_is_not_better_during_the_warm_up_is_no_plateau():
    training = Training(schedule="plateau", warmup=0.5, cooldown=0.2, patience=2)
    course = Course(training, [10 * (n + 1) for n in range(10)], may_stop=True)
    for _ in range(6):
        course.note(0.5)
    assert course.factor(60) == 1.0, "five of them were warm-up, one is not enough"
    course.note(0.5)
    assert course.factor(75) < 1.0


@given(st.lists(st.floats(0, 1), min_size=12, max_size=12), st.integers(1, 12), st.integers(1, 5))
def test_every_course_ends_within_its_steps(values, evaluations, patience):
    factors = run_course(values, evaluations, patience)
    assert 0 < len(factors) <= 10 * evaluations
    assert all(0 <= factor <= 1 for factor in factors)


def test_a_plateau_is_gone_on_from_where_it_was_cut_off(dataset, random_weights, monkeypatch):  # noqa: F811
    """The course follows from the curve: nothing of it is in the checkpoint."""
    monkeypatch.setenv("BENCH_CHECKPOINT_SECONDS", "0")

    def problem():
        found = problem_for(STRATEGIES["full"], random_weights("timm/resnet10t"), dataset)
        return replace(found, training=Training(steps=24, evaluations=8, batch_size=6, patience=1))

    straight = train(problem())
    assert 2 < len(straight.curve) < 8, "it ends early, or this shows nothing"
    for stop_after in range(1, len(straight.curve)):
        rows = []

        def stop(row, rows=rows, stop_after=stop_after):
            rows.append(row)
            if len(rows) == stop_after:
                raise CutOffError
            return True

        with pytest.raises(CutOffError):
            train(problem(), stop, CheckpointFile("plateau"))
        assert train(problem(), file=CheckpointFile("plateau")).curve == straight.curve
        CheckpointFile("plateau").remove()


def test_a_loss_that_is_not_finite_ends_the_run_with_its_reason(dataset, random_weights):  # noqa: F811
    problem = problem_for(STRATEGIES["full"], random_weights("timm/resnet10t"), dataset)
    with torch.no_grad():
        next(problem.model.backbone.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"train/loss is not finite after step \d+"):
        train(problem)


def test_the_best_evaluation_is_restored(dataset, random_weights):  # noqa: F811
    problem = problem_for(STRATEGIES["full"], random_weights("timm/resnet10t"), dataset, epochs=4)
    states = []

    def keep(row):
        states.append({name: value.clone() for name, value in problem.model.state_dict().items()})
        return True

    result = train(problem, keep)
    best = max(result.curve, key=lambda row: (row["val/accuracy"], -row["val/loss"]))
    assert result.best_row == best
    restored = problem.model.state_dict()
    assert all(torch.equal(restored[name], value) for name, value in states[result.best_place].items())


def test_the_same_run_twice_gives_the_same_numbers(dataset, random_weights):  # noqa: F811
    curves = [
        train(problem_for(STRATEGIES["discriminative"], random_weights("timm/resnet10t"), dataset)).curve
        for _ in range(2)
    ]
    assert curves[0] == curves[1]


class CutOffError(Exception):
    pass


def test_a_checkpoint_is_found_from_another_home_where_the_folder_is_shared(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "one"))
    assert CheckpointFile("a")._path == tmp_path / "one" / "checkpoints" / "a.pt"
    assert this_machine().checkpoints.is_local
    monkeypatch.setenv("BENCH_CHECKPOINTS", str(tmp_path / "shared"))
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "two"))
    assert CheckpointFile("a")._path == tmp_path / "shared" / "a.pt"
    assert not this_machine().checkpoints.is_local


@pytest.mark.parametrize("steps", [1, 3, 4, 7])
def test_a_run_that_was_cut_off_goes_on_to_the_same_numbers(dataset, random_weights, monkeypatch, steps):  # noqa: F811
    def problem():
        return problem_for(STRATEGIES["full"], random_weights("timm/resnet10t"), dataset, epochs=4)

    taken, step = [], _Loop._step
    monkeypatch.setattr(_Loop, "_step", lambda *of: (taken.append(of), step(*of)))
    straight = train(problem())
    all_steps = len(taken)
    monkeypatch.setenv("BENCH_CHECKPOINT_SECONDS", "0")
    file = CheckpointFile("a")
    save, saved = file.save, []

    def save_and_die(checkpoint):
        file._due = 0.0
        save(checkpoint)
        file._due = 0.0
        saved.append(checkpoint)
        if len(saved) == steps:
            raise CutOffError

    monkeypatch.setattr(file, "save", save_and_die)
    with pytest.raises(CutOffError):
        train(problem(), file=file)
    rows = []
    taken.clear()
    resumed = train(problem(), lambda row: rows.append(row) is None, CheckpointFile("a"))
    assert len(taken) == all_steps - steps, "no step is taken twice"
    assert resumed.curve == straight.curve == rows
    assert resumed.best_place == straight.best_place
    assert all(torch.equal(resumed.best[name], value) for name, value in straight.best.items())


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("place", ["_step", "evaluate", "note_evaluation"])
def test_asked_to_stop_it_goes_on_from_there(dataset, random_weights, monkeypatch, place, number):  # noqa: F811
    """In the middle of a phase, at the end of one, and at the end of all."""

    def problem():
        problem = problem_for(STRATEGIES["full"], random_weights("timm/resnet10t"), dataset, epochs=4)
        moving = problem.plan.phases[0].multipliers
        phases = (Phase(0.5, (0.0,) * (len(moving) - 1) + (1.0,)), Phase(0.5, moving))
        return replace(problem, plan=replace(problem.plan, phases=phases))

    straight = train(problem())
    owner = _Loop if place == "_step" else bench.training.loop
    work, calls, steps = getattr(owner, place), [], []

    def work_asked_to_stop(*of):
        calls.append(of)
        if len(calls) == number:
            signal.raise_signal(signal.SIGINT)
        return work(*of)

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, work_asked_to_stop)
        with pytest.raises(KeyboardInterrupt):
            train(problem(), file=CheckpointFile("a"))
    step = _Loop._step
    monkeypatch.setattr(_Loop, "_step", lambda *of: (steps.append(of), step(*of)))
    resumed = train(problem(), file=CheckpointFile("a"))
    taken = number if place == "_step" else 2 * number
    assert len(steps) == 8 - taken, "no step is taken twice"
    assert resumed.curve == straight.curve
    assert all(torch.equal(resumed.best[name], value) for name, value in straight.best.items())


def begun(dataset, random_weights):  # noqa: F811
    """A problem, and the file of a run of it that was cut off after an epoch."""
    problem, file = (
        problem_for(STRATEGIES["full"], random_weights("timm/resnet10t"), dataset),
        CheckpointFile("a"),
    )

    def cut_off(_row):
        signal.raise_signal(signal.SIGINT)
        return True

    with pytest.raises(KeyboardInterrupt):
        train(problem, cut_off, file)
    return problem, file


def test_half_a_checkpoint_is_none(dataset, random_weights, caplog):  # noqa: F811
    _, file = begun(dataset, random_weights)
    assert len(file.load().trained.curve) == 1
    file._path.write_bytes(file._path.read_bytes()[:5000])
    assert file.load() is None
    assert "begins anew" in caplog.text
    file.remove()
    assert file.load() is None


def test_a_checkpoint_without_a_part_of_it_is_none(dataset, random_weights, caplog):  # noqa: F811
    _, file = begun(dataset, random_weights)
    plain = file.load().as_plain()
    del plain["rate"]
    torch.save(plain, file._path)
    assert file.load() is None
    assert "begins anew" in caplog.text


def test_a_checkpoint_of_another_version_is_not_there(dataset, random_weights, monkeypatch):  # noqa: F811
    _, file = begun(dataset, random_weights)
    saved = file.load()
    monkeypatch.setattr(bench.training.checkpoints, "CHECKPOINT", CHECKPOINT + 1)
    assert file.load() is None
    assert Checkpoint.from_plain({"made_for": ["2.0"], "model": {}}) is None, "of before there were versions"
    file.save(saved)
    assert file.load().trained.curve == saved.trained.curve, "one of this version is"


def test_a_checkpoint_made_under_other_conditions_is_not_gone_on_from(dataset, random_weights):  # noqa: F811
    problem, file = begun(dataset, random_weights)
    rows = []
    train(replace(problem, micro_batches=2), lambda row: rows.append(row) is None, file)
    train(problem, lambda row: rows.append(row) is None, file)
    assert [row["step"] for row in rows] == [row["step"] for row in rows[:2]] * 2


def test_a_batch_in_micro_batches_has_the_gradient_of_the_whole(dataset, random_weights):  # noqa: F811
    """A vision transformer has no BatchNorm: only rounding differs."""
    curves = []
    for micro_batches in (1, 2, 4):
        problem = problem_for(STRATEGIES["full"], random_weights("timm/test_vit"), dataset)
        curves.append(train(replace(problem, micro_batches=micro_batches)).curve[-1]["train/loss"])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert curves[2] == pytest.approx(curves[0], rel=1e-3)
