"""Where architectures come from: timm and torchvision, behind one record each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from bench.core.errors import InputError, nearest
from bench.core.registry import Registry

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of the normalisation
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Library:
    """A source of architectures.

    Args:
        names: all classification models.
        tags: the weights that there are of a model, `<name>.<tag>`; none where names have no tags.
        create: (name, image side, with the library's default weights) to a model with its own classifier.
        strip: replaces the classifier by identity, in place: the model then gives pooled features.
        statistics: the input normalisation of a model's default weights.
    """

    name: str
    summary: str
    names: Callable[[], list[str]]
    tags: Callable[[str], list[str]]
    create: Callable[[str, int, bool], nn.Module]
    strip: Callable[[nn.Module], None]
    statistics: Callable[[str], Statistics]


LIBRARIES: Registry[Library] = Registry("model library")


def split_name(model: str) -> tuple[Library, str]:
    """Return library and model of `<library>/<name>`, or of `<library>/<name>.<tag>` where weights have tags.

    Raises:
        InputError: if there is no such model, or none with these weights.
    """
    library_name, _, name = model.partition("/")
    library = LIBRARIES.get_or_raise(library_name, "source.model")
    names = library.names()
    architecture, dot, _ = name.partition(".")
    if architecture not in names:
        raise InputError(f"{library_name} has no model '{name}'", "source.model", nearest(name, names))
    if dot and name not in (tags := library.tags(architecture)):
        what = f"{library_name} has no weights '{name}'"
        raise InputError(what, "source.model", nearest(name, [architecture, *tags]))
    return library, name


def _timm_names() -> list[str]:
    import timm

    return list(timm.list_models())


def _timm_tags(name: str) -> list[str]:
    import timm

    return [tagged for tagged in timm.models.get_arch_pretrained_cfgs(name) if "." in tagged]


def _timm_create(name: str, image_size: int, pretrained: bool) -> nn.Module:
    import timm

    config = timm.models.get_pretrained_cfg(name)
    fixed = bool(config and config.fixed_input_size)
    options: dict[str, Any] = {"img_size": image_size} if fixed else {}
    model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    return model


def _timm_strip(model: nn.Module) -> None:
    model.reset_classifier(0)  # type: ignore[operator]


def _timm_statistics(name: str) -> Statistics:
    import timm

    config = timm.models.get_pretrained_cfg(name)
    return (tuple(config.mean), tuple(config.std)) if config else IMAGENET


def _torchvision_names() -> list[str]:
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def _torchvision_create(name: str, image_size: int, pretrained: bool) -> nn.Module:
    import torchvision

    auxiliary = name in torchvision.models.list_models(module=torchvision.models, include="*inception*") or (
        name == "googlenet"
    )
    options = {"aux_logits": pretrained, "init_weights": False} if auxiliary else {}
    model: nn.Module = torchvision.models.get_model(
        name, weights="DEFAULT" if pretrained else None, **options
    )
    if auxiliary:
        model.aux_logits = False  # type: ignore[assignment]
    _resize_positions(model, image_size)
    return model


def _resize_positions(model: nn.Module, image_size: int) -> None:
    """Interpolate the position embedding of a torchvision ViT to another image side."""
    if getattr(model, "image_size", image_size) == image_size or not hasattr(model, "encoder"):
        return
    from torchvision.models.vision_transformer import interpolate_embeddings

    state = interpolate_embeddings(image_size, model.patch_size, model.state_dict())
    model.encoder.pos_embedding = nn.Parameter(state["encoder.pos_embedding"])  # type: ignore[union-attr]
    model.image_size = image_size  # type: ignore[assignment]
    model.seq_length = state["encoder.pos_embedding"].shape[1]


def _torchvision_strip(model: nn.Module) -> None:
    """Replace the last linear layer, or the 1x1 convolution of SqueezeNet, by identity."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and name.startswith("classifier"))
    ]
    names = [name for name in names if not name.startswith("aux") and not name.startswith("AuxLogits")]
    parent, _, leaf = names[-1].rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Identity())


def _torchvision_statistics(name: str) -> Statistics:
    import torchvision

    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return tuple(transforms.mean), tuple(transforms.std)


LIBRARIES.add(
    Library(
        "timm",
        "PyTorch Image Models",
        _timm_names,
        _timm_tags,
        _timm_create,
        _timm_strip,
        _timm_statistics,
    )
)
LIBRARIES.add(
    Library(
        "torchvision",
        "torchvision.models",
        _torchvision_names,
        lambda _name: [],
        _torchvision_create,
        _torchvision_strip,
        _torchvision_statistics,
    )
)
