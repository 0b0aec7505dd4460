"""The one training loop."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from bench.core.runs import derive_seed
from bench.study.allowance import evaluation_steps
from bench.study.metrics import METRICS
from bench.system.signals import deferred_interrupt
from bench.training.checkpoints import Checkpoint, CheckpointFile
from bench.training.linear_probe import solve_head
from bench.training.optimizers import build_optimizer, clip_gradients, freeze
from bench.training.problem import (
    PruningCallback,
    Row,
    Trained,
    TrainingProblem,
    evaluate,
    next_batches,
    note_evaluation,
    trained_state,
)
from bench.training.schedules import Course, set_rates
from bench.training.start_penalty import StartPenalty


def train(
    problem: TrainingProblem,
    callback: PruningCallback = lambda _row: True,
    file: CheckpointFile | None = None,
) -> Trained:
    """Train to the end, or until `callback` says no, and restore the weights of the best evaluation.

    Args:
        problem: what to train.
        callback: asked after each evaluation; after a resumption again for those before it.
        file: where training goes on from if it was begun before, and is saved to now and then.

    Raises:
        DivergedError: if a loss is not finite.
        KeyboardInterrupt: after the step under way, if asked to stop.
    """
    torch.manual_seed(derive_seed(problem.seed, "dropout"))
    saved = _load(problem, file)
    result = saved.trained if saved else Trained()
    result.stopped = not all(map(callback, result.curve))
    penalty = StartPenalty(problem.model, problem.plan.l2_sp)
    for number, evaluations in phase_evaluations(problem):
        if result.stopped or (saved and number < saved.phase):
            continue
        if problem.plan.phases[number].is_solved:
            result.train_seconds += solve_head(problem.in_phase(number), problem.plan.phases[number].solver)
            continue
        loop = _loop(problem.in_phase(number), number, evaluations, len(result.curve), file, penalty)
        if saved and number == saved.phase:
            loop.restore(saved)
        while not (loop.course.is_over or result.stopped):
            row = loop.interval(result)
            row |= loop.evaluate(result)
            with deferred_interrupt() as stopping:
                note_evaluation(problem, result, row)
                loop.note(row)
                result.stopped = not callback(row)
                if stopping():
                    loop.save(result)
    if not result.stopped:
        problem.model.load_state_dict(result.best, strict=False)
    return result


def _loop(
    problem: TrainingProblem,
    number: int,
    evaluations: Sequence[int],
    first_place: int,
    file: CheckpointFile | None,
    penalty: StartPenalty,
) -> "_Loop":
    """Freeze what a phase doesn't train, and return the loop of its steps."""
    plan, training = problem.plan, problem.training
    multipliers = plan.phases[number].multipliers
    freeze(problem.model, multipliers, plan.parameters)
    optimizer = build_optimizer(
        problem.model, multipliers, problem.learning_rate, problem.weight_decay, training
    )
    penalty.replace_decay(optimizer, plan.stages)
    course = Course(training, evaluations, may_stop=problem.chooses and not plan.trains_only_head)
    return _Loop(problem, optimizer, course, file, number, first_place, penalty)


