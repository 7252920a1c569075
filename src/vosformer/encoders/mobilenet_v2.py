"""MobileNetV2 (Sandler et al. 2018) with output stride 16, as AOT uses it, or 32; parameter names are torchvision's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vosformer.nn.conv import Conv2d
from vosformer.nn.norm import FrozenBatchNorm2d

# (expansion, channels, blocks, stride, dilation of the first block, dilation of the others); at output stride 16 the stride of the
# stage with 160 channels is removed, and what follows is dilated instead.
_STAGES = (
    (1, 16, 1, 1, 1, 1),
    (6, 24, 2, 2, 1, 1),
    (6, 32, 3, 2, 1, 1),
    (6, 64, 4, 2, 1, 1),
    (6, 96, 3, 1, 1, 1),
    (6, 160, 3, 1, 1, 2),
    (6, 320, 1, 1, 2, 2),
)
_TAPS = (3, 6, 13, 18)


class ConvBN(nn.Sequential):
    """Convolution, frozen batch norm, ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> None:
        super().__init__(
            Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2 * dilation, dilation, groups, bias=False),
            FrozenBatchNorm2d(outputs),
        )

    def forward(self, input: Tensor) -> Tensor:
        conv, norm = self
        out: Tensor = norm(input, conv, "relu6")
        return out


class InvertedResidual(nn.Module):
    """Expand, depth-wise convolution, project; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, dilation: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [ConvBN(inputs, hidden, 1)] if expansion > 1 else []
        self.shortcut = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *widen,
            ConvBN(hidden, hidden, 3, stride, hidden, dilation),
            Conv2d(hidden, outputs, 1, bias=False),
            FrozenBatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        *inner, conv, norm = self.conv
        hidden = x
        for layer in inner:
            hidden = layer(hidden)
        out: Tensor = norm(hidden, conv)
        return out.add_(x) if self.shortcut else out


class MobileNetV2(nn.Module):
    """The encoder.

    Args:
        freeze_at: 0 trains all, 1 freezes the stem and the block of 16 channels, 2 (as released) those of 24 channels too, etc.
        output_stride: 16 (AOT), or 32 as in the network for ImageNet.

    Attributes:
        channels: of the four maps that `forward` returns.
    """

    channels = (24, 32, 96, 1280)

    def __init__(self, freeze_at: int = 2, output_stride: Literal[16, 32] = 16) -> None:
        super().__init__()
        blocks: list[nn.Module] = [ConvBN(3, 32, 3, 2)]
        ends = [1]
        inputs = 32
        for expansion, outputs, count, stride, first, others in _STAGES:
            if output_stride == 32:
                stride, first, others = 2 if outputs == 160 else stride, 1, 1
            for i in range(count):
                blocks.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, expansion, others if i else first))
                inputs = outputs
            ends.append(len(blocks))
        blocks.append(ConvBN(inputs, 1280, 1))
        self.features = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        for block in blocks[: ends[freeze_at] if freeze_at else 0]:
            block.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """[B,3,H,W] -> maps with 24, 32, 96 and 1280 channels at strides 4, 8, 16 and 16."""
        maps = []
        x = image.contiguous(memory_format=torch.channels_last)
        for index, block in enumerate(self.features):
            x = block(x)
            if index in _TAPS:
                maps.append(x)
        return tuple(maps)


def mobilenet_v2(freeze_at: int = 2) -> MobileNetV2:
    """MobileNetV2 with fresh weights; its first `freeze_at` stages are not trained."""
    return MobileNetV2(freeze_at)
