"""Full and local attention, one function each, so that models never choose a kernel.

Heads are contiguous: head i of C channels is channels ``i * C / heads`` to ``(i + 1) * C / heads``. Keys and values need not
have the same number of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosformer.nn import onednn
from vosformer.nn.attention_cpu import attend_chunked, attend_in_tiles
from vosformer.nn.maps import Grid

_WHOLE = 2048  # places of a map up to which local attention may look at all pairs


def attend(q: Tensor, k: Tensor | Sequence[Tensor], v: Tensor | Sequence[Tensor], heads: int) -> Tensor:
    """Multi-head attention ``softmax(q k' / sqrt(d)) v`` (AOT Eq. 1, per head).

    Args:
        q: [S,N,C].
        k: [S,M,C], or the parts of it, whose M add up.
        v: [S,M,D], or its parts.
        heads: number of heads; divides C and D.

    Returns:
        [S,N,D].
    """
    if onednn.serves(q):
        return attend_chunked(q, [k] if isinstance(k, Tensor) else k, [v] if isinstance(v, Tensor) else v, heads)
    k = k if isinstance(k, Tensor) else torch.cat(list(k), 1)
    v = v if isinstance(v, Tensor) else torch.cat(list(v), 1)
    queries, keys, values = _split(q, heads), _split(k, heads), _split(v, heads)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        # In bf16, the fused kernel with its backward pass takes two to four times as long as plain products.
        out: Tensor = ((queries * queries.shape[-1] ** -0.5) @ keys.transpose(2, 3)).softmax(3).to(values.dtype) @ values
    else:
        out = F.scaled_dot_product_attention(queries, keys, values)
    return out.transpose(1, 2).flatten(2)


class Relative(NamedTuple):
    """What the offset between a place and its neighbor tells, learned.

    Attributes:
        weight: [heads,window**2,d], from a query (before it is scaled) to logits of the offsets; offsets row by row, the first one is
            (-(window // 2), -(window // 2)).
        bias: [heads,window**2], added to these logits.
        values: [heads,D/heads,window**2], added to the values; or none.
    """

    weight: Tensor
    bias: Tensor
    values: Tensor | None = None


def attend_locally(
    q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], relative: Relative, grid: Grid, window: int
) -> Tensor:
    """Attention of each place to a window around the same place in one or more other frames (AOT Eq. 6).

    The softmax runs over the windows of all frames together. Places outside the map take no part. The relative logits and values are
    the official code's; the paper has none.

    Args:
        q: [S,N,C] queries.
        keys: of each frame [S,N,C].
        values: of each frame [S,N,D].
        relative: the same for all frames.
        grid: of the map, N = h * w.
        window: side of the window, odd.

    Returns:
        [S,N,D].
    """
    if onednn.serves(q):
        return attend_in_tiles(q, keys, values, *relative, grid, window)
    if grid.tokens <= _WHOLE:
        return _attend_densely(q, keys, values, relative, grid, 0, window)
    # All pairs of places of a large map would fill a GPU's memory: a few rows at a time and what they can see.
    reach, step = window // 2, max(1, window // 2)
    parts = []
    for top in range(0, grid.height, step):
        rows = slice(top * grid.width, (top + step) * grid.width)
        first, last = max(0, top - reach), min(grid.height, top + step + reach)
        seen = slice(first * grid.width, last * grid.width)
        around = Grid(last - first, grid.width)
        near = [k[:, seen] for k in keys], [v[:, seen] for v in values]
        parts.append(_attend_densely(q[:, rows], *near, relative, around, top - first, window))
    return torch.cat(parts, 1)


def _attend_densely(
    q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], relative: Relative, grid: Grid, top: int, window: int
) -> Tensor:
    """`attend_locally` with the logits of all pairs; the queries are whole rows of the keys' `grid` from row `top` on."""
    heads = relative.weight.shape[0]
    slots, tokens = q.shape[0], q.shape[1]
    offsets, inside = _windows(grid, top, tokens // grid.width, window, q.device)
    queries = _split(q, heads)
    bias = queries @ relative.weight.transpose(1, 2) + relative.bias[:, None]
    # The last column of the padded bias is -inf: all places outside the window point there.
    dense = F.pad(bias, (0, 1), value=-torch.inf).gather(3, offsets.expand(slots, heads, tokens, grid.tokens))
    scaled = queries / (q.shape[2] // heads) ** 0.5
    logits = torch.cat([scaled @ _split(k, heads).transpose(2, 3) + dense for k in keys], 3)
    weights = logits.softmax(3)
    out = weights @ torch.cat([_split(v, heads) for v in values], 2).to(weights.dtype)
    if relative.values is not None:
        summed = weights.view(slots, heads, tokens, len(keys), grid.tokens).sum(3)
        # The inverse of `offsets`: for each offset the token it means; those outside read a column of zeros.
        band = F.pad(summed, (0, 1)).gather(3, inside.expand(slots, heads, tokens, window**2))
        out = out + band @ relative.values.transpose(1, 2).to(out.dtype)
    return out.transpose(1, 2).flatten(2)


def _split(x: Tensor, heads: int) -> Tensor:
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


@lru_cache(maxsize=16)
def _windows(grid: Grid, top: int, height: int, window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two int64 tables of the window around each of n places, which are `height` rows from row `top` on: the offset index [n,N] of
    each place of the map (window**2 if it is outside the window), and the token index [n,window**2] of each offset (N if it is
    outside the map).
    """
    with torch.inference_mode(False):
        reach = window // 2
        rows = torch.arange(grid.height).repeat_interleave(grid.width)
        columns = torch.arange(grid.width).repeat(grid.height)
        places = slice(top * grid.width, (top + height) * grid.width)
        down = rows[None] - rows[places, None] + reach
        right = columns[None] - columns[places, None] + reach
        near = (down >= 0) & (down < window) & (right >= 0) & (right < window)
        offsets = torch.where(near, down * window + right, window**2)
        steps = torch.arange(window) - reach
        to_row = rows[places, None] + steps.repeat_interleave(window)
        to_column = columns[places, None] + steps.repeat(window)
        valid = (to_row >= 0) & (to_row < grid.height) & (to_column >= 0) & (to_column < grid.width)
        inside = torch.where(valid, to_row * grid.width + to_column, grid.tokens)
        return offsets.to(device), inside.to(device)
