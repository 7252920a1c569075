"""Local attention of plain operations whose shapes follow from the map's size alone: for graphs, and for GPUs.

The map is cut into tiles; the queries of a tile meet all keys of its surroundings in one product, although each needs only its own
window. In that product a window is a slanted band; padding a row by one and cutting it at its old length again slants it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vosformer.nn.maps import Grid

_TILE = Grid(8, 9)
_OUTSIDE = -3e4  # two of them are finite in fp16, too


def attend_by_tiles(
    q: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    relative_values: Tensor | None,
    grid: Grid,
    window: int,
) -> Tensor:
    """Local attention: see `attention.attend_locally`."""
    heads, d = weight.shape[0], q.shape[2] // weight.shape[0]
    cut = _Tiles(grid, window, heads)
    queries = cut.inner(q)  # [G,heads,tile,d], G tiles of all slots
    relative = queries @ weight.transpose(1, 2) + bias[:, None]
    outside = (1 - cut.patches(q.new_ones(q.shape[0], grid.tokens, heads))) * _OUTSIDE
    spread = cut.spread(relative, _OUTSIDE) + outside.transpose(2, 3)
    scaled = queries * d**-0.5
    scores = [scaled @ cut.patches(k).transpose(2, 3) + spread for k in keys]
    joined = torch.cat(scores, 3).softmax(3)
    found = joined @ torch.cat([cut.patches(v) for v in values], 2)
    if relative_values is not None:
        total = torch.unflatten(joined, 3, (len(keys), -1)).sum(3) if len(keys) > 1 else joined
        found = found + cut.gathered(total) @ relative_values.transpose(1, 2)
    return cut.joined(found)


class _Tiles:
    """How a map is cut into tiles and what surrounds them. Maps are [S,N,heads*c], tiles [G,heads,positions,c]."""

    def __init__(self, grid: Grid, window: int, heads: int) -> None:
        self.grid, self.window, self.heads = grid, window, heads
        self.reach = window // 2
        self.rows = (grid.height + _TILE.height - 1) // _TILE.height
        self.columns = (grid.width + _TILE.width - 1) // _TILE.width
        self.around = Grid(_TILE.height + 2 * self.reach, _TILE.width + 2 * self.reach)

    def inner(self, x: Tensor) -> Tensor:
        """Return the positions of each tile; zeros beyond the map."""
        wide = self._map(x, 0)
        parts = wide.view(x.shape[0], self.rows, _TILE.height, self.columns, _TILE.width, self.heads, -1)
        return parts.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, self.heads, _TILE.tokens, x.shape[2] // self.heads)

    def patches(self, x: Tensor) -> Tensor:
        """Return the positions of each tile and around it; zeros beyond the map."""
        wide = self._map(x, self.reach)
        rows = _strips(self.rows, _TILE.height, self.around.height, x.device)[:, None, :, None]
        columns = _strips(self.columns, _TILE.width, self.around.width, x.device)[None, :, None]
        # The patches overlap: one copy that puts every position where it is wanted.
        parts = wide.flatten(1, 2).index_select(1, (rows * wide.shape[2] + columns).flatten())
        parts = parts.view(-1, self.around.tokens, x.shape[2])
        return parts[:, None] if self.heads == 1 else torch.unflatten(parts, 2, (self.heads, -1)).transpose(1, 2)

    def joined(self, x: Tensor) -> Tensor:
        """Return the map of the tiles' positions: what `inner` cut."""
        channels = self.heads * x.shape[3]
        parts = x.view(-1, self.rows, self.columns, self.heads, *_TILE, x.shape[3]).permute(0, 1, 4, 2, 5, 3, 6)
        wide = parts.reshape(-1, self.rows * _TILE.height, self.columns * _TILE.width, channels)
        return wide[:, : self.grid.height, : self.grid.width].flatten(1, 2)

    def spread(self, band: Tensor, fill: float) -> Tensor:
        """[G,heads,tile,window**2] -> [G,heads,tile,around]: each offset where its position lies, `fill` in the other positions."""
        side, (height, width), (tall, wide) = self.window, _TILE, self.around
        lead = band.shape[:2]
        x = band.view(*lead, height, width, side, side).transpose(3, 4)  # y, dy, x, dx
        x = F.pad(x, (0, wide + 1 - side), value=fill).flatten(4)[..., : width * wide]  # y, dy, (x, column)
        x = F.pad(x, (0, 0, 0, tall + 1 - side), value=fill).flatten(2, 3)[:, :, : height * tall]
        x = x.view(*lead, height, tall, width, wide).transpose(3, 4)
        return x.reshape(*lead, height * width, tall * wide)

    def gathered(self, weights: Tensor) -> Tensor:
        """[G,heads,tile,around] -> [G,heads,tile,window**2]: the inverse of `spread`."""
        side, (height, width), (tall, wide) = self.window, _TILE, self.around
        lead = weights.shape[:2]
        x = weights.view(*lead, height, width, tall, wide).transpose(3, 4)  # y, row, x, column
        x = F.pad(x.reshape(*lead, height * tall, width * wide), (0, 0, 0, height))
        x = x.view(*lead, height, tall + 1, width * wide)[:, :, :, :side]
        x = F.pad(x, (0, width)).view(*lead, height, side, width, wide + 1)[..., :side]
        return x.transpose(3, 4).reshape(*lead, height * width, side * side)

    def _map(self, x: Tensor, reach: int) -> Tensor:
        """[S,N,C] -> [S,rows,columns,C], with `reach` positions of zeros around, and filled up to whole tiles."""
        down = self.rows * _TILE.height - self.grid.height
        right = self.columns * _TILE.width - self.grid.width
        image = x.reshape(x.shape[0], self.grid.height, self.grid.width, x.shape[2])
        return F.pad(image, (0, 0, reach, reach + right, reach, reach + down))


def _strips(count: int, step: int, length: int, device: torch.device) -> Tensor:
    """Return int64 [count,length]: the rows of `count` overlapping strips."""
    return torch.arange(count, device=device)[:, None] * step + torch.arange(length, device=device)
