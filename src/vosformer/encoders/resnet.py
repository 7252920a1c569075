"""ResNet (He et al., CVPR 2016) without its fourth stage, as AOT, DeAOT and AOST use it at stride 16.

The names of the tensors are torchvision's; the stride of a bottleneck sits in its 3x3 convolution. Shapes: B images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn.conv import Conv2d
from vosformer.nn.norm import FrozenBatchNorm2d


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with a residual connection; the output is 4 times as wide as the middle.

    Args:
        inputs: channels that come in.
        width: channels of the 3x3 convolution.
        stride: of the 3x3 convolution.
    """

    downsample: nn.Sequential | None

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(inputs, width, 1, bias=False)
        self.bn1 = FrozenBatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm2d(width)
        self.conv3 = Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = FrozenBatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            shortcut = Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, FrozenBatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,4*width,h/stride,w/stride]."""
        shortcut = x if self.downsample is None else self.downsample[1](x, self.downsample[0])
        x = self.bn1(x, self.conv1, "relu")
        x = self.bn2(x, self.conv2, "relu")
        return F.relu(self.bn3(x, self.conv3).add_(shortcut), inplace=True)


class ResNet(nn.Module):
    """The encoder: stem and three stages at strides 4, 8 and 16, all batch norms frozen.

    Args:
        width: channels of the stem.
        depths: blocks of each stage.
        freeze_at: 0 trains all, 1 freezes the stem, 2 (as released) also the first stage, and so on.

    Attributes:
        channels: of the four outputs.
    """

    def __init__(self, width: int = 64, depths: Sequence[int] = (3, 4, 6), freeze_at: int = 2) -> None:
        super().__init__()
        self.channels = (4 * width, 8 * width, 16 * width, 16 * width)
        self.conv1 = Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm2d(width)
        self.layer1 = _stage(width, width, depths[0], 1)
        self.layer2 = _stage(4 * width, 2 * width, depths[1], 2)
        self.layer3 = _stage(8 * width, 4 * width, depths[2], 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for part in (self.conv1, self.layer1, self.layer2, self.layer3)[:freeze_at]:
            part.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode images.

        Args:
            image: [B,3,H,W], normalized.

        Returns:
            [B,4C,H/4,W/4], [B,8C,H/8,W/8], [B,16C,H/16,W/16] and the last one again, sides rounded up; channels_last in memory.
        """
        x = self.bn1(image.contiguous(memory_format=torch.channels_last), self.conv1, "relu")
        f4: Tensor = self.layer1(F.max_pool2d(x, 3, 2, padding=1))
        f8: Tensor = self.layer2(f4)
        f16: Tensor = self.layer3(f8)
        return f4, f8, f16, f16


def resnet50(freeze_at: int = 2) -> ResNet:
    """ResNet-50 up to stride 16."""
    return ResNet(freeze_at=freeze_at)


def _stage(inputs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    blocks = [Bottleneck(inputs, width, stride)]
    blocks += [Bottleneck(4 * width, width, 1) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)
