"""The linear probe: a linear classifier on frozen features, solved to its optimum instead of trained.

The protocol of Kornblith, Shlens and Le 2019, "Do better ImageNet models transfer better?", section 3: L-BFGS
on the L2-regularised multinomial logistic loss, features of the centre views without augmentation, and the
L2 strength chosen on validation images. Strengths are solved from strong to weak, each from the one before.
Beside it stands the linear support vector machine of scikit-learn: squared hinge loss, one class against the
rest, also L2-regularised. Its scores are no log-probabilities, so its loss on val says little.
"""

import itertools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from bench.strategies.plan import Solver
from bench.study.allowance import evaluation_steps
from bench.training.cached_features import Features
from bench.training.inputs import batches
from bench.training.metrics import score
from bench.training.optimizers import freeze
from bench.training.problem import Row, Trained, TrainingProblem, evaluate, note_evaluation

MOST_ITERATIONS = 1000
# Estimators whose C, the inverse of the L2 strength, is set before each fit.
ESTIMATORS: Mapping[Solver, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression(solver="lbfgs", warm_start=True, max_iter=MOST_ITERATIONS),
    "hinge": lambda: LinearSVC(dual=False, max_iter=MOST_ITERATIONS),  # the primal: nothing is drawn
}


def solve(problems: Sequence[TrainingProblem]) -> list[Trained]:
    """Solve every run's problem, each of one phase; runs on the same features share a path of L2 strengths.

    Returns:
        What came of each, in order, with a curve of one row, at the last of the steps that it may take.

    Raises:
        ValueError: if the head is not a linear layer.
    """

    def features(place: int) -> tuple[int, int]:
        return problems[place].seed, problems[place].plan.readout or 0

    results: dict[int, Trained] = {}
    ordered = sorted(range(len(problems)), key=lambda n: (features(n), -problems[n].l2_strength))
    for _, places in itertools.groupby(ordered, key=features):
        estimator = ESTIMATORS[problems[0].plan.phases[0].solver]()
        for place in places:
            results[place] = _solve_one(problems[place], estimator)
    return [results[place] for place in range(len(problems))]


def solve_head(problem: TrainingProblem, solver: Solver) -> float:
    """Write the solution into the head, where other phases start from it; return the seconds that it took."""
    started = time.perf_counter()
    _fit(problem, ESTIMATORS[solver](), frozen_features(problem, problem.train))
    return time.perf_counter() - started


def _solve_one(problem: TrainingProblem, estimator: Any) -> Trained:
    freeze(problem.model, problem.plan.phases[0].multipliers)
    started = time.perf_counter()
    features = frozen_features(problem, problem.train)
    _fit(problem, estimator, features)
    with torch.inference_mode():
        loss = score(problem.model.head(features), problem.labels[problem.train])["loss"]
    result = Trained(train_seconds=time.perf_counter() - started)
    solved = time.perf_counter()
    last = evaluation_steps(problem.training, len(problem.train))[-1]
    row: Row = {"step": last, "learning_rate": 0.0, "train/loss": loss}
    row |= {f"val/{name}": value for name, value in evaluate(problem, problem.val).items()}
    result.eval_seconds = time.perf_counter() - solved
    note_evaluation(problem, result, row)
    return result


def _fit(problem: TrainingProblem, estimator: Any, features: Tensor) -> None:
    """Solve for the head on features of the training images, shape (N, F)."""
    if not isinstance(problem.model.head, nn.Linear):
        raise ValueError("a linear probe needs a linear head without dropout")  # noqa: TRY004 - a setting
    estimator.C = 1 / problem.l2_strength
    labels = problem.labels[problem.train]
    weights = problem.targets.weights_of(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly separable: the weights hardly move
        estimator.fit(
            features.cpu().numpy().astype(np.float64),
            labels.cpu().numpy(),
            sample_weight=None if weights is None else weights.cpu().numpy(),
        )
    _copy(estimator, problem.model.head)


@torch.inference_mode()
def frozen_features(problem: TrainingProblem, indices: np.ndarray) -> Tensor:
    """Return the features of the centre views, shape (N, F)."""
    inputs = problem.inputs
    if isinstance(inputs, Features) and inputs.prepare_evaluation(indices):
        return torch.cat([inputs.evaluate(batch) for batch in batches(indices, inputs.eval_batch)])
    images = inputs.images if isinstance(inputs, Features) else inputs
    parts = (images.evaluate(batch) for batch in batches(indices, images.eval_batch))
    features = (problem.model.eval().features(part) for part in parts)
    return torch.cat([part for part in features if isinstance(part, Tensor)])


@torch.no_grad()
def _copy(estimator: Any, head: nn.Linear) -> None:
    """Write a solution into a head. Two classes have one row of weights: half of it for each, opposite."""
    weight, bias = torch.from_numpy(estimator.coef_), torch.from_numpy(estimator.intercept_)
    if len(weight) == 1:
        weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
    head.weight.copy_(weight)
    head.bias.copy_(bias)
