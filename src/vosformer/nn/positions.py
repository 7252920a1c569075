"""Positional embeddings of image tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vosformer.nn.graphs import kept_table
from vosformer.nn.maps import Grid


@kept_table(16)
def sine_positions(grid: Grid, channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the fixed 2-D sine embedding of DETR, as AOT uses it: half of the channels tell the row, half the column.

    A coordinate i of n is ``i / (n - 1 + 1e-6) * 2 pi``; even channels hold the sine, odd ones the cosine, temperature 10000.

    Args:
        grid: of the map.
        channels: C, divisible by 4.
        device: where the result lives.
        dtype: of the result.

    Returns:
        [1,N,C].
    """
    half = channels // 2
    rates = 10000 ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)
    codes = []
    for length in grid:
        angles = torch.arange(length, dtype=torch.float32) / (length - 1 + 1e-6) * (2 * math.pi)
        angles = angles[:, None] / rates
        codes.append(torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], 2).flatten(1))
    rows = codes[0][:, None].expand(grid.height, grid.width, half)
    columns = codes[1][None].expand(grid.height, grid.width, half)
    return torch.cat([rows, columns], 2).reshape(1, grid.tokens, channels).to(device, dtype)
