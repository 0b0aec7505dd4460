"""A study is one question in one YAML file; here it is read, checked against one schema, and overridden."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml.constructor import ConstructorError

from bench.errors import InputError, nearest

SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # `safe_load`, in C where it was built
LONGEST, DEEPEST = 100_000, 20  # characters of a study, and how deep it may be nested
Fraction = Annotated[float, Field(gt=0, lt=1)]
Strength = Annotated[float, Field(ge=0, le=1)]
Above = Annotated[float, Field(gt=0)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Budget = Literal["smoke", "default", "full"]
Task = Literal["classification", "segmentation"]
# What belongs to a task; the first of each is its default.
HEADS_OF = {"classification": ("linear", "concat_pool"), "segmentation": ("unet", "fcn32s")}
METRICS_OF = {
    "classification": ("accuracy", "balanced_accuracy"),
    "segmentation": ("mean_iou", "pixel_accuracy"),
}


class Part(BaseModel):
    """Base of every part of the schema: nothing unknown is accepted, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


P = TypeVar("P", bound=Part)


class Scenario(Part):
    """Which of the four rules of thumb the study puts to the test."""

    size: Literal["small", "large"]
    similarity: Literal["similar", "different"]


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
    augmentation: Augmentation = Augmentation()
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None  # names of mask values 0, 1, ...
    ignore: Annotated[int, Field(ge=0, le=255)] | None = None  # mask value without label, beside 255


class Head(Part):
    """What replaces the source's classifier."""

    # unet, where the task is segmentation and nothing is said
    kind: Literal["linear", "concat_pool", "unet", "fcn32s"] = "linear"
    hidden: Positive = 512  # concat_pool only
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # unet, deepest first
    decoder_channels: Annotated[tuple[Positive, ...], Field(min_length=2)] | None = None
    bottleneck: Positive | None = None  # unet: channels of a 1x1 convolution behind the deepest map


class Training(Part):
    """One training run. Learning rate and weight decay are not here: every strategy tunes them."""

    epochs: Positive = 10
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # sgd only
    schedule: Literal["one_cycle", "cosine", "step", "constant"] = "one_cycle"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.25  # share of the steps; one_cycle and cosine
    step_every: Fraction = 0.34  # share of the epochs between two drops; step only
    step_factor: Fraction = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dice: Above | None = None  # weight beside cross-entropy; segmentation only
    gradient_clip: Above | None = 1.0  # global 2-norm
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # of steps that train all stages; not set: where it pays
    compile: Literal["always", "never"] | None = None


class Tuning(Part):
    """How hyperparameters are chosen; the same budget for every strategy."""

    trials: Positive = 8
    pruner: Literal["successive_halving", "median", "none"] = "successive_halving"
    seed: int = 0


class Study(Part):
    """The validated study."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.\-]*$")]
    question: str
    scenario: Scenario | None = None
    task: Task = "classification"
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
    training: Training = Training()
    tuning: Tuning = Tuning()
    seeds: Positive = 5
    metric: Literal["accuracy", "balanced_accuracy", "mean_iou", "pixel_accuracy"] = "accuracy"

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, values: Any) -> Any:
        """Fill in head and metric where the task is segmentation: their defaults are of classification."""
        if not isinstance(values, dict) or values.get("task") != "segmentation":
            return values
        head = values.get("head", {})
        if isinstance(head, dict):
            head = {"kind": HEADS_OF["segmentation"][0], **head}
        return {"metric": METRICS_OF["segmentation"][0], **values, "head": head}

    @model_validator(mode="after")
    def _fits_the_task(self) -> "Study":
        for key, value, valid in (
            ("head.kind", self.head.kind, HEADS_OF[self.task]),
            ("metric", self.metric, METRICS_OF[self.task]),
        ):
            if value not in valid:
                raise ValueError(f"{key} '{value}' is not for {self.task}; valid: {', '.join(valid)}")
        if self.task == "classification" and (
            self.training.dice or self.target.classes or self.target.ignore
        ):
            raise ValueError("training.dice, target.classes and target.ignore are for task: segmentation")
        return self

    @model_validator(mode="after")
    def _strategies_once(self) -> "Study":
        if len(set(self.strategies)) != len(self.strategies):
            raise ValueError("strategies: one is named twice")
        return self


SMOKE = {"trials": 2, "seeds": 2, "epochs": 2, "cap": 48}
FULL = {"trials": 30, "seeds": 10, "epoch_factor": 3}


def metric_in_words(metric: str) -> str:
    """Return a metric as a person writes it: `mean IoU`."""
    return metric.replace("_", " ").replace("iou", "IoU")


def apply_budget(study: Study, budget: Budget) -> Study:
    """Return the study at a budget: `smoke` shows that it works, `full` is for a paper."""
    if budget == "smoke":
        return _replace(
            study,
            seeds=SMOKE["seeds"],
            target=_replace(study.target, cap=min(SMOKE["cap"], study.target.cap or SMOKE["cap"])),
            training=_replace(study.training, epochs=SMOKE["epochs"]),
            tuning=_replace(study.tuning, trials=SMOKE["trials"]),
        )
    if budget == "full":
        return _replace(
            study,
            seeds=FULL["seeds"],
            training=_replace(study.training, epochs=study.training.epochs * FULL["epoch_factor"]),
            tuning=_replace(study.tuning, trials=FULL["trials"]),
        )
    return study


def with_labels(study: Study, count: int) -> Study:
    """Return the study with another number of training labels: the smaller of two is part of the larger.

    Raises:
        InputError: for segmentation, whose images hold many labels each.
    """
    if study.task != "classification":
        raise InputError(f"--sizes is not for {study.task}", study.name, "leave it out")
    return _replace(study, target=_replace(study.target, train_labels=count))


def _replace(part: P, **changes: Any) -> P:
    return part.model_copy(update=changes)


def folders() -> list[Path]:
    """Where named studies are looked for: the current folder's `studies/` first, then the packaged ones."""
    package = Path(__file__).parent
    return [f for f in (Path("studies"), package / "_studies", package.parent / "studies") if f.is_dir()]


