"""Do one run: `RunSpec` to `RunResult`. The only place where a run happens."""

import resource
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.dataset import Dataset, Split
from bench.environment import describe
from bench.errors import InputError
from bench.execution import Execution, choose_device, choose_precision, use_threads
from bench.features import FeatureStore
from bench.inputs import Features, Images, Inputs
from bench.metrics import score
from bench.models.build import TransferModel, build, statistics, with_head
from bench.models.weights import Origin
from bench.probe import solve
from bench.spec import Arm, Purpose, RunResult, RunSpec, Status, Value, derive_seed, digest
from bench.strategies import STRATEGIES, TransferPlan
from bench.study import Study
from bench.together import can_train_together, train_heads
from bench.training import DivergedError, Row, Task, Trained, cut_short, predict, train

KeepGoing = Callable[[Row], bool]
FAULTS = (DivergedError, RuntimeError, ValueError)  # out of memory, and whatever else torch refuses
MOST_OPENED = 8  # sets of features kept open: all seeds of a usual study


@dataclass(frozen=True, eq=False)
class Finished:
    """A run's result, and of a final run that is done also its weights and predictions.

    Args:
        weights: the tensors that the plan let change; the others are the source's.
        logits: of the test images, shape (N, classes), float32.
        test: indices of the test images, shape (N,).
    """

    result: RunResult
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    logits: np.ndarray | None = None
    test: np.ndarray | None = None


