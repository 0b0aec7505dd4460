"""Do one run: `RunSpec` to `RunResult`. The only place where a run happens."""

import resource
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
from bench.models.build import TransferModel, build, statistics
from bench.models.weights import Origin
from bench.spec import Arm, Purpose, RunResult, RunSpec, Status, Value, derive_seed
from bench.strategies import STRATEGIES, TransferPlan
from bench.study import Study
from bench.training import DivergedError, Row, Task, Trained, predict, train


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
        name = choose_device(device)
        self._stages = [stage.name for stage in self._build("pretrained", 0).stages]
        precision = choose_precision(
            study.training, name, lambda: self._build("he", 0), study.target.image_size
        )
        self.execution = Execution(name, precision)
        self.environment = {**describe(name), "precision": precision}
        mean, std = statistics(study.source)
        self.images = Images(dataset, study.target, mean, std, name)
        self.labels = torch.from_numpy(dataset.labels).to(name)
        self.features = FeatureStore()

    def run(
        self, spec: RunSpec, parts: Split, keep_going: Callable[[Row], bool] = lambda _row: True
    ) -> Finished:
        """Train and evaluate; read test, once, in a final run. A failure is a result, not an error."""
        reset_peak_memory(self.execution.device)
        try:
            task = self.prepare(spec, parts)
            trained = train(task, keep_going)
            if spec.purpose is Purpose.TRIAL or trained.stopped:
                status = Status.PRUNED if trained.stopped else Status.DONE
                return Finished(self._result(spec, status, task, trained, {}))
            logits, scores = self._test(task, parts.test)
        except (DivergedError, RuntimeError, ValueError) as error:  # memory, and whatever else torch refuses
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            return Finished(RunResult(spec, Status.FAILED, environment=self.environment, error=reason))
        result = self._result(spec, Status.DONE, task, trained, scores)
        return Finished(result, trained.best, logits.cpu().numpy(), parts.test)

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
        model = self._build(strategy.start, derive_seed(spec.seed, "head")).to(self.execution.device)
        plan = strategy.plan(len(model.stages), spec.params)
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
            learning_rate=float(spec.params["learning_rate"]),
            weight_decay=float(spec.params["weight_decay"]),
            seed=spec.seed,
            execution=self.execution,
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
            try:
                task = self.prepare(RunSpec(arm, params, 0, Purpose.TRIAL), Split(batch, val, parts.test[:1]))
                train(replace(task, training=task.training.model_copy(update={"epochs": 1})))
            except (DivergedError, RuntimeError, ValueError) as error:
                raise InputError(str(error).splitlines()[0][:200], arm.strategy) from error
        trained = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
        return self.plan_text(arm, params), trained

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
            "device": self.execution.device.partition(":")[0],
            "torch": torch.__version__,
            "exit": model.exit_at if frozen == plan.stages else None,
        }
        features = Features(self.images, model.prefix(frozen), identity, self.features)
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
        stored = task.inputs if isinstance(task.inputs, Features) else None
        return RunResult(
            spec,
            status,
            metrics=metrics,
            curve=tuple(trained.curve),
            best_epoch=trained.best_epoch,
            train_seconds=trained.train_seconds + (stored.train_seconds if stored else 0.0),
            eval_seconds=trained.eval_seconds + (stored.eval_seconds if stored else 0.0),
            trainable_parameters=sum(p.numel() for p in task.model.parameters() if p.requires_grad),
            peak_memory_bytes=peak_memory(self.execution.device),
            environment=self.environment,
        )


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