def available() -> dict[str, Path]:
    """Return the named studies, `small_similar` or `reference/small_similar`, and their files."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.rglob("*.yaml")):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return dict(sorted(found.items(), key=lambda item: (item[0].count("/"), item[0])))


def find(name_or_path: str) -> Path:
    """Return the file of a study given by name or by path; raise InputError for neither."""
    named = available()
    if name_or_path in named:
        return named[name_or_path]
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or os.sep in name_or_path:
        if path.is_file():
            return path
        raise InputError(f"there is no study file {path}", "--study", nearest(name_or_path, named))
    raise InputError(f"unknown study '{name_or_path}'", "--study", nearest(name_or_path, named))


def load(name_or_path: str, overrides: Iterable[str] = (), budget: Budget = "default") -> Study:
    """Read and check a study.

    Args:
        name_or_path: a name that `bench list studies` shows, or the path of a YAML file.
        overrides: `key=value` with dotted keys (`training.epochs=3`); they win over file and budget.
        budget: preset of trials, seeds, epochs and labels.

    Raises:
        InputError: for anything that is not a valid study, naming file and key.
    """
    path = find(name_or_path)
    values = _read(path)
    values.setdefault("name", path.stem if path.parent.name != "reference" else f"reference_{path.stem}")
    study = apply_budget(_validate(values, str(path)), budget)
    if not (changes := list(overrides)):
        return study
    values = study.model_dump(mode="json")
    for change in changes:
        _override(values, change)
    return _validate(values, f"{path} with --set")


def parse(text: str, where: str) -> Study:
    """Return the study that `as_yaml` wrote; `where` names the text, should it be unusable."""
    return _validate(_values(text, where), where)


def as_yaml(study: Study) -> str:
    """Return the study with every value resolved."""
    values: dict[str, Any] = study.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            return _values(file.read(LONGEST + 1), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read ({error})", str(path)) from error


def _values(text: str, where: str) -> dict[str, Any]:
    try:
        values = _parse(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        what = str(getattr(error, "problem", None) or error)[:200]
        raise InputError(f"is not valid YAML{place}: {what}", where) from error
    if not isinstance(values, dict):
        raise InputError("is not a mapping of keys to values", where, "see studies/small_similar.yaml")
    return values


def _parse(text: str) -> Any:
    """Return what a YAML text says: plain values, no larger than a study can be.

    Aliases can stand for billions of values in a few lines, and the parser in C crashes on deep nesting.

    Raises:
        ValueError: for more than a study needs, or a value that there is none of.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it has more than {LONGEST} characters")
    depth = 0
    for event in yaml.parse(text, Loader=SAFE_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"aliases (*{event.anchor}) are not accepted: write the value again")  # noqa: TRY004 - a setting
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - it is the safe one


class _Loader(SAFE_LOADER):  # type: ignore[misc, valid-type]
    """The safe loader; what it lets pass or trips over is an error with a line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a node's value; PyYAML's own code stumbles on `!!bool x`, `!!int ''` and the like."""
        try:
            return super().construct_object(node, deep)
        except (KeyError, IndexError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(None, None, f"'{node.value}' is no {kind}", node.start_mark) from error

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a mapping; PyYAML takes the last of two values for one key, and the first is lost."""
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and first.setdefault((key.tag, key.value), key) is not key:
                line = first[key.tag, key.value].start_mark.line + 1
                what = f"'{key.value}' is written twice, first in line {line}"
                raise ConstructorError(None, None, what, key.start_mark)
        return super().construct_mapping(node, deep)


def _override(values: dict[str, Any], change: str) -> None:
    """Set one dotted key in place; intermediate keys may be absent (they are checked later)."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise InputError(f"'{change}' is not KEY=VALUE", "--set", "for example --set training.epochs=3")
    try:
        value = _parse(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"the value of '{key}' is not valid YAML", "--set") from error
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        nested = values[parent]
        if not isinstance(nested, dict):
            raise InputError(f"'{parent}' in '{key}' has no keys of its own", "--set")
        values = nested
    values[last] = value


def _validate(values: dict[str, Any], where: str) -> Study:
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where) from error


def _explain(error: ValidationError, where: str) -> InputError:
    """Turn pydantic's first complaint into one line: file, key, what, nearest valid key."""
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location) or "study"
    if first["type"] == "extra_forbidden":
        return InputError(f"unknown key '{key}'", where, nearest(location[-1], _fields(location[:-1])))
    if first["type"] == "missing":
        return InputError(f"the key '{key}' is missing", where)
    message = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict | Part) else f" (given: {str(first['input'])[:60]!r})"
    more = f" and {error.error_count() - 1} more mistakes" if error.error_count() > 1 else ""
    return InputError(f"{key}: {message}{given}{more}", where)


def _fields(location: list[str]) -> list[str]:
    """Return the valid keys at a place of the schema."""
    part: Any = Study
    for name in location:
        part = next((t for t in _part_types(part.model_fields[name].annotation)), part)
    return list(part.model_fields)


def _part_types(annotation: Any) -> list[type[Part]]:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return [c for c in candidates if isinstance(c, type) and issubclass(c, Part)]
