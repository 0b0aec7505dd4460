"""Do one run: `RunSpec` to `RunResult`. The only place where a run happens."""

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.core.runs import (
    Arm,
    Purpose,
    RunResult,
    RunSpec,
    Status,
    Value,
    derive_seed,
)
from bench.data.dataset import Dataset, Split
from bench.data.splits import ordered
from bench.models.factory import (
    TransferModel,
    build,
    statistics,
    with_head,
)
from bench.models.weights import Origin
from bench.strategies.base import TransferPlan
from bench.strategies.registry import STRATEGIES
from bench.study.schema import Study
from bench.system.provenance import describe
from bench.training import device_memory
from bench.training.cached_features import Features
from bench.training.checkpoints import Checkpoint
from bench.training.compilation import compiled_where_it_pays
from bench.training.devices import choose_device, prepare
from bench.training.execution import Execution
from bench.training.feature_store import FeatureStore
from bench.training.inputs import Images, Inputs, batches
from bench.training.linear_probe import solve
from bench.training.loop import (
    DivergedError,
    Row,
    Task,
    Trained,
    cut_short,
    predict,
    train,
)
from bench.training.metrics import scores_by_image
from bench.training.parallel_heads import can_train_together, train_heads
from bench.training.precision import choose_precision
from bench.training.targets import (
    Classes,
    Masks,
    Targets,
    confusion_of,
)
from bench.training.weight_drift import IMAGES, Yardstick

log = logging.getLogger(__name__)
KeepGoing = Callable[[Row], bool]
FAULTS = (DivergedError, RuntimeError, ValueError)  # out of memory, and whatever else torch refuses
MOST_OPENED = 8  # sets of features kept open: all seeds of a usual study


@dataclass(frozen=True, eq=False)
class Finished:
    """A run's result, and of a final run that is done also its weights and predictions.

    Args:
        weights: the tensors that the plan let change; the others are the source's.
        answers: for the test images: logits, float32, shape (N, classes); or for segmentation a row for
            each image, as `Masks.answer` gives it.
        test: indices of the test images, shape (N,).
        examples: for segmentation the best, median and worst test images: index and predicted mask.
    """

    result: RunResult
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    answers: np.ndarray | None = None
    test: np.ndarray | None = None
    examples: Mapping[str, tuple[int, np.ndarray]] = field(default_factory=dict)


