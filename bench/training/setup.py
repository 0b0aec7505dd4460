"""Set up the runs of a study for training: models, execution and inputs, shared by all runs of a process."""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.core.hashing import digest
from bench.core.runs import Arm, RunSpec, Value, derive_seed
from bench.data.dataset import Dataset, Split
from bench.models.factory import TransferModel, build, statistics, with_head
from bench.models.weights import Origin
from bench.strategies.base import TransferPlan
from bench.strategies.registry import STRATEGIES
from bench.study.schema import Study
from bench.system.provenance import describe
from bench.training.cached_features import Features
from bench.training.compilation import compiled_where_it_pays
from bench.training.devices import choose_device, prepare
from bench.training.execution import Execution
from bench.training.feature_store import FeatureStore
from bench.training.inputs import Images, Inputs, batches
from bench.training.precision import choose_precision
from bench.training.problem import TrainingProblem
from bench.training.targets.base import targets_of

MOST_OPENED = 8  # sets of features kept open: all seeds of a usual study


class TrainingSetup:
    """Builds what the runs of a study train on, on one device.

    Args:
        threads: on the CPU; None: as many as processors are available to this process.
        deterministic: see `devices.prepare`.

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
        self.stages = [stage.name for stage in self._build("pretrained", 0).stages]
        self.environment = describe(self.device)
        mean, std = statistics(study.source)
        self.images = Images(dataset, study.target, mean, std, self.device)
        self.targets = targets_of(study, dataset, self.device)
        self.features = FeatureStore()
        self._opened: dict[str, Features] = {}  # by what they are of and the split
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
            plans = [strategy.plan(len(self.stages), strategy.defaults) for strategy in strategies]
            runs = sum(plan.trains_all for plan in plans) * (study.tuning.trials + study.seeds)
            sizes = Counter(len(batch) for batch in batches(np.arange(images), training.batch_size))
            steps = {size: count * runs * training.epochs for size, count in sizes.items()}
            self._compiled[images] = compiled_where_it_pays(
                self.execution, training, lambda: self._build("he", 0), study.target.image_size, steps
            )
        return self._compiled[images]

    def trains_only_head(self, arm: Arm) -> bool:
        """Say whether all runs of an arm train nothing but the head."""
        strategy = STRATEGIES[arm.strategy]
        plan = strategy.plan(len(self.stages), strategy.defaults)
        return plan.start == "pretrained" and plan.frozen_prefix == plan.stages

    def problem(self, spec: RunSpec, parts: Split) -> TrainingProblem:
        """Build the model, its plan, and what it is trained on."""
        strategy = STRATEGIES[spec.arm.strategy]
        plan = strategy.plan(len(self.stages), spec.params)
        seed = derive_seed(spec.seed, "head")
        if plan.start == "pretrained" and plan.frozen_prefix == plan.stages:
            study = self.study
            model = with_head(
                self.frozen, study.head, len(self.dataset.classes), study.target.image_size, seed
            )
            execution = Execution(self.device, "fp32")  # stored features are
        else:
            execution = self.execution
            model = self._build(plan.start, seed).to(self.device)
        inputs, forward = self._inputs(model, plan, parts)
        if plan.trains_all:
            execution = self._execution_of_all_stages(len(parts.train))
        return TrainingProblem(
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
            solver=strategy.solver,
        )

    def plan_text(self, arm: Arm, params: Mapping[str, Value]) -> str:
        """Return an arm's matrix in words, with the names of the stages."""
        plan = STRATEGIES[arm.strategy].plan(len(self.stages), params)
        return f"{plan.matrix()}\nstages: {' '.join(self.stages)} · head\n"

    def forget_features(self) -> None:
        """Let go of the features in memory; those on disk stay."""
        self._opened.clear()

    @cached_property
    def frozen(self) -> TransferModel:
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
            "library": self.environment.get(self.study.source.model.partition("/")[0], ""),
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
