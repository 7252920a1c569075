"""EfficientNet-Lite1 (the EfficientNet of Tan and Le 2019 without squeeze-excitation, with ReLU6), output stride 16.

Parameter names are those of the widespread PyTorch port (`_blocks.3._depthwise_conv`). Padding is symmetric, not TensorFlow's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vosformer.geometry import MEAN, STD
from vosformer.nn.conv import Conv2d
from vosformer.nn.norm import FrozenBatchNorm2d

# (blocks, channels, stride, expansion, kernel); at output stride 16 the stride of the stage with 192 channels is removed, and what
# follows is dilated instead, as in our MobileNetV2.
_STAGES = (
    (1, 16, 1, 1, 3),
    (3, 24, 2, 6, 3),
    (3, 40, 2, 6, 5),
    (4, 80, 2, 6, 3),
    (4, 112, 1, 6, 5),
    (5, 192, 1, 6, 5),
    (1, 320, 1, 6, 3),
)
_TAPS = (3, 6, 14)
_EPS = 1e-3
_MEAN, _STD = 0.498, 0.502  # of the pictures that it was trained on; ours come normalized with ImageNet's


class MBConv(nn.Module):
    """Expand, depth-wise convolution, project; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, kernel: int, dilation: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = FrozenBatchNorm2d(hidden, _EPS)
        padding = kernel // 2 * dilation
        self._depthwise_conv = Conv2d(hidden, hidden, kernel, stride, padding, dilation, hidden, bias=False)
        self._bn1 = FrozenBatchNorm2d(hidden, _EPS)
        self._project_conv = Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = FrozenBatchNorm2d(outputs, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self._bn0(x, self._expand_conv, "relu6") if self.expands else x
        hidden = self._bn1(hidden, self._depthwise_conv, "relu6")
        out: Tensor = self._bn2(hidden, self._project_conv)
        return out.add_(x) if self.shortcut else out


class EfficientNetLite1(nn.Module):
    """The encoder.

    Args:
        freeze_at: 0 trains all, 1 freezes the stem and the block of 16 channels, 2 those of 24 channels too, etc.

    Attributes:
        channels: of the four maps that `forward` returns.
    """

    channels = (24, 40, 112, 1280)
    scale: Tensor
    shift: Tensor

    def __init__(self, freeze_at: int = 2) -> None:
        super().__init__()
        self._conv_stem = Conv2d(3, 32, 3, 2, 1, bias=False)
        self._bn0 = FrozenBatchNorm2d(32, _EPS)
        blocks: list[MBConv] = []
        ends = []
        inputs = 32
        for count, outputs, stride, expansion, kernel in _STAGES:
            for i in range(count):
                # The removed stride would have come with the first block of 192 channels, which still sees a grid without it.
                dilation = 2 if outputs == 320 or (outputs == 192 and i > 0) else 1
                blocks.append(MBConv(inputs, outputs, stride if i == 0 else 1, expansion, kernel, dilation))
                inputs = outputs
            ends.append(len(blocks))
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = Conv2d(inputs, 1280, 1, bias=False)
        self._bn1 = FrozenBatchNorm2d(1280, _EPS)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        scale = torch.tensor(STD) / _STD
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((torch.tensor(MEAN) - _MEAN) / _STD).view(3, 1, 1), persistent=False)
        if freeze_at:
            for part in (self._conv_stem, *blocks[: ends[freeze_at - 1]]):
                part.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """[B,3,H,W] -> maps with 24, 40, 112 and 1280 channels at strides 4, 8, 16 and 16."""
        image = image * self.scale + self.shift
        x = self._bn0(image.contiguous(memory_format=torch.channels_last), self._conv_stem, "relu6")
        maps = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in _TAPS:
                maps.append(x)
        maps.append(self._bn1(x, self._conv_head, "relu6"))
        return tuple(maps)