class Worker:
    """Runs the runs of a study on one device.

    Raises:
        InputError: if there is no such device, or the source model can't be built.
    """

    def __init__(
        self, study: Study, dataset: Dataset, origin: Origin, device: str, threads: int | None = None
    ) -> None:
        use_threads(threads)
        self.study, self.dataset, self.origin = study, dataset, origin
        self.device = choose_device(device)
        self._stages = [stage.name for stage in self._build("pretrained", 0).stages]
        self._environment = describe(self.device)
        mean, std = statistics(study.source)
        self.images = Images(dataset, study.target, mean, std, self.device)
        self.labels = torch.from_numpy(dataset.labels).to(self.device)
        self.features = FeatureStore()
        self._opened: dict[str, Features] = {}  # by what they are of and the split

    @cached_property
    def execution(self) -> Execution:
        """How the backbone is trained; measured when the first run needs it."""
        study = self.study
        precision = choose_precision(
            study.training, self.device, lambda: self._build("he", 0), study.target.image_size
        )
        return Execution(self.device, precision)

    def run(self, spec: RunSpec, parts: Split, keep_going: KeepGoing = lambda _row: True) -> Finished:
        """Train and evaluate; read test, once, in a final run. A failure is a result, not an error."""
        reset_peak_memory(self.device)
        try:
            task = self.prepare(spec, parts)
            return self._finish(spec, parts, task, _train(spec, task, keep_going))
        except FAULTS as error:
            return self._failed(spec, error)

    def run_together(
        self, specs: Sequence[RunSpec], parts: Sequence[Split], keep_going: Sequence[KeepGoing]
    ) -> Iterator[Finished]:
        """Do several runs, as one computation where they train only heads; give the results in order.

        What `keep_going` says to a run's epochs is asked in turn, run by run, as if they were done in turn.
        """
        trained = None
        if len(specs) > 1:
            reset_peak_memory(self.device)
            with suppress(*FAULTS):  # then each on its own: one that fails leaves the others alone
                tasks = [self.prepare(spec, split) for spec, split in zip(specs, parts, strict=True)]
                trained = _train_together(specs[0], tasks)
        if trained is None:
            yield from map(self.run, specs, parts, keep_going)
            return
        for spec, split, task, result, going in zip(specs, parts, tasks, trained, keep_going, strict=True):
            try:
                yield self._finish(spec, split, task, cut_short(result, task.metric, going))
            except FAULTS as error:
                yield self._failed(spec, error)

    def trains_only_head(self, arm: Arm) -> bool:
        """Say whether all runs of an arm train nothing but the head."""
        strategy = STRATEGIES[arm.strategy]
        plan = strategy.plan(len(self._stages), strategy.defaults)
        return plan.start == "pretrained" and plan.frozen_prefix == plan.stages

    def _finish(self, spec: RunSpec, parts: Split, task: Task, trained: Trained) -> Finished:
        if spec.purpose is Purpose.TRIAL or trained.stopped:
            status = Status.PRUNED if trained.stopped else Status.DONE
            return Finished(self._result(spec, status, task, trained, {}))
        logits, scores = self._test(task, parts.test)
        result = self._result(spec, Status.DONE, task, trained, scores)
        return Finished(result, trained.best, logits.cpu().numpy(), parts.test)

    def _failed(self, spec: RunSpec, error: Exception) -> Finished:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        return Finished(RunResult(spec, Status.FAILED, environment=self._environment, error=reason))

    def _test(self, task: Task, test: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return logits and scores of the test images."""
        if isinstance(task.inputs, Features) and not task.inputs.prepare_evaluation(test):
            task = replace(task, inputs=self.images, forward=task.model)  # the store can't hold them
        logits = predict(task, test)
        scores = {f"test/{name}": value for name, value in score(logits, self.labels[test]).items()}
        if not np.isfinite(list(scores.values())).all():
            raise DivergedError("a score on test is not finite")
        return logits, scores

    def prepare(self, spec: RunSpec, parts: Split) -> Task:
        """Build the model, its plan, and what it is trained on."""
        strategy = STRATEGIES[spec.arm.strategy]
        plan = strategy.plan(len(self._stages), spec.params)
        seed = derive_seed(spec.seed, "head")
        if plan.start == "pretrained" and plan.frozen_prefix == plan.stages:
            model = with_head(self._frozen, self.study.head, len(self.dataset.classes), seed)
            execution = Execution(self.device, "fp32")  # stored features are
        else:
            execution = self.execution
            model = self._build(plan.start, seed).to(self.device)
        inputs, forward = self._inputs(model, plan, parts)
        return Task(
            model=model,
            forward=forward,
            plan=plan,
            inputs=inputs,
            labels=self.labels,
            train=parts.train,
            val=parts.val,
            training=self.study.training,
            learning_rate=float(spec.params.get("learning_rate", 0)),
            weight_decay=float(spec.params.get("weight_decay", spec.params.get("penalty", 0))),
            seed=spec.seed,
            execution=execution,
            metric=self.study.metric,
        )

    def plan_text(self, arm: Arm, params: Mapping[str, Value]) -> str:
        """Return an arm's matrix in words, with the names of the stages."""
        plan = STRATEGIES[arm.strategy].plan(len(self._stages), params)
        return f"{plan.matrix()}\nstages: {' '.join(self._stages)} · head\n"

    def try_step(self, arm: Arm, parts: Split) -> tuple[str, int]:
        """Build an arm, train it on one batch, and return its matrix and how many parameters it trains.

        Raises:
            InputError: if that fails.
        """
        params = STRATEGIES[arm.strategy].defaults
        batch, val = parts.train[: self.study.training.batch_size], parts.val[: self.images.eval_batch]
        with tempfile.TemporaryDirectory() as folder:
            self.features = FeatureStore(Path(folder))
            self._opened.clear()  # they would write to the folder of the arm before
            try:
                task = self.prepare(RunSpec(arm, params, 0, Purpose.TRIAL), Split(batch, val, parts.test[:1]))
                once = replace(task, training=task.training.model_copy(update={"epochs": 1}))
                _train(RunSpec(arm, params, 0, Purpose.TRIAL), once, lambda _row: True)
            except FAULTS as error:
                raise InputError(str(error).splitlines()[0][:200], arm.strategy) from error
        trained = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
        return self.plan_text(arm, params), trained

    @cached_property
    def _frozen(self) -> TransferModel:
        """The pretrained model, whose backbone all runs share that never train it."""
        return self._build("pretrained", 0).to(self.device)

    def _build(self, start: Any, seed: int) -> TransferModel:
        study = self.study
        classes = len(self.dataset.classes)
        return build(study.source, study.head, classes, study.target.image_size, start, seed)

    def _inputs(self, model: TransferModel, plan: TransferPlan, parts: Split) -> tuple[Inputs, nn.Module]:
        """Return images and the whole model; or stored features and what stands behind the frozen prefix."""
        frozen = plan.frozen_prefix
        if not frozen or plan.start != "pretrained" or self.images.target.augmentation.views is None:
            return self.images, model
        forward = model.suffix(frozen, self.images.evaluate(parts.train[:2]))
        if forward is None:
            return self.images, model
        identity = {
            "model": self.study.source.model,
            "weights": self.origin.identity,
            "stages": frozen,
            "until": model.stages[frozen - 1].modules[-1],
            "device": self.device.partition(":")[0],
            "torch": torch.__version__,
            "exit": model.exit_at if frozen == plan.stages else None,
        }
        key = digest([identity, parts.hash])
        features = self._opened.pop(key, None) or Features(
            self.images, model.prefix(frozen), identity, self.features
        )
        self._opened[key] = features
        if len(self._opened) > MOST_OPENED:
            del self._opened[next(iter(self._opened))]
        if features.prepare_training(parts.train) and features.prepare_evaluation(parts.val):
            return features, forward
        return self.images, model

    def _result(
        self, spec: RunSpec, status: Status, task: Task, trained: Trained, scores: Mapping[str, float]
    ) -> RunResult:
        """Put the result together; what a run spent on frozen features is part of its cost."""
        metrics = {
            **{n: v for n, v in trained.best_row.items() if n.partition("/")[0] in {"train", "val"}},
            **scores,
        }
        stored = task.inputs.take_seconds() if isinstance(task.inputs, Features) else (0.0, 0.0)
        return RunResult(
            spec,
            status,
            metrics=metrics,
            curve=tuple(trained.curve),
            best_epoch=trained.best_epoch,
            train_seconds=trained.train_seconds + stored[0],
            eval_seconds=trained.eval_seconds + stored[1],
            trainable_parameters=sum(p.numel() for p in task.model.parameters() if p.requires_grad),
            peak_memory_bytes=peak_memory(self.device),
            environment={**self._environment, "precision": task.execution.precision},
        )


def _train(spec: RunSpec, task: Task, keep_going: KeepGoing) -> Trained:
    """Train as the strategy says."""
    if STRATEGIES[spec.arm.strategy].solver == "lbfgs":
        return cut_short(solve([task])[0], task.metric, keep_going)
    return train(task, keep_going)


def _train_together(spec: RunSpec, tasks: Sequence[Task]) -> Sequence[Trained | DivergedError] | None:
    """Train runs of one arm as one computation, or return None if they can't be."""
    if STRATEGIES[spec.arm.strategy].solver == "lbfgs":
        return solve(tasks)
    return train_heads(tasks) if can_train_together(tasks) else None


def reset_peak_memory(device: str) -> None:
    """Begin a new measurement of the peak, where the device keeps one."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> int:
    """Return bytes: of the run on a GPU; on the CPU the peak of the whole process so far."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def preview_grid(
    study: Study, dataset: Dataset, parts: Split, images: int, views: int = 7
) -> tuple[np.ndarray, list[str]]:
    """Return what augmentation does, uint8 (images, 1 + views, side, side, 3): first the evaluation view.

    The images are spread over the classes; the second value names them.
    """
    chosen = parts.train[np.argsort(dataset.labels[parts.train], kind="stable")]
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(images, len(chosen))).astype(int)]
    shown = Images(dataset, study.target, (0.0,) * 3, (1.0,) * 3, "cpu")
    limit = study.target.augmentation.views or views
    columns = [shown.evaluate(chosen)]
    columns += [shown.show(chosen, np.full(len(chosen), view)) for view in range(min(views, limit))]
    grid = torch.stack(columns, 1).permute(0, 1, 3, 4, 2).mul(255).round().clamp(0, 255).to(torch.uint8)
    return grid.numpy(), [dataset.classes[label] for label in dataset.labels[chosen]]
