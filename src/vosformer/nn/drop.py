"""Stochastic depth (Huang et al. 2016), as AOT uses it on its self-attention and feed-forward branches."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, drop a residual branch for a whole sample with probability `rate`, and scale the kept ones by 1 / (1 - rate).

    Args:
        rate: in [0,1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[S,...] -> [S,...]."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(keep)
        return x * (kept / keep)
