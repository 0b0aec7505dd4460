"""Train the linear heads of many runs as one computation: each is what it would be alone, to rounding.

Trials and seeds that train only a head on stored features differ in a few numbers; alone, each step costs
more in calls than in arithmetic.
"""

import itertools
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from bench.study.allowance import evaluation_steps
from bench.training.cached_features import Features
from bench.training.inputs import batches
from bench.training.optimizers import build_optimizer, clip_gradients, freeze
from bench.training.problem import (
    DivergedError,
    Row,
    Trained,
    TrainingProblem,
    next_batches,
    note_evaluation,
)
from bench.training.schedules import Course, set_rates


def can_train_together(problems: Sequence[TrainingProblem]) -> bool:
    """Say whether the runs train nothing but a linear layer on stored features, in as many steps each."""
    return all(
        isinstance(problem.inputs, Features)
        and isinstance(problem.model.head, nn.Linear)
        and problem.forward is problem.model.head
        and len(problem.plan.phases) == 1
        and (len(problem.train), len(problem.val), problem.training)
        == (len(problems[0].train), len(problems[0].val), problems[0].training)
        for problem in problems
    )


def train_heads(problems: Sequence[TrainingProblem]) -> list[Trained | DivergedError]:
    """Train all heads to the end and restore the best weights of each; see `training.train`.

    The seconds of a run are its share of those of all.

    Args:
        problems: for which `can_train_together` holds.

    Returns:
        What came of each run, in order; a run whose loss is not finite doesn't disturb the others.
    """
    training = problems[0].training
    results: list[Trained | DivergedError] = [Trained() for _ in problems]
    heads = [problem.model.head for problem in problems]
    optimizers = [_optimizer(problem) for problem in problems]
    groups = [list(alone.param_groups) for alone in optimizers]
    optimizer = optimizers[0]
    for group in itertools.chain(*groups[1:]):
        optimizer.add_param_group(group)
    course = Course(training, evaluation_steps(training, len(problems[0].train)), may_stop=False)
    while not course.is_over:
        started = time.perf_counter()
        done, last = course.steps_done, course.next_evaluation
        losses = torch.zeros(len(problems), device=problems[0].labels.device)
        coming = [next_batches(problem, done, last - done) for problem in problems]
        for step, own in enumerate(zip(*coming, strict=True), done):
            (epoch, *_), chosen = zip(*own, strict=True)
            inputs = [t.inputs.train(b, t.seed, epoch) for t, b in _distinct(problems, chosen)]
            labels = torch.stack([t.labels[b] for t, b in zip(problems, chosen, strict=True)])
            with problems[0].execution.autocast():
                logits = _apply(heads, inputs)
            loss = problems[0].targets.losses(logits.flatten(0, 1), labels.flatten(0, 1), training)
            loss = _weighted(problems, loss.view(labels.shape[:2]), labels).mean(1)
            optimizer.zero_grad()
            loss.sum().backward()  # type: ignore[no-untyped-call]
            for own_groups in groups:
                clip_gradients(own_groups, training.gradient_clip)
            set_rates(optimizer, course, step)
            optimizer.step()
            losses += loss.detach() * len(chosen[0])
        rates = [max(group["lr"] for group in own_groups) for own_groups in groups]
        images = sum(len(batch) for _, batch in coming[0])
        trained = time.perf_counter()
        rows = _rows(problems, heads, last, rates, (losses / images).tolist())
        evaluated = time.perf_counter()
        for place, (problem, row) in enumerate(zip(problems, rows, strict=True)):
            result = results[place]
            if isinstance(result, DivergedError):
                continue
            result.train_seconds += (trained - started) / len(problems)
            result.eval_seconds += (evaluated - trained) / len(problems)
            try:
                note_evaluation(problem, result, row)
            except DivergedError as error:
                results[place] = error
        course.note(0.0)  # heads on stored features cost next to nothing: none stops at a plateau
    for problem, result in zip(problems, results, strict=True):
        if isinstance(result, Trained):
            problem.model.load_state_dict(result.best, strict=False)
    return results


def _weighted(problems: Sequence[TrainingProblem], losses: Tensor, labels: Tensor) -> Tensor:
    """Return the losses (K, B) of K runs times what their images count for: a run has weights of its own."""
    weights = [problem.targets.weights_of(own) for problem, own in zip(problems, labels, strict=True)]
    known = [own for own in weights if own is not None]
    return losses * torch.stack(known) if known else losses


def _optimizer(problem: TrainingProblem) -> Optimizer:
    multipliers = problem.plan.phases[0].multipliers
    freeze(problem.model, multipliers)
    problem.model.set_training(problem.plan.in_training_mode(0))
    return build_optimizer(
        problem.model, multipliers, problem.learning_rate, problem.weight_decay, problem.training
    )


def _distinct(
    problems: Sequence[TrainingProblem], chosen: Sequence[np.ndarray]
) -> list[tuple[TrainingProblem, np.ndarray]]:
    """Return the problems with their images; only the first where all have the same inputs and seed."""
    pairs = list(zip(problems, chosen, strict=True))
    same = all(t.inputs is problems[0].inputs and t.seed == problems[0].seed for t in problems)
    return pairs[:1] if same else pairs


def _apply(heads: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Tensor:
    """Return logits (K, B, C) of K linear heads on inputs (B, F): one for all, or one for each."""
    weights = torch.stack([head.get_parameter("weight") for head in heads])
    biases = torch.stack([head.get_parameter("bias") for head in heads])
    if len(inputs) == 1:
        kinds, classes, features = weights.shape
        flat = functional.linear(inputs[0], weights.reshape(kinds * classes, features), biases.reshape(-1))
        return flat.view(-1, kinds, classes).transpose(0, 1)
    return torch.baddbmm(biases[:, None], torch.stack(list(inputs)), weights.transpose(1, 2))


@torch.inference_mode()
def _rows(
    problems: Sequence[TrainingProblem],
    heads: Sequence[nn.Module],
    step: int,
    rates: Sequence[float],
    losses: Sequence[float],
) -> list[Row]:
    """Return the row of the curve after a step for each run."""
    size = problems[0].inputs.eval_batch
    parts = []
    for chosen in zip(*(batches(problem.val, size) for problem in problems), strict=True):
        pairs = list(zip(problems, chosen, strict=True))
        same = all(t.inputs is problems[0].inputs and np.array_equal(b, chosen[0]) for t, b in pairs)
        parts.append(_apply(heads, [t.inputs.evaluate(b) for t, b in (pairs[:1] if same else pairs)]).float())
    logits = torch.cat(parts, 1)
    rows = []
    for problem, own, rate, loss in zip(problems, logits, rates, losses, strict=True):
        row = {"step": step, "learning_rate": rate, "train/loss": loss}
        scores = problem.targets.score(own, problem.val, (problem.metric,))
        rows.append(row | {f"val/{name}": value for name, value in scores.items()})
    return rows
