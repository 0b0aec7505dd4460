"""Run a backbone up to the end of its frozen prefix, or from there on, without rewriting its `forward`.

Up to: the forward pass is left as soon as the prefix's last module has put out its value.
From there on: the prefix's modules are replaced; the last one hands out the stored value, the others NaN of
the right shape, so that whatever the model does between its modules is cheap, and shows if it matters.
Whether that gives what the whole model gives is measured on a batch, never assumed (`is_resumable`): a
network that reads an earlier output again, behind the prefix, is run through.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.stages import Stage


class _Left(Exception):  # noqa: N818 - control flow, not an error
    def __init__(self, value: Tensor) -> None:
        self.value = value


class _Stub(nn.Module):
    """Stands for a module of the prefix; `value` is what it puts out."""

    value: Tensor | None = None

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, inputs: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        if self.value is not None:
            return self.value
        return inputs.new_full((inputs.shape[0], *self.shape[1:]), float("nan"))


class Prefix(nn.Module):
    """A backbone up to a module, from images (B, 3, H, W) to what that module puts out."""

    def __init__(self, backbone: nn.Module, last: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.last = last

    def forward(self, images: Tensor) -> Tensor:
        """Return what the last module puts out for the images."""

        def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
            raise _Left(output)

        handle = self.backbone.get_submodule(self.last).register_forward_hook(leave)
        try:
            self.backbone(images)
        except _Left as left:
            return left.value
        finally:
            handle.remove()
        raise RuntimeError(f"the forward pass never reached {self.last}")


class Suffix(nn.Module):
    """What stands behind the prefix, from its output to the backbone's features.

    The modules behind the prefix are the backbone's own, so training this trains the backbone.

    Args:
        backbone: the whole model.
        stages: the stages of the prefix.
        example: a batch of images, to record the shapes within the prefix.
        exit_at: the module whose output is wanted; None for the backbone's own output.
    """

    def __init__(
        self, backbone: nn.Module, stages: Sequence[Stage], example: Tensor, exit_at: str | None = None
    ) -> None:
        super().__init__()
        names = [name for stage in stages for name in stage.modules]
        shapes = _output_shapes(backbone, names, example)
        self.resumed = _shallow_copy(backbone, names)
        self.image_shape = example.shape[1:]
        for name in names:
            parent, _, leaf = name.rpartition(".")
            self.resumed.get_submodule(parent)._modules[leaf] = _Stub(shapes[name])  # noqa: SLF001
        self.run = Prefix(self.resumed, exit_at) if exit_at else self.resumed
        # in a list, so that it is not registered a second time
        self._entry: list[Any] = [self.resumed.get_submodule(names[-1])]

    def forward(self, value: Tensor) -> Tensor:
        """Return the backbone's features, given what the prefix put out."""
        stub = self._entry[0]
        images = torch.zeros((), device=value.device).expand(value.shape[0], *self.image_shape)
        stub.value = value
        try:
            result: Tensor = self.run(images)
            return result
        finally:
            stub.value = None


def _output_shapes(backbone: nn.Module, names: Sequence[str], example: Tensor) -> dict[str, torch.Size]:
    shapes: dict[str, torch.Size] = {}

    def record(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            shapes[name] = output.shape

        return backbone.get_submodule(name).register_forward_hook(hook)

    handles = [record(name) for name in names]
    try:
        with torch.no_grad():
            backbone(example)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _shallow_copy(backbone: nn.Module, replaced: Sequence[str]) -> nn.Module:
    """Copy the containers on the way to the replaced modules; everything else is shared, not copied."""
    root = copy.copy(backbone)
    root._modules = dict(backbone._modules)  # noqa: SLF001
    copied = {""}
    for name in replaced:
        parts = name.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            path = ".".join(parts[:depth])
            if path in copied:
                continue
            copied.add(path)
            parent = root.get_submodule(".".join(parts[: depth - 1]))
            child = copy.copy(parent._modules[parts[depth - 1]])  # noqa: SLF001
            assert child is not None
            child._modules = dict(child._modules)  # noqa: SLF001
            parent._modules[parts[depth - 1]] = child  # noqa: SLF001
    return root


@torch.no_grad()
def is_resumable(
    backbone: nn.Module, stages: Sequence[Stage], example: Tensor, exit_at: str | None = None
) -> bool:
    """Return whether prefix then suffix gives what the whole backbone gives, in eval mode."""
    training = backbone.training
    backbone.eval()
    try:
        value = Prefix(backbone, stages[-1].modules[-1])(example)
        if not isinstance(value, Tensor) or value.shape[0] != example.shape[0]:
            return False
        resumed = Suffix(backbone, stages, example, exit_at)(value.clone())
        whole = Prefix(backbone, exit_at)(example) if exit_at else backbone(example)
        return torch.allclose(resumed, whole, rtol=1e-4, atol=1e-5)
    except Exception:  # noqa: BLE001 - any failure means: run through the prefix instead
        return False
    finally:
        backbone.train(training)
