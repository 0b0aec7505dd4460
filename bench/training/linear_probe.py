"""The linear probe: logistic regression on frozen features, solved to its optimum instead of trained.

The protocol of Kornblith, Shlens and Le 2019, "Do better ImageNet models transfer better?", section 3: L-BFGS
on the L2-regularised multinomial logistic loss, features of the centre views without augmentation, and the
penalty chosen on validation images. Penalties are solved from strong to weak, each from the one before.
"""

import itertools
import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from bench.training.cached_features import Features
from bench.training.inputs import batches
from bench.training.metrics import score
from bench.training.optimizers import freeze
from bench.training.problem import Row, Trained, TrainingProblem, evaluate, note_epoch

MOST_ITERATIONS = 1000


def solve(problems: Sequence[TrainingProblem]) -> list[Trained]:
    """Solve every run's problem; runs on the same images share a path of penalties.

    Args:
        problems: `weight_decay` is the penalty: the loss is the sum over images of the cross-entropy plus
            penalty / 2 times the squared norm of the weights; the bias is free.

    Returns:
        What came of each, in order, with a curve of one row, that of the last epoch.

    Raises:
        ValueError: if the head is not a linear layer.
    """
    results: dict[int, Trained] = {}
    by_images = sorted(
        range(len(problems)), key=lambda place: (problems[place].seed, -problems[place].weight_decay)
    )
    for _, places in itertools.groupby(by_images, key=lambda place: problems[place].seed):
        solver = LogisticRegression(solver="lbfgs", warm_start=True, max_iter=MOST_ITERATIONS)
        for place in places:
            results[place] = _solve_one(problems[place], solver)
    return [results[place] for place in range(len(problems))]


def _solve_one(problem: TrainingProblem, solver: LogisticRegression) -> Trained:
    if not isinstance(problem.model.head, nn.Linear):
        raise ValueError("a linear probe needs a linear head without dropout")  # noqa: TRY004 - a setting
    freeze(problem.model, problem.plan.phases[0].multipliers)
    started = time.perf_counter()
    features = _features(problem, problem.train)
    solver.C = 1 / problem.weight_decay
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly separable: the weights hardly move
        solver.fit(features.cpu().numpy().astype(np.float64), problem.labels[problem.train].cpu().numpy())
    _copy(solver, problem.model.head)
    with torch.inference_mode():
        loss = score(problem.model.head(features), problem.labels[problem.train])["loss"]
    result = Trained(train_seconds=time.perf_counter() - started)
    solved = time.perf_counter()
    row: Row = {"epoch": problem.training.epochs - 1, "learning_rate": 0.0, "train/loss": loss}
    row |= {f"val/{name}": value for name, value in evaluate(problem, problem.val).items()}
    result.eval_seconds = time.perf_counter() - solved
    note_epoch(problem, result, row)
    return result


@torch.inference_mode()
def _features(problem: TrainingProblem, indices: np.ndarray) -> Tensor:
    """Return the features of the centre views, shape (N, F)."""
    inputs = problem.inputs
    if isinstance(inputs, Features) and inputs.prepare_evaluation(indices):
        return torch.cat([inputs.evaluate(batch) for batch in batches(indices, inputs.eval_batch)])
    images = inputs.images if isinstance(inputs, Features) else inputs
    parts = (images.evaluate(batch) for batch in batches(indices, images.eval_batch))
    found = (problem.model.eval().features(part) for part in parts)
    return torch.cat([features for features in found if isinstance(features, Tensor)])


@torch.no_grad()
def _copy(solver: LogisticRegression, head: nn.Linear) -> None:
    """Write a solution into a head. Two classes have one row of weights: half of it for each, opposite."""
    weight, bias = torch.from_numpy(solver.coef_), torch.from_numpy(solver.intercept_)
    if len(weight) == 1:
        weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
    head.weight.copy_(weight)
    head.bias.copy_(bias)
