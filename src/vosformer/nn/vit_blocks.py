"""The parts of a vision transformer that SimVOS, JointFormer and OneVOS share: patches, positions, blocks.

A block is taken apart so that a system can decide who attends to whom: `project` gives queries, keys and values, the system attends,
`finish` does the rest. Names and layouts are those of the public MAE and ConvMAE files.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn.attention import attend
from vosformer.nn.conv import Conv2d
from vosformer.nn.drop import DropPath
from vosformer.nn.linear import TokenLinear
from vosformer.nn.maps import Grid, to_map, to_tokens

EPS = 1e-6  # of the layer norms of the blocks and of the final one


class PatchEmbed(nn.Module):
    """Non-overlapping patches as tokens, a linear layer each: [B,Cin,H,W] -> [B,N,C].

    Args:
        inputs: Cin.
        width: C.
        patch: side of a patch in pixels.
    """

    def __init__(self, inputs: int, width: int, patch: int = 16) -> None:
        super().__init__()
        self.proj = Conv2d(inputs, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(self.proj(x))


class Projected(NamedTuple):
    """Return queries, keys and values [S,N,C] of some tokens, the heads side by side in the channels."""

    q: Tensor
    k: Tensor
    v: Tensor


class Attention(nn.Module):
    """The weights of multi-head attention: one linear layer for queries, keys and values, and one for the output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = TokenLinear(width, 3 * width)
        self.proj = TokenLinear(width, width)


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = TokenLinear(width, hidden)
        self.fc2 = TokenLinear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[...,C] -> [...,C]."""
        y: Tensor = self.fc2(self.fc1(x, "gelu"))
        return y


class ViTBlock(nn.Module):
    """A pre-norm transformer block: ``x += proj(attention(norm1(x)))``, then ``x += mlp(norm2(x))``.

    Args:
        width: C.
        heads: of the attention; divides C.
        ratio: hidden width of the feed-forward part / C.
        drop_path: stochastic depth on both parts, in training.
    """

    def __init__(self, width: int, heads: int, ratio: int = 4, drop_path: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = Attention(width)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width, ratio * width)
        self.drop_path = DropPath(drop_path)

    def project(self, x: Tensor) -> Projected:
        """Return queries, keys and values [S,N,C] of tokens [S,N,C] (before their norm)."""
        return Projected(*self.attn.qkv(self.norm1(x)).chunk(3, 2))

    def project_queries(self, x: Tensor) -> Tensor:
        """Only the queries [S,N,C]: a third of the work of `project`."""
        return self._part(x, 0, 1)

    def project_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Only keys and values, [S,N,C] each."""
        k, v = self._part(x, 1, 3).chunk(2, 2)
        return k, v

    def _part(self, x: Tensor, begin: int, end: int) -> Tensor:
        width = x.shape[2]
        out: Tensor = self.attn.qkv(self.norm1(x), "none", slice(begin * width, end * width))
        return out

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Tokens [S,N,C] and what they attended to [S,N,C] -> the block's output [S,N,C]."""
        return self.add(x, self.attn.proj(attended))

    def add(self, x: Tensor, attention: Tensor) -> Tensor:
        """Return the same for a finished attention output [S,N,C], `proj` included."""
        x = x + self.drop_path(attention)
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out

    def forward(self, x: Tensor, projected: Projected | None = None, gate: Tensor | None = None) -> Tensor:
        """Self-attention of tokens [S,N,C] among themselves; `projected` is `project(x)`, if that is known already, and `gate`
        [S,N,1] says how much each of them counts as a key.
        """
        q, k, v = self.project(x) if projected is None else projected
        return self.finish(x, attend(q, k, v, self.heads, gate))


def make_blocks(count: int, width: int, heads: int, ratio: int = 4, drop_path: float = 0.0) -> nn.ModuleList:
    """`count` blocks whose rate of stochastic depth grows evenly from 0 to `drop_path`."""
    return nn.ModuleList([ViTBlock(width, heads, ratio, drop_path * i / max(count - 1, 1)) for i in range(count)])


