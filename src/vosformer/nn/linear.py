"""Products of tokens with weights, behind one function, so that models never choose a kernel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def token_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``.

    Args:
        x: [...,C] tokens.
        weight: [D,C].
        bias: [D], or none.

    Returns:
        [...,D].
    """
    return F.linear(x, weight, bias)


class TokenLinear(nn.Linear):
    """A linear layer on tokens [...,C] -> [...,D]."""

    def forward(self, input: Tensor) -> Tensor:
        return token_product(input, self.weight, self.bias)
