"""Set up the runs of a study for training: models, execution and inputs, shared by all runs of a process."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from bench.core.hashing import digest
from bench.core.runs import Arm, RunSpec, Value, derive_seed
from bench.data.dataset import Dataset, Split
from bench.models.factory import TransferModel, build, statistics, with_adapter, with_head
from bench.models.small_maps import speed_up_small_maps
from bench.models.weights import Origin
from bench.strategies.plan import TransferPlan
from bench.strategies.registry import STRATEGIES
from bench.study.schema import Study
from bench.system.notices import warn_once
from bench.system.provenance import describe
from bench.training.cached_features import Features
from bench.training.compilation import compiled_if_wished
from bench.training.devices import choose_device, configure
from bench.training.execution import Execution
from bench.training.feature_store import FeatureStore
from bench.training.inputs import Images, batches
from bench.training.precision import choose_precision, must_measure_precision
from bench.training.problem import Route, TrainingProblem
from bench.training.targets.base import targets_of

log = logging.getLogger(__name__)
MOST_OPENED = 8  # sets of features kept open: all seeds of a usual study


@dataclass(frozen=True)
class Compute:
    """On what runs are computed.

    Args:
        device: auto, cpu, cuda or cuda:<number>.
        threads: on the CPU; None: as many as processors are available to this process.
        deterministic: see `devices.configure`.
        measures: try out which precision is faster here and whether compiling pays; a check doesn't.
    """

    device: str = "auto"
    threads: int | None = None
    deterministic: bool = False
    measures: bool = True


class TrainingSetup:
    """Builds what the runs of a study train on, on one device.

    Args:
        compute: on what, and how.

    Raises:
        InputError: if there is no such device, or the source model can't be built.
    """

    def __init__(
        self,
        study: Study,
        dataset: Dataset,
        origin: Origin,
        compute: Compute,
    ) -> None:
        self.study, self.dataset, self.origin, self.compute = study, dataset, origin, compute
        self.device = choose_device(compute.device)
        configure(
            self.device,
            compute.threads,
            deterministic=compute.deterministic,
            full_precision=study.training.precision == "fp32",
        )
        stages = self._build("pretrained", 0).stages
        self.stages, self._parts = [stage.name for stage in stages], [stage.parts for stage in stages]
        self.environment = describe(self.device)
        self.images = self.images_of(dataset)
        self.targets = targets_of(study, dataset, self.device)
        self.features = FeatureStore()
        self._opened: dict[str, Features] = {}  # by what they are of and the split
        self._compiled: dict[int, Execution] = {}  # by the number of training images

    def images_of(self, dataset: Dataset) -> Images:
        """Return the images of a data set as the source's models take them."""
        mean, std = statistics(self.study.source)
        return Images(dataset, self.study.target, mean, std, self.device)

    @cached_property
    def execution(self) -> Execution:
        """How the backbone is trained; measured, where that is wanted, when the first run needs it."""
        study = self.study
        if not self.compute.measures and must_measure_precision(study.training, self.device):
            return Execution(self.device, "fp32")
        precision = choose_precision(
            study.training, self.device, lambda: self._build("he", 0), study.target.image_size
        )
        return Execution(self.device, precision)

    def _execution_of_all_stages(self, images: int) -> Execution:
        """Return how the whole model is trained with so many images: compiled, if that is asked for."""
        if not self.compute.measures:
            return self.execution
        if images not in self._compiled:
            training, side = self.study.training, self.study.target.image_size
            sizes = {len(batch) for batch in batches(np.arange(images), training.batch_size)}
            self._compiled[images] = compiled_if_wished(
                self.execution, training, lambda: self._build("he", 0), side, sorted(sizes)
            )
        return self._compiled[images]

    def left_to_measure(self) -> list[str]:
        """Return in words what a run would try out here before it trains."""
        training, tried = self.study.training, []
        if must_measure_precision(training, self.device):
            tried.append("precision: fp32 or bf16, whichever trains faster")
        if training.compile == "always":
            tried.append("compiling steps that train all stages")
        return tried

    def trains_only_head(self, arm: Arm) -> bool:
        """Say whether all runs of an arm train nothing but the head."""
        strategy = STRATEGIES[arm.strategy]
        return strategy.plan(len(self.stages), strategy.defaults).trains_only_head

    def problem(self, spec: RunSpec, parts: Split) -> TrainingProblem:
        """Build the model, its plan, and what it is trained on."""
        plan = STRATEGIES[spec.arm.strategy].plan(len(self.stages), spec.params)
        # Features that are stored are in full precision.
        execution = Execution(self.device, "fp32") if plan.trains_only_head else self.execution
        model = self._model(plan, spec.seed)
        routes = self._routes(model, plan, parts)
        targets = self.targets
        power = spec.params.get("class_weights", self.study.training.class_weights)
        if power is not None:
            targets = targets.weighted(parts.train, float(power))
        if plan.trains_all:
            execution = self._execution_of_all_stages(len(parts.train))
        return TrainingProblem(
            model=model,
            forward=routes[-1].forward,
            plan=plan,
            inputs=routes[-1].inputs,
            targets=targets,
            train=parts.train,
            val=parts.val,
            training=self.study.training,
            learning_rate=float(spec.params.get("learning_rate", 0)),
            weight_decay=float(spec.params.get("weight_decay", 0)),
            seed=spec.seed,
            execution=execution,
            metric=self.study.metric,
            l2_strength=float(spec.params.get("l2_strength", 1)),
            routes=routes,
        )

    def _model(self, plan: TransferPlan, seed: int) -> TransferModel:
        """Build the model of a plan; those that never train the backbone share one."""
        study, classes, head_seed = self.study, len(self.dataset.classes), derive_seed(seed, "head")
        side = study.target.image_size
        if plan.trains_only_head:
            return with_head(self.frozen, study.head, classes, side, head_seed, readout=plan.readout)
        model = self._build(plan.start, head_seed)
        if plan.readout is not None:
            model = with_head(model, study.head, classes, side, head_seed, readout=plan.readout)
        if plan.adapter:
            model = with_adapter(model, plan.adapter, derive_seed(seed, "adapter"))
        return model.to(self.device)

    def _routes(self, model: TransferModel, plan: TransferPlan, parts: Split) -> tuple[Route, ...]:
        """Return for each phase how images reach the logits; the last one holds for the finished model."""
        return tuple(self._route(model, plan, number, parts) for number in range(len(plan.phases)))

    def plan_text(self, arm: Arm, params: Mapping[str, Value]) -> str:
        """Return an arm's matrix in words, with the names of the stages, and of what each consists of."""
        plan = STRATEGIES[arm.strategy].plan(len(self.stages), params)
        parts = [f"{name}: {' '.join(own)}" for name, own in zip(self.stages, self._parts, strict=True)]
        return "\n".join([plan.matrix(), f"stages: {' '.join(self.stages)} · head", *parts, ""])

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
        model = build(study.source, study.head, classes, study.target.image_size, start, seed)
        if self.device == "cpu":
            speed_up_small_maps(model)
        return model

    def _route(self, model: TransferModel, plan: TransferPlan, number: int, parts: Split) -> Route:
        """Return images and the whole model; or stored features and what stands behind the frozen prefix."""
        frozen, solved = plan.unchanged_prefix(number), plan.phases[number].is_solved
        views = self.images.target.augmentation.views
        if not frozen or plan.start != "pretrained" or (views is None and not solved):
            return Route(self.images, model)
        forward = model.suffix(frozen, self.images.evaluate(parts.train[:2]))
        if forward is None:
            warn_once(
                log,
                f"{self.study.source.model} can't be resumed behind stage {frozen}: features of "
                "frozen stages are not stored but computed in each step",
            )
            return Route(self.images, model)
        features = self._features(model, plan, frozen, parts)
        is_kept = solved or features.prepare_training(parts.train)
        is_last = number == len(plan.phases) - 1
        needed = parts.val if is_last or not solved else parts.train
        if is_kept and features.prepare_evaluation(needed):
            return Route(features, forward)
        return Route(self.images, model)

    def _features(self, model: TransferModel, plan: TransferPlan, frozen: int, parts: Split) -> Features:
        """Return the stored features of a prefix, which is that of a model that nothing trains."""
        untrained = self.frozen
        if model.pools:
            study = self.study
            classes, side = len(self.dataset.classes), study.target.image_size
            untrained = with_head(untrained, study.head, classes, side, 0, readout=plan.readout)
        identity = {
            "model": self.study.source.model,
            "weights": self.origin.identity,
            "stages": frozen,
            "until": model.stages[frozen - 1].modules[-1],
            "device": self.device.partition(":")[0],
            "torch": torch.__version__,
            "library": self.environment.get(self.study.source.model.partition("/")[0], ""),
            "matrices": torch.get_float32_matmul_precision(),
            "handed on": model.prefix_outputs(frozen),
        }
        if model.pools:
            identity["pooled behind"] = model.taps
        key = digest([identity, parts.hash])
        features = self._opened.pop(key, None) or Features(
            self.images, untrained.prefix(frozen), identity, self.features
        )
        self._opened[key] = features
        if len(self._opened) > MOST_OPENED:
            del self._opened[next(iter(self._opened))]
        return features
