"""The forms of attention that are fastest for inference on a CPU; same results as those in `attention.py`.

Scores never leave the cache: full attention goes through chunks of queries, local attention through small tiles of the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vosformer.nn import onednn
from vosformer.nn.graphs import kept_table
from vosformer.nn.maps import Grid

_SCORES = 5 << 20  # bytes of the scores of one chunk: they stay in the caches, and few chunks pack keys and values again
_TILE = Grid(4, 18)
_OUTSIDE = -1e30  # finite in bf16, too


def attend_chunked(q: Tensor, k: Sequence[Tensor], v: Sequence[Tensor], heads: int) -> Tensor:
    """Full attention, head by head and chunk by chunk: see `attention.attend`. The parts of k and v are joined on the way."""
    slots, tokens, channels = q.shape
    d, e = channels // heads, v[0].shape[2] // heads
    chunks = math.ceil(tokens * sum(part.shape[1] for part in k) * q.element_size() / _SCORES)
    rows = max(128, math.ceil(tokens / chunks))
    out = v[0].new_empty(slots, tokens, heads * e)
    for s in range(slots):
        for h in range(heads):
            queries = q[s, :, h * d : (h + 1) * d] * d**-0.5
            keys = _joined([part[s, :, h * d : (h + 1) * d] for part in k])
            values = _joined([part[s, :, h * e : (h + 1) * e] for part in v]).t()
            for start in range(0, tokens, rows):
                weights = onednn.product(queries[start : start + rows], keys, None).softmax(1)
                out[s, start : start + rows, h * e : (h + 1) * e] = onednn.product(weights, values, None)
    return out


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0].contiguous()


def attend_in_tiles(
    q: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    relative_values: Tensor | None,
    grid: Grid,
    window: int,
) -> Tensor:
    """Local attention, tile by tile: see `attention.attend_locally`.

    The queries of a tile meet all keys of the tile's surroundings in one product, although each needs only its own window. Seen with
    the right strides, the windows are a dense band of the scores: they are read, and the weights written back, through such a view.
    """
    slots, _, channels = q.shape
    heads, reach = weight.shape[0], window // 2
    d, e = channels // heads, values[0].shape[2] // heads
    tile = Grid(min(_TILE.height, grid.height), min(_TILE.width, grid.width))
    around = Grid(tile.height + 2 * reach, tile.width + 2 * reach)
    band = _Band(heads, tile, around, window)
    outside = _outside(grid, window, q.dtype)
    queries = (q * d**-0.5).view(slots, *grid, heads, d).permute(0, 3, 1, 2, 4)
    wide_keys = [_by_head(k, grid, heads, reach) for k in keys]
    wide_values = [_by_head(v, grid, heads, reach) for v in values]
    weight = weight * d**0.5  # the relative logits come from the query before it was scaled
    values_by_offset = None if relative_values is None else relative_values.transpose(1, 2).contiguous()
    out = q.new_empty(slots, *grid, heads, e)
    bands = q.new_empty(heads, tile.tokens, len(keys), window**2)
    spread = q.new_zeros(heads, tile.tokens, around.tokens)
    corners = [(y, x) for y in _starts(grid.height, tile.height) for x in _starts(grid.width, tile.width)]
    for s, (y, x) in ((s, corner) for s in range(slots) for corner in corners):
        rows, columns = slice(y, y + tile.height), slice(x, x + tile.width)
        patch = (s, slice(None), slice(y, y + around.height), slice(x, x + around.width))
        asked = queries[s, :, rows, columns].reshape(heads, tile.tokens, d)
        relative = _product(asked, weight, bias).view(band.shape).add_(outside[rows, columns])
        for f, wide in enumerate(wide_keys):
            scores = _product(asked, wide[patch].reshape(heads, around.tokens, d))
            # In bf16, adding straight from the band takes three times as long: its rows are too short for the vector units.
            bands[:, :, f].view(band.shape).copy_(band.of(scores)).add_(relative)
        weights = bands.flatten(2).softmax(2).view_as(bands)
        if values_by_offset is None:
            found = q.new_zeros(heads, tile.tokens, e)
        else:
            found = torch.bmm(weights.sum(2) if len(keys) > 1 else weights[:, :, 0], values_by_offset)
        for f, wide in enumerate(wide_values):
            band.of(spread).copy_(weights[:, :, f].view(band.shape))
            found.add_(_product(spread, wide[patch].reshape(heads, around.tokens, e).transpose(1, 2)))
        out[s, rows, columns] = found.view(heads, *tile, e).permute(1, 2, 0, 3)
    return out.view(slots, grid.tokens, heads * e)


class _Band:
    """The windows of a tile's queries, as a view of their scores with all keys around."""

    def __init__(self, heads: int, tile: Grid, around: Grid, window: int) -> None:
        self.shape = (heads, tile.height, tile.width, window, window)
        keys = around.tokens
        self._strides = (tile.tokens * keys, tile.width * keys + around.width, keys + 1, around.width, 1)

    def of(self, scores: Tensor) -> Tensor:
        """[heads,tile,around] -> [heads,y,x,window,window], a view."""
        return scores.as_strided(self.shape, self._strides)


def _starts(length: int, step: int) -> list[int]:
    """Return where tiles begin; the last one ends at the edge, and may overlap its neighbor."""
    return [min(start, length - step) for start in range(0, length, step)]


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``a @ b' + bias`` for each head: [heads,n,d], [heads,m,d], [heads,m] -> [heads,n,m]."""
    if a.shape[0] == 1:
        return onednn.product(a[0], b[0], None if bias is None else bias[0])[None]
    return torch.bmm(a, b.transpose(1, 2)) if bias is None else torch.baddbmm(bias[:, None], a, b.transpose(1, 2))


def _by_head(x: Tensor, grid: Grid, heads: int, reach: int) -> Tensor:
    """[S,N,C] -> [S,heads,h+2*reach,w+2*reach,C/heads], zeros around."""
    wide = F.pad(x.reshape(x.shape[0], *grid, x.shape[2]), (0, 0, reach, reach, reach, reach))
    return wide.view(*wide.shape[:3], heads, -1).permute(0, 3, 1, 2, 4)


@kept_table(8)
def _outside(grid: Grid, window: int, dtype: torch.dtype) -> Tensor:
    """[h,w,window,window]: 0, or a very negative number where the window leaves the map."""
    steps = torch.arange(window) - window // 2
    inside = [
        (torch.arange(length)[:, None] + steps >= 0) & (torch.arange(length)[:, None] + steps < length) for length in grid
    ]
    both = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    return torch.zeros(both.shape, dtype=dtype).masked_fill_(~both, _OUTSIDE)
