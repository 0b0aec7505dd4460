"""Heads that give a class for every pixel: the decoder of U-Net, and the scores of FCN-32s upsampled."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.study.schema import Head

DECODER_CHANNELS = (256, 128, 64, 32, 16)  # from the deepest map up; of segmentation-models-pytorch
FCN_STRIDE, FCN_KERNEL, FCN_CROP = 32, 64, 19  # pixels; Long, Shelhamer and Darrell 2015


class UNet(nn.Module):
    """U-Net's way up (Ronneberger, Fischer and Brox 2015): maps of an encoder to logits (B, classes, S, S).

    The decoder is that of segmentation-models-pytorch: each block enlarges to the next map, joins it, and
    convolves twice; the last one enlarges to the image.

    Args:
        channels: of the maps, from the finest to the deepest.
        side: pixels, of the image.
    """

    def __init__(self, channels: Sequence[int], classes: int, settings: Head, side: int) -> None:
        super().__init__()
        from segmentation_models_pytorch.base import SegmentationHead, initialization
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        self.channels, self.side = tuple(channels), side
        widths = (settings.decoder_channels or DECODER_CHANNELS)[: len(channels)]
        deepest = settings.bottleneck or channels[-1]
        self.bottleneck = nn.Conv2d(channels[-1], deepest, 1) if settings.bottleneck else nn.Identity()
        self.decoder = UnetDecoder([0, *channels[:-1], deepest], widths, n_blocks=len(channels))
        self.dropout = nn.Dropout2d(settings.dropout)
        self.classifier = SegmentationHead(widths[-1], classes)
        initialization.initialize_decoder(nn.ModuleList([self.bottleneck, self.decoder]))
        initialization.initialize_head(self.classifier)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the logits."""
        *fine, deep = (
            value if value.shape[1] == channels else value.movedim(-1, 1)  # Swin's channels are last
            for value, channels in zip(maps, self.channels, strict=True)
        )
        image = deep.new_empty(1, 0, self.side, self.side)  # only its size is read
        decoded = self.decoder([image, *fine, self.bottleneck(deep)])
        logits: Tensor = self.classifier(self.dropout(decoded))
        return logits


class FCN32s(nn.Module):
    """Scores by a 1x1 convolution, enlarged 32 times, and cropped to the image: logits (B, classes, S, S).

    The scores start at zero, the transposed convolution as bilinear upsampling (Long, Shelhamer and Darrell
    2015, section 4.3).
    """

    def __init__(self, channels: int, classes: int, settings: Head, side: int) -> None:
        super().__init__()
        self.side = side
        self.dropout = nn.Dropout2d(settings.dropout)
        self.score = nn.Conv2d(channels, classes, 1)
        self.upscore = nn.ConvTranspose2d(classes, classes, FCN_KERNEL, FCN_STRIDE, bias=False)
        with torch.no_grad():
            for tensor in self.score.parameters():
                tensor.zero_()
            self.upscore.weight.copy_(bilinear(classes, FCN_KERNEL))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits."""
        scores: Tensor = self.upscore(self.score(self.dropout(features)))
        return scores[:, :, FCN_CROP : FCN_CROP + self.side, FCN_CROP : FCN_CROP + self.side]


def bilinear(channels: int, kernel: int) -> Tensor:
    """Return weights by which each channel is enlarged alone: shape (channels, channels, kernel, kernel).

    With a stride of half the kernel, a transposed convolution with these weights is bilinear interpolation.
    """
    factor = (kernel + 1) // 2
    centre = factor - 1 if kernel % 2 else factor - 0.5
    line = 1 - (torch.arange(kernel, dtype=torch.float32) - centre).abs() / factor
    weights = torch.zeros(channels, channels, kernel, kernel)
    weights[torch.arange(channels), torch.arange(channels)] = torch.outer(line, line)
    return weights
