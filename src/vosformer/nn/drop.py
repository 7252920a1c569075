"""Stochastic depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): in training, a sample loses this branch with probability `rate`; the branches that
    stay are scaled so that the expectation is kept.

    Args:
        rate: in [0,1).
        dim: the dimension of the samples.
    """

    def __init__(self, rate: float = 0.0, dim: int = 0) -> None:
        super().__init__()
        self.rate = rate
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """The branch, any shape -> the same shape."""
        if not self.training or self.rate == 0:
            return x
        shape = [1] * x.ndim
        shape[self.dim] = x.shape[self.dim]
        keep = 1 - self.rate
        return x * torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(keep) / keep

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"
