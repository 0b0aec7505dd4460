"""He initialisation, as the field defines it."""

import torch
from torch import nn

NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)  # noqa: SLF001


@torch.no_grad()
def he_initialise(model: nn.Module) -> None:
    """Initialise in place: `kaiming_normal_` on convolutions and linear layers, weight 1 and bias 0 on norms.

    Fan-in, so that the variance of the forward signal is kept (He et al. 2015, equation 10); unlike fan-out,
    it is right for depthwise convolutions too. Running statistics are reset. What has no rule here (class
    token, position embedding, layer scale) keeps the fresh value of its library's own initialisation.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):  # noqa: SLF001
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, NORMALISATIONS):
            if module.weight is not None:
                nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.modules.batchnorm._NormBase):  # noqa: SLF001
                module.reset_running_stats()
