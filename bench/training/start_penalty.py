"""A pull of the weights towards where they started: L2-SP (Li, Grandvalet and Davoine 2018)."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from bench.models.factory import TransferModel


class StartPenalty:
    """The penalty strength / 2 times the squared distance of the backbone's weights from their start.

    The paper's equation 2 without its second term, which is the weight decay of the head. It stands in the
    place of the backbone's own weight decay, which would pull towards zero.

    Args:
        model: as it starts.
        strength: alpha of the paper.
    """

    def __init__(self, model: TransferModel, strength: float) -> None:
        self.strength = strength
        self._pairs = [(p, p.detach().clone()) for p in model.backbone.parameters()] if strength else []

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add the penalty's gradient, strength times (w - start), to that of all weights that have one."""
        trained: list[tuple[Tensor, Tensor, Tensor]] = [
            (p.grad, p, start) for p, start in self._pairs if p.grad is not None and p.requires_grad
        ]
        for gradient, weight, start in trained:
            gradient.add_(weight - start, alpha=self.strength)

    def replace_decay(self, optimizer: Optimizer, stages: int) -> None:
        """Take the weight decay of all `stages` stages away, where there is a penalty."""
        for group in optimizer.param_groups:
            if self.strength and group["stage"] < stages:
                group["weight_decay"] = 0.0
