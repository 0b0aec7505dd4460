"""The lines of plain timm and PyTorch that repeat a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import __version__
from bench.data.dataset import stored_side
from bench.models.weights import PACKAGED
from bench.study.schema import Augmentation, Study, Training


@dataclass(frozen=True)
class Snippet:
    """What the lines say.

    Args:
        start: of the weights: `he` or `pretrained`.
        rates: multiplier of the learning rate by what a parameter's name begins with; 0: frozen.
        class_weights: the power of the inverse number of images; 0: none.
        evaluations: after which steps validation is looked at.
        falls_after: the step from which on the rate goes down, where the schedule is `plateau`.
        kept_side: pixels of the square that images are kept at.
        fit: how they are brought to it.
        normalisation: mean and standard deviation of the input; None: as timm says.
        metric, score: what the study had on validation.
        tolerance: of that.
    """

    study: Study
    strategy: str
    seed: int
    start: str
    rates: Mapping[str, float]
    learning_rate: float
    weight_decay: float
    class_weights: float
    evaluations: Sequence[int]
    falls_after: int
    kept_side: int
    fit: str
    normalisation: tuple[Sequence[float], Sequence[float]] | None
    metric: str
    score: float
    tolerance: float


def snippet(of: Snippet) -> str:
    """Return a program that repeats a run from the folder of its images and from `split.csv` beside it."""
    lines = [*_head(of), *_images(of), *_model(of), *_optimizer(of), *_score(of), *_training(of)]
    return "\n".join(lines) + "\n"


def _head(of: Snippet) -> list[str]:
    words = of.metric.replace("_", " ")
    extra = ["import importlib.util"] if of.study.source.weights == "packaged" else []
    return [
        f'"""Repeats `{of.strategy}` of {of.study.name} (bench {__version__}): python recipe.py FOLDER',
        "",
        "FOLDER holds the images by the names in split.csv, which lies beside this file. Views and order are",
        f"drawn anew, so expect a validation {words} of {of.score:.3f} to within {of.tolerance:.2f}.",
        '"""',
        *("import csv", *extra, "import math", "import sys", "from pathlib import Path", ""),
        *("import timm", "import torch", "from PIL import Image, ImageOps", "from torch import nn"),
        *("from torchvision import transforms as T", ""),
    ]


def _images(of: Snippet) -> list[str]:
    side, kept = of.study.target.image_size, of.kept_side
    shown = f"T.CenterCrop({side})" if kept == stored_side(side) else f"T.Resize(({side}, {side}))"
    return [
        'device = "cuda" if torch.cuda.is_available() else "cpu"',
        f"torch.manual_seed({of.seed})",
        'rows = list(csv.DictReader(open(Path(__file__).with_name("split.csv"), encoding="utf-8")))',
        'classes = sorted({row["class"] for row in rows})',
        "",
        "def load(name):",
        '    image = ImageOps.exif_transpose(Image.open(Path(sys.argv[1]) / name)).convert("RGB")',
        f"    return {_square(of)}",
        "",
        "def part(name):",
        '    own = [row for row in rows if row["part"] == name]',
        '    labels = torch.tensor([classes.index(row["class"]) for row in own], device=device)',
        '    return [load(row["image"]) for row in own], labels',
        "",
        *_normalisation(of),
        f"augment = T.Compose([{', '.join(_augmentation(of.study.target.augmentation, side))}, *normalise])",
        f"show = T.Compose([{shown}, *normalise])",
        '(images, labels), (val_images, val_labels) = part("train"), part("val")',
        "val_inputs = torch.stack([show(image) for image in val_images])",
        "",
    ]


def _square(of: Snippet) -> str:
    """Return the expression that makes a square of `image`; see `data/decoding.py`."""
    size = f"({of.kept_side}, {of.kept_side}), Image.Resampling.BICUBIC"
    if of.fit == "pad":
        return f"ImageOps.pad(image, {size}, color=(128, 128, 128))"
    whole = "image" if of.fit == "stretch" else "T.CenterCrop(min(image.size))(image)"
    return f"{whole}.resize({size})"


