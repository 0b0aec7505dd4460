"""A study is one question in one YAML file; here it is read, checked against one schema, and overridden."""

import functools
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from bench.core.errors import nearest
from bench.core.registry import Registry
from bench.study.baselines import BASELINES
from bench.study.metrics import METRICS, metrics_of
from bench.study.tasks import TASKS

NAME = r"^[A-Za-z0-9][\w.\-]*$"
Fraction = Annotated[float, Field(gt=0, lt=1)]
Strength = Annotated[float, Field(ge=0, le=1)]
Above = Annotated[float, Field(gt=0)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
CLASS_WEIGHTS = {"none": None, "balanced": 1.0, "tuned": "tuned"}  # by their names: the power
HEAD_KINDS = tuple(dict.fromkeys(kind for task in TASKS.values() for kind in task.heads))


def _known(registry: Registry[Any]) -> AfterValidator:
    """Return what refuses a name that is in no record."""

    def check(name: str) -> str:
        if name not in registry:
            raise ValueError(f"unknown {registry.kind} '{name}'; {nearest(name, registry)}")
        return name

    return AfterValidator(check)


def _head_kind(kind: str) -> str:
    if kind not in HEAD_KINDS:
        raise ValueError(f"unknown head '{kind}'; {nearest(kind, HEAD_KINDS)}")
    return kind


def _finds_one(pattern: str) -> str:
    """Refuse what is no regular expression with one pair of parentheses."""
    try:
        found = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression ({error})") from None
    if found != 1:
        raise ValueError(f"needs one pair of parentheses, around what is the group; it has {found}")
    return pattern


def _power(weights: Any) -> Any:
    """Return the power that class weights go by, or that it is tuned; None where all images count alike."""
    if isinstance(weights, str):
        if weights not in CLASS_WEIGHTS:
            raise ValueError("neither none, balanced, tuned, nor a power of the inverse number of images")
        return CLASS_WEIGHTS[weights]
    return weights or None


class Part(BaseModel):
    """Base of every part of the schema: nothing unknown is accepted, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


P = TypeVar("P", bound=Part)


class Scenario(Part):
    """Which of the four rules of thumb the study puts to the test; none where a half is not known."""

    size: Literal["small", "large"]
    similarity: Literal["similar", "different"] | None  # None: not known


class Source(Part):
    """The pretrained model: `<library>/<name>` and where its weights come from."""

    model: Annotated[str, Field(pattern=r"^(timm|torchvision)/[\w.\-]+$")]
    weights: Annotated[str, Field(min_length=1)] = "default"  # packaged, default, or a file
    mean: tuple[float, float, float] | None = None  # of the input normalisation; None: as the weights say
    std: tuple[Above, Above, Above] | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> "Source":
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both or neither")
        return self


class Augmentation(Part):
    """Random views of a training image; the same for every strategy."""

    crop_scale: tuple[Fraction | Literal[1], Fraction | Literal[1]] = (0.6, 1)  # share of the area
    crop_ratio: tuple[Above, Above] = (0.75, 4 / 3)
    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: Annotated[float, Field(ge=0, le=180)] = 0  # degrees to either side
    brightness: Strength = 0.0
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    views: Positive | None = 8  # distinct views an image, cycled through; None: a new one every epoch

    @model_validator(mode="after")
    def _ordered(self) -> "Augmentation":
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the lower end {low} is above the upper end {high}")
        return self


class Target(Part):
    """The data to transfer to, and how they are split."""

    data: Annotated[
        str, Field(min_length=1)
    ]  # a packaged name, torchvision/<Class>, huggingface/<name>, or a folder
    train_labels: Positive | None = None  # None: all there are
    val_labels: Positive | None = None
    test_labels: Positive | None = None
    cap: Positive | None = None  # of images in each part, above one of each class (the smoke budget's)
    sampling: Literal["proportional", "balanced"] = "proportional"
    val_fraction: Fraction = 0.2  # of the training part, where the data set brings no split of its own
    test_fraction: Fraction = 0.25
    split_seed: int = 0
    image_size: Annotated[int, Field(ge=16, le=1024)] = 224  # pixels, side of the square input
    # How pictures that are no squares become some; not set: crop, or pad where that would lose too much.
    fit: Literal["crop", "pad", "stretch"] | None = None
    augmentation: Augmentation = Augmentation()
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None  # names of mask values 0, 1, ...
    ignore: Annotated[int, Field(ge=0, le=255)] | None = None  # mask value without label, beside 255
    # Which images belong together, so that they are never split up; auto: as the data say.
    groups: Literal["auto", "none", "folder", "near_duplicates"] = "auto"
    # A regular expression: what its parentheses find in an image's name is its group.
    group_pattern: Annotated[str, Field(max_length=200), AfterValidator(_finds_one)] | None = None
    # Further test sets by name, each as `data`: the same classes, other images; read once, like test.
    also_test: dict[Annotated[str, Field(pattern=NAME)], Annotated[str, Field(min_length=1)]] | None = None

    @model_validator(mode="after")
    def _grouped_in_one_way(self) -> "Target":
        if self.group_pattern is not None and self.groups != "auto":
            raise ValueError("groups and group_pattern say both which images belong together: give one")
        return self


class Head(Part):
    """What replaces the source's classifier."""

    kind: Annotated[str, AfterValidator(_head_kind)] = "linear"  # not set in a study: the default of its task
    hidden: Positive = 512  # concat_pool only
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # unet, deepest first
    decoder_channels: Annotated[tuple[Positive, ...], Field(min_length=2)] | None = None
    bottleneck: Positive | None = None  # unet: channels of a 1x1 convolution behind the deepest map


class Training(Part):
    """One training run. Learning rate and weight decay are not here: every strategy tunes them."""

    steps: Positive | None = None  # of optimisation, at most; neither these nor epochs: 300
    epochs: Positive | None = None  # passes over the training images, instead of steps
    evaluations: Positive = 15  # on val, equally far apart; with epochs: one after each
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # sgd only
    schedule: Literal["plateau", "one_cycle", "cosine", "step", "constant"] = "plateau"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of the steps; plateau, one_cycle and cosine
    cooldown: Fraction = 0.2  # share of the steps; plateau only
    patience: Positive = 4  # evaluations without a better one after which the rate goes down; plateau only
    step_every: Fraction = 0.34  # share of the steps between two drops; step only
    step_factor: Fraction = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # none, balanced, or the power of 1 / (training images of the class) that an image counts for in the loss;
    # tuned: every strategy chooses a power from 0 to 1.
    class_weights: Annotated[
        Annotated[float, Field(gt=0, le=2)] | Literal["tuned"] | None, BeforeValidator(_power)
    ] = None
    # Whether what test sees is trained anew on train and val, once these have chosen how and how long.
    refit: Annotated[Literal[True] | None, BeforeValidator(lambda wanted: wanted or None)] = None
    dice: Above | None = None  # weight beside cross-entropy; segmentation only
    gradient_clip: Above | None = 1.0  # global 2-norm
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # steps that train all stages
    compile: Literal["always", "never"] = "never"

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> "Training":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("steps and epochs both say how long to train: give one of them")
        return self


class Tuning(Part):
    """How hyperparameters are chosen, anew for every seed; the same budget for every strategy."""

    trials: Positive = 5
    pruner: Literal["successive_halving", "median", "none"] = "successive_halving"
    seed: int = 0


class Seeds(Part):
    """How many seeds there are: as many as settle what is compared."""

    min: Annotated[int, Field(ge=2)]
    max: Positive

    @model_validator(mode="after")
    def _rising(self) -> "Seeds":
        if self.min >= self.max:
            raise ValueError(f"min {self.min} is not below max {self.max}")
        return self


class Expected(Part):
    """What the literature, say, lets one expect: a value, or that one strategy is better than another."""

    strategy: str
    over: str | None = None  # the strategy that it is better than
    value: float | None = None  # of the study's metric on test
    within: Above | None = None  # how far from the value it may be
    source: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Expected":
        if (self.over is None) == (self.value is None) or (self.value is None) != (self.within is None):
            raise ValueError("say either which strategy it is over, or a value and within how much")
        return self


class Study(Part):
    """The validated study."""

    name: Annotated[str, Field(pattern=NAME)]
    question: str
    scenario: Scenario | None = None
    task: Annotated[str, _known(TASKS)] = "classification"
    source: Source
    target: Target
    head: Head = Head()
    strategies: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "scratch",
        "feature_extractor",
        "partial",
        "full",
        "discriminative",
    )
    # Which need no transfer and are no strategies: rows of the report, in no comparison.
    baselines: tuple[Annotated[str, _known(BASELINES)], ...] = ()
    training: Training = Training()
    tuning: Tuning = Tuning()
    seeds: Annotated[
        Annotated[Positive, Tag("<number>")] | Annotated[Seeds, Tag("<range>")],
        Discriminator(lambda value: "<range>" if isinstance(value, dict | Seeds) else "<number>"),
    ] = 5
    metric: Annotated[str, _known(METRICS)] = "accuracy"  # not set: the default of the task
    smallest_effect: Above = 0.02  # in the metric: what differs by less is equivalent
    expected: tuple[Expected, ...] = ()  # stated before the run, judged by the report; moves no number

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many seeds the strategies are compared, rising; what is open then gets more of them."""
        if isinstance(self.seeds, int):
            return (self.seeds,)
        doubled = [self.seeds.min]
        while 2 * doubled[-1] < self.seeds.max:
            doubled.append(2 * doubled[-1])
        return (*doubled, self.seeds.max)

    @property
    def most_seeds(self) -> int:
        """The number of seeds, or the most that there may be."""
        return self.looks[-1]

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, values: Any) -> Any:
        """Fill in head and metric, whose defaults depend on the task."""
        named = values.get("task", "classification") if isinstance(values, dict) else None
        if not isinstance(named, str) or named not in TASKS:
            return values
        task = TASKS[named]
        head = values.get("head", {})
        if isinstance(head, dict):
            head = {"kind": task.heads[0], **head}
        return {"metric": metrics_of(task.name)[0], **values, "head": head}

    @field_validator("strategies", "baselines", mode="before")
    @classmethod
    def _names_with_commas(cls, value: Any) -> Any:
        """Accept `full, partial`, as on the command line, for a list."""
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_the_task(self) -> "Study":
        for key, value, valid in (
            ("head.kind", self.head.kind, TASKS[self.task].heads),
            ("metric", self.metric, metrics_of(self.task)),
        ):
            if value not in valid:
                raise ValueError(f"{key} '{value}' is not for {self.task}; valid: {', '.join(valid)}")
        for name in dict.fromkeys(name for task in TASKS.values() for name in task.settings):
            if name not in TASKS[self.task].settings and self._setting(name) is not None:
                tasks = [task.name for task in TASKS.values() if name in task.settings]
                raise ValueError(f"{name} is for task: {' or '.join(tasks)}")
        return self

    def _setting(self, dotted: str) -> Any:
        return functools.reduce(getattr, dotted.split("."), self)

    @model_validator(mode="after")
    def _named_once(self) -> "Study":
        named = (*self.strategies, *self.baselines)
        if len(set(named)) != len(named):
            raise ValueError("strategies and baselines: one is named twice")
        if self.baselines and not TASKS[self.task].one_class:
            raise ValueError(f"baselines are for one class an image, not for {self.task}")
        if self.target.also_test and not TASKS[self.task].one_class:
            raise ValueError(f"target.also_test is for one class an image, not for {self.task}")
        return self


def with_changes(part: P, **changes: Any) -> P:
    """Return a part with other values, which are not checked again."""
    return part.model_copy(update=changes)