@dataclass
class _Loop:
    """The steps of a phase, and all that decides the ones to come.

    Args:
        first_place: of the phase in the curve.
    """

    problem: TrainingProblem
    optimizer: Optimizer
    course: Course
    file: CheckpointFile | None
    phase: int
    first_place: int
    penalty: StartPenalty
    losses: list[Tensor] = field(default_factory=list)  # since the last evaluation, each times its images
    rate: float = 0.0  # of the last step

    def __post_init__(self) -> None:
        self.forward = self.problem.execution.forward(self.problem.forward)

    def interval(self, result: Trained) -> Row:
        """Train until the next evaluation; return its row, without val."""
        problem, course = self.problem, self.course
        done, last = course.steps_done, course.next_evaluation
        problem.model.set_training(problem.plan.in_training_mode(self.phase))
        coming = next_batches(problem, result.steps, last - done)
        started = time.perf_counter()
        with deferred_interrupt() as stopping:
            for epoch, batch in coming[len(self.losses) :]:
                self._step(batch, epoch, done + len(self.losses))
                if self.file and (stopping() or self.file.is_due):
                    result.train_seconds += time.perf_counter() - started
                    self.save(result)
                    started = time.perf_counter()
                if stopping():
                    break
        train_loss = torch.stack(self.losses).sum().item() / sum(len(batch) for _, batch in coming)
        result.train_seconds += time.perf_counter() - started
        return {"step": result.steps + last - done, "learning_rate": self.rate, "train/loss": train_loss}

    def note(self, row: Row) -> None:
        """Note what the evaluation at the end of an interval gave."""
        metric = self.problem.metric
        self.course.note(METRICS[metric].sign * row[f"val/{metric}"] if self.problem.chooses else 0.0)
        self.losses = []

    def evaluate(self, result: Trained) -> Row:
        """Return the scores on val; a request to stop saves the steps before it first."""
        started = time.perf_counter()
        try:
            scores = evaluate(self.problem, self.problem.val)
        except KeyboardInterrupt:
            self.save(result)
            raise
        result.eval_seconds += time.perf_counter() - started
        return {f"val/{name}": value for name, value in scores.items()}

    def save(self, result: Trained) -> None:
        """Write the checkpoint, where there is one, after a whole step."""
        if self.file:
            self.file.save(self._checkpoint(result))

    def _step(self, batch: np.ndarray, epoch: int, number: int) -> None:
        """Take a step, on all its images at once or by micro-batches with accumulated gradients."""
        problem, optimizer = self.problem, self.optimizer
        self.rate = set_rates(optimizer, self.course, number)
        optimizer.zero_grad()
        losses = []
        for micro_batch in np.array_split(batch, max(1, min(problem.micro_batches, len(batch) // 2))):
            inputs = problem.inputs.train(micro_batch, problem.seed, epoch)
            with problem.execution.autocast():
                logits = self.forward(inputs)
            loss = problem.targets.loss(logits, micro_batch, problem.seed, epoch, problem.training)
            (loss * (len(micro_batch) / len(batch))).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach() * len(micro_batch))
        self.penalty.add_gradients()
        clip_gradients(optimizer.param_groups, problem.training.gradient_clip)
        optimizer.step()
        self.losses.append(torch.stack(losses).sum() if len(losses) > 1 else losses[0])

    def _checkpoint(self, result: Trained) -> Checkpoint:
        device = torch.device(self.problem.execution.device)
        return Checkpoint(
            conditions=_conditions(self.problem),
            phase=self.phase,
            first_place=self.first_place,
            trained=result,
            model=trained_state(self.problem.model, self.problem.plan),
            optimizer=self.optimizer.state_dict(),
            losses=torch.stack(self.losses) if self.losses else torch.empty(0),
            rate=self.rate,
            random=torch.get_rng_state(),
            random_cuda=torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        )

    def restore(self, saved: Checkpoint) -> None:
        """Go on after the last step that was saved."""
        self.first_place = saved.first_place
        for row in saved.trained.curve[self.first_place :]:
            self.note(row)
        device = torch.device(self.problem.execution.device)
        self.problem.model.load_state_dict(saved.model, strict=False)
        self.optimizer.load_state_dict(dict(saved.optimizer))
        self.losses, self.rate = list(saved.losses.to(device)), saved.rate
        torch.set_rng_state(saved.random)
        if saved.random_cuda is not None:
            torch.cuda.set_rng_state(saved.random_cuda, device)


def _conditions(problem: TrainingProblem) -> dict[str, str | int]:
    """Return under which conditions a checkpoint of a problem goes on to the same numbers."""
    execution = problem.execution
    return {
        "torch": str(torch.__version__),
        "device": execution.device.partition(":")[0],
        "precision": execution.precision,
        "compiled": " ".join(map(str, execution.compiled)),
        "train images": len(problem.train),
        "val images": len(problem.val),
        "micro-batches": problem.micro_batches,
    }


def _load(problem: TrainingProblem, file: CheckpointFile | None) -> Checkpoint | None:
    """Return where a run goes on from; None if it was not begun, or under other conditions."""
    saved = file.load() if file else None
    return saved if saved and saved.conditions == _conditions(problem) else None


def phase_evaluations(problem: TrainingProblem) -> list[tuple[int, tuple[int, ...]]]:
    """Return the numbers of the phases, each with its steps after which val is looked at, from its first.

    The evaluations are divided by rounding where each phase ends. A phase that gets none is left out, but for
    one that is solved, which needs none.
    """
    plan, every = problem.plan, evaluation_steps(problem.training, len(problem.train))
    ends = [round(len(every) * sum(p.share for p in plan.phases[: n + 1])) for n in range(len(plan.phases))]
    found = []
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        before = every[start - 1] if start else 0
        if end > start or plan.phases[number].is_solved:
            found.append((number, tuple(step - before for step in every[start:end])))
    return found