def _normalisation(of: Snippet) -> list[str]:
    if of.normalisation is None:
        model = of.study.source.model.partition("/")[2]
        return [
            f'config = timm.get_pretrained_cfg("{model}")',
            "normalise = [T.ToTensor(), T.Normalize(config.mean, config.std)]",
        ]
    mean, std = (tuple(values) for values in of.normalisation)
    return [f"normalise = [T.ToTensor(), T.Normalize({mean}, {std})]"]


def _augmentation(augmentation: Augmentation, side: int) -> list[str]:
    a = augmentation
    found = [f"T.RandomResizedCrop({side}, {a.crop_scale}, {tuple(round(r, 4) for r in a.crop_ratio)})"]
    found += ["T.RandomHorizontalFlip()"] * a.horizontal_flip + ["T.RandomVerticalFlip()"] * a.vertical_flip
    found += [f"T.RandomRotation({a.rotation:g})"] * bool(a.rotation)
    if a.brightness or a.contrast or a.saturation:
        found.append(f"T.ColorJitter({a.brightness:g}, {a.contrast:g}, {a.saturation:g})")
    return found


def _model(of: Snippet) -> list[str]:
    side = of.study.target.image_size
    return [
        *_backbone(of),
        f"features = backbone.eval()(torch.zeros(2, 3, {side}, {side})).shape[1]",
        "head = nn.Linear(features, len(classes))",
        "nn.init.normal_(head.weight, std=0.01)",
        "nn.init.zeros_(head.bias)",
        f"dropout = nn.Dropout({of.study.head.dropout:g})",
        "model = nn.Sequential()",
        'for name, module in (("backbone", backbone), ("dropout", dropout), ("head", head)):',
        "    model.add_module(name, module)",
        "model.to(device)",
        "",
    ]


def _backbone(of: Snippet) -> list[str]:
    source = of.study.source
    name = source.model.partition("/")[2]
    fresh = f'timm.create_model("{name}", num_classes=0)'
    if of.start == "he":
        return [
            f"backbone = {fresh}",
            "for module in backbone.modules():",
            "    if isinstance(module, (nn.Conv2d, nn.Linear)):",
            '        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")',
            "        if module.bias is not None:",
            "            nn.init.zeros_(module.bias)",
        ]
    if source.weights == "default":
        return [f'backbone = timm.create_model("{name}", pretrained=True, num_classes=0)']
    if source.weights == "packaged":
        package = PACKAGED[source.model].distribution.replace("-", "_")
        return [
            f'package = Path(importlib.util.find_spec("{package}").origin).parent',
            'state = torch.load(next(package.rglob("*.pth")), weights_only=True)',
            f'backbone = timm.create_model("{name}")',
            "backbone.load_state_dict(dict(zip(backbone.state_dict(), state.values())))  # in this order",
            "backbone.reset_classifier(0)",
        ]
    return [
        f"backbone = {fresh}",
        f"timm.models.load_checkpoint(backbone, {source.weights!r}, strict=False)  # but for the classifier",
    ]


def _optimizer(of: Snippet) -> list[str]:
    training = of.study.training
    made = "torch.optim.AdamW(groups)"
    if training.optimizer == "sgd":
        momentum = training.momentum
        made = f"torch.optim.SGD(groups, lr=0, momentum={momentum:g}, nesterov={momentum > 0})"
    return [
        f"rates = {dict(of.rates)}  # times the learning rate; 0: frozen",
        "groups = []",
        "for name, parameter in model.named_parameters():",
        '    rate = next(r for begin, r in rates.items() if f"{name}.".startswith(f"{begin}."))',
        "    parameter.requires_grad_(rate > 0)",
        f"    decay = {of.weight_decay!r} if parameter.ndim > 1 else 0",
        f"    peak = {of.learning_rate!r} * rate",
        '    groups += [{"params": [parameter], "peak": peak, "weight_decay": decay}] if rate else []',
        f"optimizer = {made}",
        "",
        "def rate_at(step):",
        f"    return {_rate(training, of.evaluations[-1], of.falls_after, _whole(of))}",
        "",
    ]


def _whole(of: Snippet) -> int:
    """Return how many steps the run might have taken: its warm-up is a share of them."""
    if of.study.training.epochs or not of.study.training.evaluations:
        per_epoch = of.evaluations[0]
        return per_epoch * (of.study.training.epochs or 1)
    every = of.evaluations[0]
    return of.study.training.steps or every * of.study.training.evaluations


