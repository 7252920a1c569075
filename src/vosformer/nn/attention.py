"""Full and local attention, one function each, so that models never choose a kernel.

Heads are contiguous: head i of C channels is channels ``i * C / heads`` to ``(i + 1) * C / heads``. Keys and values need not
have the same number of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosformer.nn import onednn
from vosformer.nn.attention_cpu import attend_chunked, attend_in_tiles
from vosformer.nn.attention_tiles import attend_by_tiles
from vosformer.nn.graphs import kept_table, making_graph
from vosformer.nn.maps import Grid

_WHOLE = 2048  # positions of a map up to which local attention may look at all pairs


def attend(
    q: Tensor, k: Tensor | Sequence[Tensor], v: Tensor | Sequence[Tensor], heads: int, gate: Tensor | None = None
) -> Tensor:
    """Multi-head attention ``softmax(q k' / sqrt(d)) v`` (AOT Eq. 1, per head).

    With gates g the weights are ``g exp(s) / sum(g exp(s))`` (as in DynamicViT).

    Args:
        q: [S,N,C].
        k: [S,M,C], or the parts of it, whose M add up.
        v: [S,M,D], or its parts.
        heads: number of heads; divides C and D.
        gate: [S,M,1] in [0,1] for all parts: how much each key counts; None = all count. See `join_gates`.

    Returns:
        [S,N,D].
    """
    if gate is not None:
        return _attend_gated(q, k, v, heads, gate)
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


def join_gates(parts: Sequence[tuple[Tensor | None, Tensor]]) -> Tensor | None:
    """Join the gates of parts of a memory: pairs of [S,M,1] (None = open) and the keys [S,M,C]; None if all are open."""
    if all(gate is None for gate, _ in parts):
        return None
    return torch.cat([torch.ones_like(key[..., :1]) if gate is None else gate for gate, key in parts], 1)


def _attend_gated(q: Tensor, k: Tensor | Sequence[Tensor], v: Tensor | Sequence[Tensor], heads: int, gate: Tensor) -> Tensor:
    """Attention with gates. The gate travels as one more channel of queries and keys, whose product is log(g): any fused kernel
    computes it, nothing of the size of the score matrix is held, and gradients reach the gates, closed ones too.
    """
    queries, keys, values = (_split(x if isinstance(x, Tensor) else torch.cat(list(x), 1), heads) for x in (q, k, v))
    channels, width = queries.shape[3], values.shape[3]
    # Under autograd a closed gate needs a finite logarithm for its gradient; else it is shut for good.
    bias = torch.log(gate.float() + (1e-6 if gate.requires_grad else 1e-30)).to(q.dtype)
    if making_graph():
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.transpose(1, 2)[:, None])
        return out.transpose(1, 2).flatten(2)
    ones = q.new_full((), channels**0.5).expand(*queries.shape[:-1], 1)
    pad = 8  # fused kernels want multiples of 8 channels
    queries = F.pad(torch.cat([queries, ones], 3), (0, pad - 1))
    keys = F.pad(torch.cat([keys, bias[:, None].expand(-1, heads, -1, -1)], 3), (0, pad - 1))
    values = F.pad(values, (0, max(channels + pad - width, 0)))
    out = F.scaled_dot_product_attention(queries, keys, values, scale=channels**-0.5)
    return out[..., :width].transpose(1, 2).flatten(2)


class Relative(NamedTuple):
    """What the offset between a position and its neighbor tells, learned.

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
    """Attention of each position to a window around the same position in one or more other frames (AOT Eq. 6).

    The softmax runs over the windows of all frames together. Positions outside the map take no part. The relative logits and
    values are the official code's; the paper has none.

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
    if making_graph():
        return attend_by_tiles(q, keys, values, *relative, grid, window)
    if grid.tokens <= _WHOLE:
        return _attend_densely(q, keys, values, relative, grid, 0, window)
    # All pairs of positions of a large map would fill a GPU's memory: a few rows at a time and what they can see.
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
    # The last column of the padded bias is -inf: all positions outside the window point there.
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


@kept_table(16)
def _windows(grid: Grid, top: int, height: int, window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two int64 tables of the window around each of n positions, which are `height` rows from row `top` on: the offset index [n,N] of
    each position of the map (window**2 if it is outside the window), and the token index [n,window**2] of each offset (N if it is
    outside the map).
    """
    reach = window // 2
    rows = torch.arange(grid.height).repeat_interleave(grid.width)
    columns = torch.arange(grid.width).repeat(grid.height)
    positions = slice(top * grid.width, (top + height) * grid.width)
    down = rows[None] - rows[positions, None] + reach
    right = columns[None] - columns[positions, None] + reach
    near = (down >= 0) & (down < window) & (right >= 0) & (right < window)
    offsets = torch.where(near, down * window + right, window**2)
    steps = torch.arange(window) - reach
    to_row = rows[positions, None] + steps.repeat_interleave(window)
    to_column = columns[positions, None] + steps.repeat(window)
    valid = (to_row >= 0) & (to_row < grid.height) & (to_column >= 0) & (to_column < grid.width)
    inside = torch.where(valid, to_row * grid.width + to_column, grid.tokens)
    return offsets.to(device), inside.to(device)
