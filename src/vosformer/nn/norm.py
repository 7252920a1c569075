"""Normalisation: batch norm with fixed statistics."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn.depthwise import depthwise


class FrozenBatchNorm2d(nn.Module):
    """Batch norm in its inference form, with fixed statistics and a fixed affine part; all four are buffers.

    Every system keeps the batch norms of its pretrained encoder frozen, in training too. The names are those of the official
    checkpoints; there is no `num_batches_tracked`.

    Args:
        channels: C.
        eps: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift [C] so that the output is ``x * scale + shift``."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,C,h,w]."""
        scale, shift = self.affine()
        return x * scale[:, None, None].to(x.dtype) + shift[:, None, None].to(x.dtype)


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> Tensor:
    """Convolution (without bias) and frozen norm in one: scaling the weights is far cheaper than a pass over the map."""
    scale, shift = norm.affine()
    if conv.groups == conv.in_channels > 1:
        weight = conv.weight * scale[:, None, None, None]
        return depthwise(x, weight, shift, conv.stride[0], int(conv.padding[0]), conv.dilation[0])
    return F.conv2d(x, conv.weight * scale[:, None, None, None], shift, conv.stride, conv.padding, conv.dilation, conv.groups)