def _rate(training: Training, last: int, falls_after: int, whole: int) -> str:
    """Return the share of the peak rate as an expression of `step`; see `training/schedules.py`."""
    progress = f"(step + 0.5) / {last}"
    warm = training.warmup
    if training.schedule == "constant":
        return "1.0"
    if training.schedule == "step":
        return f"{training.step_factor:g} ** math.floor({progress} / {training.step_every:g})"
    if training.schedule == "plateau":
        rising = f"min(1, (step + 0.5) / {warm * whole:g})" if warm else "1"
        return f"{rising} * (1 - math.sqrt(max(0, (step + 0.5 - {falls_after}) / {last - falls_after})))"
    low, end = (1 / 25, 1e-4) if training.schedule == "one_cycle" else (0.0, 0.0)
    falling = f"{end:g} + {1 - end:g} * (1 + math.cos(math.pi * ({progress} - {warm:g}) / {1 - warm:g})) / 2"
    if not warm:
        return falling
    share = f"{progress} / {warm:g}"
    rising = f"{low:g} + {1 - low:g} * (1 - math.cos(math.pi * {share})) / 2" if low else share
    return f"{rising} if {progress} < {warm:g} else {falling}"


def _score(of: Snippet) -> list[str]:
    scored = "right.mean().item()"
    if of.metric == "balanced_accuracy":
        scored = "torch.stack([right[val_labels == c].mean() for c in val_labels.unique()]).mean().item()"
    return [
        "@torch.inference_mode()",
        "def score():",
        "    model.eval()",
        "    found = torch.cat([model(some.to(device)).argmax(1) for some in val_inputs.split(64)])",
        "    right = (found == val_labels).float()",
        f"    return {scored}",
        "",
    ]


def _training(of: Snippet) -> list[str]:
    training = of.study.training
    smoothing = f", label_smoothing={training.label_smoothing:g}" if training.label_smoothing else ""
    loss = f"nn.functional.cross_entropy(model(inputs), labels[batch]{smoothing})"
    weights = []
    if of.class_weights:
        weights = [f"weights = torch.bincount(labels).float() ** -{of.class_weights:g}"]
        weights += ["weights /= weights[labels].mean()"]
        plain = f'nn.functional.cross_entropy(model(inputs), labels[batch]{smoothing}, reduction="none")'
        loss = f"(weights[labels[batch]] * {plain}).mean()"
    clip = training.gradient_clip
    words = of.metric.replace("_", " ")
    return [
        *weights,
        "batches, best = [], 0.0",
        f"for step in range({of.evaluations[-1]}):",
        "    if not batches:",
        f"        batches = list(torch.randperm(len(images)).tensor_split({_batches(training)}))",
        "    batch = batches.pop()",
        "    model.train()",
        *_stay_in_eval_mode(of),
        "    for group in optimizer.param_groups:",
        '        group["lr"] = group["peak"] * rate_at(step)',
        "    inputs = torch.stack([augment(images[i]) for i in batch.tolist()]).to(device)",
        "    optimizer.zero_grad()",
        f"    {loss}.backward()",
        *[f"    nn.utils.clip_grad_norm_(model.parameters(), {clip})"] * (clip is not None),
        "    optimizer.step()",
        f"    if step + 1 in {list(of.evaluations)} and (found := score()) > best:",
        "        best = found",
        '        torch.save(model.state_dict(), "recipe.pt")',
        f'print(f"validation {words} {{best:.3f}}; the study had {of.score:.3f}")',
    ]


def _stay_in_eval_mode(of: Snippet) -> list[str]:
    """Keep BatchNorm's statistics, too, of what is frozen."""
    frozen = tuple(f"{begin}." for begin, rate in of.rates.items() if not rate)
    if not frozen:
        return []
    return [
        "    for name, module in model.named_modules():",
        f'        module.train(not f"{{name}}.".startswith({frozen}))',
    ]


def _batches(training: Training) -> str:
    """Return in how many batches an epoch goes through the images, as `batches_per_epoch` has it."""
    return f"max(1, min(-(-len(images) // {training.batch_size}), len(images) // 2))"