def resize_positions(table: Tensor, grid: Grid, by_scale: bool = False) -> Tensor:
    """Return a learned position embedding for a map of another size, bicubic (corners not aligned), computed in float32 or
    better.

    Args:
        table: [1,g*g,C], a square grid row by row, without class token.
        grid: of the map to make.
        by_scale: give the resampling the factors ``(side + 0.1) / g`` instead of the sizes (OneVOS): it samples at slightly other
            positions, and a map of g*g positions is taken as it is, whatever its shape.

    Returns:
        [1,N,C], of the dtype of `table`.
    """
    positions = table.shape[1]
    side = round(positions**0.5)
    if not all(isinstance(length, int) for length in grid):
        return resize_by_products(table, grid, by_scale)
    if grid == (side, side) or (by_scale and grid.tokens == positions):
        return table
    square = to_map(table, Grid(side, side)).to(torch.promote_types(table.dtype, torch.float32))
    if by_scale:
        factors = ((grid.height + 0.1) / side, (grid.width + 0.1) / side)
        resized = F.interpolate(square, scale_factor=factors, mode="bicubic", align_corners=False)
    else:
        resized = F.interpolate(square, (grid.height, grid.width), mode="bicubic", align_corners=False)
    return to_tokens(resized).to(table.dtype)


def resize_by_products(table: Tensor, grid: Grid, by_scale: bool) -> Tensor:
    """Do what `resize_positions` does where the sides of `grid` are symbols, in a graph that takes any size: the resampling as two
    matrices that follow from the sides, without a look at what these are.
    """
    positions = table.shape[1]
    side = round(positions**0.5)
    extra = 0.1 if by_scale else 0.0
    down, right = (_cubic_matrix(side, length, side / (length + extra), table.device) for length in grid)
    square = table.view(side, side, -1).to(torch.promote_types(table.dtype, torch.float32))
    rows = torch.tensordot(down.to(square.dtype), square, ([1], [0]))
    resized: Tensor = (right.to(square.dtype) @ rows).flatten(0, 1)[None].to(table.dtype)
    if not by_scale:
        return resized
    place = torch.arange(grid.tokens, device=table.device)
    as_it_is = table.index_select(1, place % positions)
    return torch.where(place[-1] == positions - 1, as_it_is, resized)


def _cubic_matrix(source: int, target: int, step: float, device: torch.device) -> Tensor:
    """Return the bicubic resampling of `source` places to `target` ones, `step` apart, as float32 [target,source]."""
    at = (torch.arange(target, device=device) + 0.5) * step - 0.5
    taps = at.floor()[:, None] + torch.arange(-1, 3, device=device)
    away = (at[:, None] - taps).abs()
    a = -0.75  # as in `F.interpolate`
    near = ((a + 2) * away - (a + 3)) * away**2 + 1
    far = ((a * away - 5 * a) * away + 8 * a) * away - 4 * a
    shares = torch.where(away <= 1, near, far)
    hits = taps.clamp(0, source - 1)[..., None] == torch.arange(source, device=device)
    return (shares[..., None] * hits).sum(1)


def sine_table(side: int, width: int) -> Tensor:
    """MAE's fixed sine-cosine embedding of a square grid: half of the channels tell the column, half the row.

    Each half is sines, then cosines, of ``coordinate / 10000 ** (4 i / C)``.

    Args:
        side: of the grid.
        width: C, divisible by 4.

    Returns:
        [1,side*side,C] float32.
    """
    rates = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    codes = torch.cat([angles.sin(), angles.cos()], 1)
    columns = codes[None].expand(side, side, -1)
    rows = codes[:, None].expand(side, side, -1)
    return torch.cat([columns, rows], 2).reshape(1, side * side, width).float()


def initialize(module: nn.Module) -> None:
    """Fresh weights as in MAE: Xavier-uniform linear layers and patch projections, biases 0, norms the identity."""
    for part in module.modules():
        if isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.kernel_size == part.stride):
            nn.init.xavier_uniform_(part.weight.flatten(1))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
