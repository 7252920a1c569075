"""A very small encoder with the same four outputs as the real ones, for tests and for trying things out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TinyEncoder(nn.Module):
    """Four 3x3 convolutions with stride 2, then one without.

    Attributes:
        channels: of the four maps that `forward` returns.
    """

    channels = (8, 12, 16, 24)

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, 8, 8, 12, 16)
        outputs = (8, 8, 12, 16, 24)
        strides = (2, 2, 2, 2, 1)
        self.convs = nn.ModuleList([nn.Conv2d(i, o, 3, s, padding=1) for i, o, s in zip(inputs, outputs, strides, strict=True)])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """[B,3,H,W] -> maps with 8, 12, 16 and 24 channels at strides 4, 8, 16 and 16."""
        x = image.contiguous(memory_format=torch.channels_last)
        maps = []
        for conv in self.convs:
            x = F.relu(conv(x))
            maps.append(x)
        return tuple(maps[1:])
