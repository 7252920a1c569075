"""The FPN decoder of AOT, AOST and DeAOT: from propagated features at stride 16 to logits of all identities at stride 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn.conv import Conv2d
from vosformer.nn.maps import per_slot


class ConvGN(nn.Module):
    """Convolution with bias, group norm with 8 groups, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.gn = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gn(self.conv(x))
        return F.relu(out, inplace=True)


class FPN(nn.Module):
    """Feature pyramid decoder.

    Args:
        inputs: channels of the propagated features; several numbers give a first convolution each (AOST: one for each depth).
        outputs: channels of the logits, the background included.
        channels: C at stride 16; half of it is used at strides 8 and 4.
        shortcuts: channels of the encoder's maps at strides 4, 8 and 16.
        align_corners: of the bilinear upsampling.
    """

    def __init__(
        self, inputs: int | Sequence[int], outputs: int, channels: int, shortcuts: Sequence[int], align_corners: bool
    ) -> None:
        super().__init__()
        half = channels // 2
        self.align_corners = align_corners
        self.conv_in = (
            ConvGN(inputs, channels, 1)
            if isinstance(inputs, int)
            else nn.ModuleList([ConvGN(each, channels, 1) for each in inputs])
        )
        self.conv_16x = ConvGN(channels, channels, 3)
        self.conv_8x = ConvGN(channels, half, 3)
        self.conv_4x = ConvGN(half, half, 3)
        self.adapter_16x = Conv2d(shortcuts[2], channels, 1)
        self.adapter_8x = Conv2d(shortcuts[1], channels, 1)
        self.adapter_4x = Conv2d(shortcuts[0], half, 1)
        self.conv_out = Conv2d(half, outputs, 1)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, pyramid: Sequence[Tensor], index: int = 0) -> Tensor:
        """Decode.

        Args:
            x: [S,inputs,h,w] at stride 16.
            pyramid: the encoder's maps [B,C,h,w] at strides 4, 8, 16 (more are not looked at).
            index: which `conv_in` to use where there are several.

        Returns:
            [S,outputs,h,w] logits at stride 4.
        """
        slots = x.shape[0]
        f4, f8, f16 = pyramid[:3]
        conv_in = self.conv_in[index] if isinstance(self.conv_in, nn.ModuleList) else self.conv_in
        x = conv_in(x)
        x = self.conv_16x(per_slot(self.adapter_16x(f16), slots) + x)
        x = self._upsample(x, f8).add_(per_slot(self.adapter_8x(f8), slots))
        x = self.conv_8x(x)
        x = self._upsample(x, f4).add_(per_slot(self.adapter_4x(f4), slots))
        logits: Tensor = self.conv_out(self.conv_4x(x))
        return logits

    def _upsample(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=self.align_corners)