class Worker:
    """Runs the runs of a study on one device.

    Raises:
        InputError: if there is no such device, or the source model can't be built.
    """

    def __init__(
        self,
        study: Study,
        dataset: Dataset,
        origin: Origin,
        device: str,
        threads: int | None = None,
        *,
        deterministic: bool = False,
    ) -> None:
        self.study, self.dataset, self.origin = study, dataset, origin
        self.device = choose_device(device)
        prepare(
            self.device,
            threads,
            deterministic=deterministic,
            full_precision=study.training.precision == "fp32",
        )
        self._stages = [stage.name for stage in self._build("pretrained", 0).stages]
        self._environment = describe(self.device)
        mean, std = statistics(study.source)
        self.images = Images(dataset, study.target, mean, std, self.device)
        self.targets: Targets = (
            Classes(torch.from_numpy(dataset.labels).to(self.device))
            if dataset.masks is None
            else Masks(dataset, study.target, self.device)
        )
        self.features = FeatureStore()
        self._opened: dict[str, Features] = {}  # by what they are of and the split
        self._yardstick: Yardstick | None = None
        self._compiled: dict[int, Execution] = {}  # by the number of training images

    @cached_property
    def execution(self) -> Execution:
        """How the backbone is trained; measured when the first run needs it."""
        study = self.study
        precision = choose_precision(
            study.training, self.device, lambda: self._build("he", 0), study.target.image_size
        )
        return Execution(self.device, precision)

    def _execution_of_all_stages(self, images: int) -> Execution:
        """Return how the whole model is trained with so many images: compiled, where that pays."""
        if images not in self._compiled:
            study, training = self.study, self.study.training
            strategies = [STRATEGIES[name] for name in study.strategies]
            plans = [strategy.plan(len(self._stages), strategy.defaults) for strategy in strategies]
            runs = sum(plan.trains_all for plan in plans) * (study.tuning.trials + study.seeds)
            sizes = Counter(len(batch) for batch in batches(np.arange(images), training.batch_size))
            steps = {size: count * runs * training.epochs for size, count in sizes.items()}
            self._compiled[images] = compiled_where_it_pays(
                self.execution, training, lambda: self._build("he", 0), study.target.image_size, steps
            )
        return self._compiled[images]

    def run(self, spec: RunSpec, parts: Split, keep_going: KeepGoing = lambda _row: True) -> Finished:
        """Train and evaluate; read test, once, in a final run. A failure is a result, not an error.

        Where the device has no room for a batch, it is computed in two pieces, or four, ...: the gradient is
        that of the whole batch. A run that was begun before goes on from its checkpoint.
        """
        going, pieces = _ask_once(keep_going), 1
        while True:
            device_memory.reset_peak(self.device)
            try:
                task = replace(self.prepare(spec, parts), pieces=pieces)
                return self._finish(spec, parts, task, _train(spec, task, going, _checkpoint(spec)))
            except FAULTS as error:
                if not device_memory.is_full(error) or 4 * pieces > self.study.training.batch_size:
                    return self._failed(spec, error)
            pieces *= 2
            log.warning("%s: the device's memory is full; %s", spec.arm.strategy, _in_pieces(pieces))
            self._opened.clear()
            device_memory.release(self.device)

    def forget(self, spec: RunSpec) -> None:
        """Remove a run's checkpoint: its result is stored."""
        _checkpoint(spec).remove()

    def run_together(
        self, specs: Sequence[RunSpec], parts: Sequence[Split], keep_going: Sequence[KeepGoing | None]
    ) -> Iterator[Finished]:
        """Do several runs, as one computation where they train only heads; give the results in order.

        What `keep_going` says to a run's epochs is asked in turn, run by run, as if they were done in turn.
        Where it is None the result is known already and not given: the run only takes part where the others'
        last bits depend on it.
        """
        trained = None
        if len(specs) > 1:
            device_memory.reset_peak(self.device)
            with suppress(*FAULTS):  # then each on its own: one that fails leaves the others alone
                tasks = [self.prepare(spec, split) for spec, split in zip(specs, parts, strict=True)]
                trained = _train_together(specs[0], tasks)
        if trained is None:
            for spec, split, going in zip(specs, parts, keep_going, strict=True):
                if going:
                    yield self.run(spec, split, going)
            return
        for spec, split, task, result, going in zip(specs, parts, tasks, trained, keep_going, strict=True):
            if not going:
                continue
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
        answers, scores, examples = self._test(task, parts.test)
        result = self._result(spec, Status.DONE, task, trained, scores)
        result = replace(result, metrics={**result.metrics, **self._moved(task)})
        return Finished(result, trained.best, answers.cpu().numpy(), parts.test, examples)

    def _moved(self, task: Task) -> dict[str, float]:
        """Return how far each stage moved; what can't be measured is left out, as it decides nothing."""
        if self._yardstick is None:  # one for all runs: every seed validates on the same images
            count = min(IMAGES, len(task.val))
            chosen = task.val[np.linspace(0, len(task.val) - 1, count).astype(int)]
            size = self.images.eval_batch
            self._yardstick = Yardstick(
                self._frozen, lambda: map(self.images.evaluate, batches(chosen, size))
            )
        try:
            return self._yardstick.measure(task.model, task.plan)
        except FAULTS as error:
            log.warning("how far the stages moved could not be measured: %s", error)
            return {}

    def _failed(self, spec: RunSpec, error: Exception) -> Finished:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        diverged = isinstance(error, DivergedError)
        result = RunResult(
            spec, Status.FAILED, environment=self._environment, error=reason, diverged=diverged
        )
        return Finished(result)

    def _test(self, task: Task, test: np.ndarray) -> "Tested":
        """Return answers and scores of the test images, and examples of predicted masks."""
        if isinstance(task.inputs, Features) and not task.inputs.prepare_evaluation(test):
            task = replace(task, inputs=self.images, forward=task.model)  # the store can't hold them
        answers = predict(task, test)
        scores = {f"test/{name}": value for name, value in task.targets.score(answers, test).items()}
        if not np.isfinite(list(scores.values())).all():
            raise DivergedError("a score on test is not finite")
        return answers, scores, {} if self.dataset.masks is None else _examples(task, answers, test)

    def prepare(self, spec: RunSpec, parts: Split) -> Task:
        """Build the model, its plan, and what it is trained on."""
        strategy = STRATEGIES[spec.arm.strategy]
        plan = strategy.plan(len(self._stages), spec.params)
        seed = derive_seed(spec.seed, "head")
        if plan.start == "pretrained" and plan.frozen_prefix == plan.stages:
            study = self.study
            model = with_head(
                self._frozen, study.head, len(self.dataset.classes), study.target.image_size, seed
            )
            execution = Execution(self.device, "fp32")  # stored features are
        else:
            execution = self.execution
            model = self._build(plan.start, seed).to(self.device)
        inputs, forward = self._inputs(model, plan, parts)
        if plan.trains_all:
            execution = self._execution_of_all_stages(len(parts.train))
        return Task(
            model=model,
            forward=forward,
            plan=plan,
            inputs=inputs,
            targets=self.targets,
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
        """Build an arm, train it on a batch, and return its matrix and how many parameters it trains.

        The batch has an image of each class, and more images than fit into one if there are more classes.

        Raises:
            InputError: if that fails.
        """
        params = STRATEGIES[arm.strategy].defaults
        count = max(self.study.training.batch_size, len(self.dataset.classes))
        batch = np.sort(ordered(parts.train, self.dataset.labels, "proportional", (0,))[:count])
        val = parts.val[: self.images.eval_batch]
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
            "library": self._environment.get(self.study.source.model.partition("/")[0], ""),
            "matrices": torch.get_float32_matmul_precision(),
            "handed on": model.handed_on(frozen),
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
        stored, computing = (0.0, 0.0), 0.0
        if isinstance(task.inputs, Features):
            stored, computing = task.inputs.take_seconds(), task.inputs.computing_seconds
        return RunResult(
            spec,
            status,
            metrics=metrics,
            curve=tuple(trained.curve),
            best_epoch=trained.best_epoch,
            train_seconds=trained.train_seconds + stored[0],
            eval_seconds=trained.eval_seconds + stored[1],
            cached_seconds=trained.train_seconds + trained.eval_seconds,
            feature_seconds=computing,
            trainable_parameters=sum(p.numel() for p in task.model.parameters() if p.requires_grad),
            peak_memory_bytes=device_memory.peak(self.device),
            environment={
                **self._environment,
                "precision": task.execution.precision,
                **({"compiled": "yes"} if task.execution.compiled else {}),
                **({"batch": _in_pieces(task.pieces)} if task.pieces > 1 else {}),
            },
        )


Tested = tuple[Tensor, dict[str, float], dict[str, tuple[int, np.ndarray]]]


@torch.inference_mode()
def _examples(task: Task, answers: Tensor, test: np.ndarray) -> dict[str, tuple[int, np.ndarray]]:
    """Return the index and the predicted mask, uint8 (S, S), of the best, the median and the worst image."""
    by_iou = scores_by_image(confusion_of(answers)).cpu().numpy()
    shows_some = np.isfinite(by_iou)
    order = test[shows_some][np.argsort(-by_iou[shows_some], kind="stable")]
    chosen = {"best": int(order[0]), "median": int(order[len(order) // 2]), "worst": int(order[-1])}
    shown = np.array(list(chosen.values()))
    predicted = task.forward(task.inputs.evaluate(shown)).argmax(1).to(torch.uint8).cpu().numpy()
    return {name: (index, mask) for (name, index), mask in zip(chosen.items(), predicted, strict=True)}


def _train(spec: RunSpec, task: Task, keep_going: KeepGoing, checkpoint: Checkpoint | None = None) -> Trained:
    """Train as the strategy says; what is solved takes seconds and needs no checkpoint."""
    if STRATEGIES[spec.arm.strategy].solver == "lbfgs":
        return cut_short(solve([task])[0], task.metric, keep_going)
    return train(task, keep_going, checkpoint)


def _checkpoint(spec: RunSpec) -> Checkpoint:
    return Checkpoint(f"{spec.arm.key}-{spec.key}")  # the arm's, so that all of them can be found


def _ask_once(keep_going: KeepGoing) -> KeepGoing:
    """Return the same, but no epoch is judged twice: a run that begins anew repeats some."""
    judged = set[float]()

    def ask(row: Row) -> bool:
        if row["epoch"] in judged:
            return True
        judged.add(row["epoch"])
        return keep_going(row)

    return ask


def _in_pieces(pieces: int) -> str:
    return f"each batch in {pieces} pieces, with accumulated gradients"


def _train_together(spec: RunSpec, tasks: Sequence[Task]) -> Sequence[Trained | DivergedError] | None:
    """Train runs of one arm as one computation, or return None if they can't be."""
    if STRATEGIES[spec.arm.strategy].solver == "lbfgs":
        return solve(tasks)
    return train_heads(tasks) if can_train_together(tasks) else None
