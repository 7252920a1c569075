"""Products of tokens with weights, behind one function, so that models never choose a kernel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn import onednn
from vosformer.nn.onednn import Activation


def token_product(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """``activation(x @ weight.T + bias)``.

    Args:
        x: [...,C] tokens.
        weight: [D,C].
        bias: [D], or none.
        activation: applied to the result.

    Returns:
        [...,D].
    """
    if onednn.serves(x):
        return onednn.product(x, weight, bias, activation)
    return onednn.activate(F.linear(x, weight, bias), activation)


class TokenLinear(nn.Linear):
    """A linear layer on tokens [...,C] -> [...,D]."""

    def forward(self, input: Tensor, activation: Activation = "none", rows: slice | None = None) -> Tensor:
        """Compute ``activation(input @ weight.T + bias)``, or only those of its D channels that `rows` names."""
        if rows is None:
            return token_product(input, self.weight, self.bias, activation)
        return token_product(input, self.weight[rows], None if self.bias is None else self.bias[rows], activation)
