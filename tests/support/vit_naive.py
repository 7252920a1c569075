"""A vision transformer spelled out, to hold the real one against: no shared code, no caching, explicit softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def norm(layer: Any, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(var + layer.eps) * layer.weight + layer.bias


def linear(layer: Any, x: Tensor) -> Tensor:
    return torch.einsum("...c,dc->...d", x, layer.weight) + layer.bias


def projections(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[M,C] -> q, k, v [heads,M,d]."""
    out = linear(block.attn.qkv, norm(block.norm1, x)).view(len(x), 3, block.heads, -1)
    return tuple(out[:, i].transpose(0, 1) for i in range(3))  # type: ignore[return-value]


def softmax(scores: Tensor) -> Tensor:
    weights = torch.exp(scores)
    return weights / weights.sum(-1, keepdim=True)


def attention(q: Tensor, k: Tensor, v: Tensor, first: int = 0, keep: int | None = None) -> Tensor:
    """[heads,n,d] queries to [heads,m,d] keys -> [n,C]; of the first `first` keys each query keeps its `keep` best."""
    heads = []
    for h in range(len(q)):
        scores = q[h] @ k[h].T / q.shape[2] ** 0.5
        weights = torch.exp(scores)
        if keep is not None:
            for row in range(len(weights)):
                order = scores[row, :first].argsort(descending=True)
                weights[row, order[keep:]] = 0
        heads.append(weights / weights.sum(1, keepdim=True) @ v[h])
    return torch.cat(heads, 1)


def finish(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    x = x + linear(block.attn.proj, attended)
    hidden = linear(block.mlp.fc1, norm(block.norm2, x))
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return x + linear(block.mlp.fc2, hidden)


def self_attention(block: Any, x: Tensor) -> Tensor:
    return finish(block, x, attention(*projections(block, x)))


def patches(conv: Any, image: Tensor, side: int = 16) -> Tensor:
    """Flattened patches times a matrix: [Cin,H,W] -> [N,C]."""
    channels, height, width = image.shape
    rows = []
    for y in range(0, height, side):
        for x in range(0, width, side):
            rows.append(image[:, y : y + side, x : x + side].reshape(-1))
    return torch.stack(rows) @ conv.weight.reshape(conv.weight.shape[0], channels * side * side).T + conv.bias
