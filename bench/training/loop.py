"""The one training loop."""

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.core.runs import derive_seed
from bench.strategies.plan import TransferPlan
from bench.system.signals import deferred_interrupt
from bench.training.checkpoints import Checkpoint, CheckpointFile
from bench.training.inputs import batches
from bench.training.linear_probe import solve_head
from bench.training.optimizers import build_optimizer, clip_gradients, freeze
from bench.training.problem import (
    PruningCallback,
    Row,
    Trained,
    TrainingProblem,
    epoch_order,
    evaluate,
    note_epoch,
    trained_state,
)
from bench.training.schedules import build_schedule
from bench.training.start_penalty import StartPenalty


def train(
    problem: TrainingProblem,
    callback: PruningCallback = lambda _row: True,
    file: CheckpointFile | None = None,
) -> Trained:
    """Train to the last epoch, or until `callback` says no, and restore the best epoch by val.

    Args:
        problem: what to train.
        callback: asked after each epoch whether to go on; after a resumption again for those before it.
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
    last = 0
    for number, epochs in phase_epochs(problem.plan, problem.training.epochs):
        last += epochs
        if result.stopped or (saved and last < saved.phase_end):
            continue
        if problem.plan.phases[number].is_solved:
            result.train_seconds += solve_head(problem.in_phase(number), problem.plan.phases[number].solver)
            continue
        loop = _loop(problem.in_phase(number), number, epochs, file, penalty)
        if saved and saved.phase_end == last:
            loop.restore(saved)
        while len(result.curve) < last and not result.stopped:
            row = loop.epoch(result, last)
            row |= loop.evaluate(result, last)
            with deferred_interrupt() as stopping:
                note_epoch(problem, result, row)
                loop.losses = []
                result.stopped = not callback(row)
                if stopping():
                    loop.save(result, last)
    if not result.stopped:
        problem.model.load_state_dict(result.best, strict=False)
    return result


def _loop(
    problem: TrainingProblem, number: int, epochs: int, file: CheckpointFile | None, penalty: StartPenalty
) -> "_Loop":
    """Freeze what a phase doesn't train, and return the loop of its steps."""
    plan, training = problem.plan, problem.training
    multipliers = plan.phases[number].multipliers
    freeze(problem.model, multipliers, plan.parameters)
    optimizer = build_optimizer(
        problem.model, multipliers, problem.learning_rate, problem.weight_decay, training
    )
    penalty.replace_decay(optimizer, plan.stages)
    schedule = build_schedule(optimizer, training, epochs * -(-len(problem.train) // training.batch_size))
    return _Loop(problem, optimizer, schedule, file, number, penalty)


@dataclass
class _Loop:
    """The steps of a phase, and all that decides the ones to come."""

    problem: TrainingProblem
    optimizer: Optimizer
    schedule: LambdaLR
    file: CheckpointFile | None
    phase: int
    penalty: StartPenalty
    losses: list[Tensor] = field(default_factory=list)  # of the epoch's steps so far, each times its images
    rate: float = 0.0  # of the last step

    def __post_init__(self) -> None:
        self.forward = self.problem.execution.forward(self.problem.forward)

    def epoch(self, result: Trained, phase_end: int) -> Row:
        """Train to the end of the epoch; return its row, without val."""
        problem, number = self.problem, len(result.curve)
        order = epoch_order(problem, number)
        problem.model.set_training(problem.plan.in_training_mode(self.phase))
        started = time.perf_counter()
        with deferred_interrupt() as stopping:
            for batch in list(batches(order, problem.training.batch_size))[len(self.losses) :]:
                self._step(batch, number)
                if self.file and (stopping() or self.file.is_due):
                    result.train_seconds += time.perf_counter() - started
                    self.save(result, phase_end)
                    started = time.perf_counter()
                if stopping():
                    break
        train_loss = torch.stack(self.losses).sum().item() / len(order)
        result.train_seconds += time.perf_counter() - started
        return {"epoch": number, "learning_rate": self.rate, "train/loss": train_loss}

    def evaluate(self, result: Trained, phase_end: int) -> Row:
        """Return the scores on val after an epoch; a request to stop saves the epoch's steps first."""
        started = time.perf_counter()
        try:
            scores = evaluate(self.problem, self.problem.val)
        except KeyboardInterrupt:
            self.save(result, phase_end)
            raise
        result.eval_seconds += time.perf_counter() - started
        return {f"val/{name}": value for name, value in scores.items()}

    def save(self, result: Trained, phase_end: int) -> None:
        """Write the checkpoint, where there is one, after a whole step."""
        if self.file:
            self.file.save(self._checkpoint(result, phase_end))

    def _step(self, batch: np.ndarray, epoch: int) -> None:
        """Take a step, on all its images at once or by micro-batches with accumulated gradients."""
        problem, optimizer = self.problem, self.optimizer
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
        self.rate = max(group["lr"] for group in optimizer.param_groups)
        optimizer.step()
        self.schedule.step()
        self.losses.append(torch.stack(losses).sum() if len(losses) > 1 else losses[0])

    def _checkpoint(self, result: Trained, phase_end: int) -> Checkpoint:
        device = torch.device(self.problem.execution.device)
        return Checkpoint(
            conditions=_conditions(self.problem),
            phase_end=phase_end,
            trained=result,
            model=trained_state(self.problem.model, self.problem.plan),
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            losses=torch.stack(self.losses) if self.losses else torch.empty(0),
            rate=self.rate,
            random=torch.get_rng_state(),
            random_cuda=torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        )

    def restore(self, saved: Checkpoint) -> None:
        """Go on after the last step that was saved."""
        device = torch.device(self.problem.execution.device)
        self.problem.model.load_state_dict(saved.model, strict=False)
        self.optimizer.load_state_dict(dict(saved.optimizer))
        self.schedule.load_state_dict(dict(saved.schedule))
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


def phase_epochs(plan: TransferPlan, epochs: int) -> list[tuple[int, int]]:
    """Return the numbers of the phases, each with its epochs, divided by rounding where each phase ends.

    A phase that gets none is left out, but for one that is solved, which needs none.
    """
    ends = [round(epochs * sum(p.share for p in plan.phases[: n + 1])) for n in range(len(plan.phases))]
    counts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    phases = enumerate(zip(plan.phases, counts, strict=True))
    return [(number, count) for number, (phase, count) in phases if count or phase.is_solved]
