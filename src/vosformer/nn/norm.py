"""Normalisation: batch norm with fixed statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch norm in its inference form, with fixed statistics and a fixed affine part; all four are buffers.

    Every system keeps the batch norms of its pretrained encoder frozen, in training too. The names are those of the official
    checkpoints; there is no `num_batches_tracked`.

    Args:
        channels: C.
        eps: added to the variance.

    Attributes:
        constant: the weights will not change any more, so that a convolution may keep what this norm makes of it.
        folded: what it kept: its weight and bias with this norm in them.
    """

    constant = False
    folded: tuple[Tensor, Tensor] | None = None
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
