"""Batch norm with fixed statistics, and folding it into the convolution before it."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from vosformer.nn import onednn
from vosformer.nn.conv import Conv2d
from vosformer.nn.onednn import Activation

M = TypeVar("M", bound=nn.Module)


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

    def forward(self, x: Tensor, conv: nn.Module | None = None, activation: Activation = "none") -> Tensor:
        """Norm a map, or what a convolution makes of it: ``activation(norm(conv(x)))``, [B,C,h,w] -> [B,D,h',w'].

        With a convolution of ours (without bias) this is one call of it: scaling its weights is far cheaper than a pass over the map,
        and in a model from `for_inference` it is done once. Any other module, e.g. one that wraps a convolution, is called as it is.
        """
        if isinstance(conv, Conv2d) and conv.bias is None:
            out: Tensor = conv(x, activation, self._fold(conv.weight, x.dtype))
            return out
        x = x if conv is None else conv(x)
        scale, shift = self.affine()
        return onednn.activate(x * scale[:, None, None].to(x.dtype) + shift[:, None, None].to(x.dtype), activation)

    def _fold(self, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Make weight and bias of the convolution before with this norm in them."""
        if self.folded is not None and self.folded[0].dtype == dtype and not torch.is_grad_enabled():
            return self.folded
        scale, shift = self.affine()
        folded = weight * scale[:, None, None, None]
        if self.constant and not torch.is_grad_enabled():
            folded = folded.contiguous(memory_format=torch.channels_last)
            self.folded = (folded, shift)
        return folded, shift


def for_inference(model: M) -> M:
    """Make a model ready for inference: a copy that shares all weights, as they are now, and folds its frozen norms once.

    The weights must not change afterwards; make a new copy if they do. A model without frozen norms is returned as it is.
    """
    if not any(isinstance(module, FrozenBatchNorm2d) for module in model.modules()):
        return model
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    for module in twin.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.constant, module.folded = True, None
    return twin
