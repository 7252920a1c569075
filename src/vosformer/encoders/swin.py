"""Swin Transformer (Liu et al., ICCV 2021) without its fourth stage, as AOT, DeAOT and AOST use it at stride 16.

The names of the tensors are those of the Microsoft repository. Shapes: B images, H x W pixels, h x w a stage's map, C its channels,
n = window^2 tokens of a window, nW windows of a map, A heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn.drop import DropPath
from vosformer.nn.graphs import kept_table, making_graph
from vosformer.nn.linear import TokenLinear

# Added to the logits of token pairs that the cyclic shift brought together; -100 as in the released models, not -inf.
_APART = -100.0


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias per relative position.

    Args:
        channels: C.
        window: side of a window in tokens.
        heads: A.
    """

    relative_position_index: Tensor

    def __init__(self, channels: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", _relative_position_index(window))
        self.qkv = TokenLinear(channels, 3 * channels)
        self.proj = TokenLinear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, apart: Tensor | None) -> Tensor:
        """Attend inside each window.

        Args:
            windows: [B*nW,n,C].
            apart: [B*nW,n,n] to add to the logits, or None.

        Returns:
            [B*nW,n,C].
        """
        count, n, channels = windows.shape
        q, k, v = self.qkv(windows).view(count, n, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]  # [n*n,A]
        bias = bias.view(1, n, n, self.heads).permute(0, 3, 1, 2)
        if apart is not None:
            bias = bias + apart[:, None]
        bias = bias.to(q.dtype)
        if making_graph():
            # The layout in which a fused kernel returns its result would become a part of the graph.
            out = ((q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + bias).softmax(3) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(count, -1, -1, -1))
        joined: Tensor = self.proj(out.transpose(1, 2).reshape(count, n, channels))
        return joined


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = TokenLinear(channels, hidden)
        self.fc2 = TokenLinear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[...,C] -> [...,C]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwinBlock(nn.Module):
    """Window attention and MLP, both pre-norm and residual.

    Args:
        channels: C.
        heads: A.
        window: side of a window in tokens.
        shift: the windows are shifted by that many tokens (0: not). They are also where the map is smaller than a window.
        drop_path: probability that a sample skips a residual branch, in training.
        mlp_ratio: width of the MLP's hidden layer over C.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: int, drop_path: float, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[B,h,w,C] -> [B,h,w,C]."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        B, h, w, C = x.shape
        side = self.window
        rows, columns = (h + side - 1) // side, (w + side - 1) // side
        # The zeros are added after the norm and take part as keys wherever the shift mask does not part them: as released.
        x = F.pad(x, (0, 0, 0, columns * side - w, 0, rows * side - h))
        apart = None
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
            apart = _shift_mask(rows * side, columns * side, side, self.shift, x.device, x.dtype).repeat(B, 1, 1)
        x = x.view(B, rows, side, columns, side, C).transpose(2, 3).reshape(B * rows * columns, side * side, C)
        x = self.attn(x, apart)
        x = x.view(B, rows, columns, side, side, C).transpose(2, 3).reshape(B, rows * side, columns * side, C)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :h, :w]


class PatchMerging(nn.Module):
    """Halves the map and doubles the channels: 2 x 2 tokens are concatenated, normalized and projected."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = TokenLinear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B,h,w,C] -> [B,ceil(h/2),ceil(w/2),2C]."""
        B, h, w, C = x.shape
        rows, columns = (h + 1) // 2, (w + 1) // 2
        x = F.pad(x, (0, 0, 0, 2 * columns - w, 0, 2 * rows - h)).reshape(B, rows, 2, columns, 2, C)
        parts = [x[:, :, y, :, z] for y, z in ((0, 0), (1, 0), (0, 1), (1, 1))]
        out: Tensor = self.reduction(self.norm(torch.cat(parts, -1)))
        return out


class Stage(nn.Module):
    """Blocks at one resolution, every second one with shifted windows, and the way down to the next stage."""

    downsample: PatchMerging | None

    def __init__(self, channels: int, heads: int, window: int, rates: Sequence[float], last: bool) -> None:
        super().__init__()
        shifts = (0, window // 2)
        self.blocks = nn.ModuleList(SwinBlock(channels, heads, window, shifts[i % 2], rate) for i, rate in enumerate(rates))
        self.downsample = None if last else PatchMerging(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B,h,w,C] -> [B,h,w,C], before the way down."""
        for block in self.blocks:
            x = block(x)
        return x


class PatchEmbed(nn.Module):
    """4 x 4 patches to tokens, normalized."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 4, 4)
        self.norm = nn.LayerNorm(channels)

    def forward(self, image: Tensor) -> Tensor:
        """[B,3,H,W] -> [B,ceil(H/4),ceil(W/4),C]; zeros fill up the last row and column."""
        height, width = image.shape[-2:]
        image = F.pad(image, (0, (width + 3) // 4 * 4 - width, 0, (height + 3) // 4 * 4 - height))
        out: Tensor = self.norm(self.proj(image).permute(0, 2, 3, 1))
        return out


class Swin(nn.Module):
    """The encoder: three stages at strides 4, 8 and 16, each with an output norm.

    Args:
        embed: channels of the first stage; each further one doubles them.
        depths: blocks of each stage.
        heads: heads of each stage.
        window: side of the attention windows in tokens.
        drop_path: stochastic depth rate of the last block; it grows linearly from 0 at the first one. The rule of the released
            models; here it runs over the blocks that exist.
        freeze_at: 0 trains all, 1 freezes the patch embedding, 2 (as released) also the blocks of the first stage, and so on.
            Frozen blocks have no stochastic depth; the patch merging after them is trained.

    Attributes:
        channels: of the four outputs.
    """

    def __init__(
        self,
        embed: int = 128,
        depths: Sequence[int] = (2, 2, 18),
        heads: Sequence[int] = (4, 8, 16),
        window: int = 7,
        drop_path: float = 0.3,
        freeze_at: int = 2,
    ) -> None:
        super().__init__()
        widths = [embed * 2**i for i in range(3)]
        self.channels = (widths[0], widths[1], widths[2], widths[2])
        self.patch_embed = PatchEmbed(embed)
        # The released rates are those of a Swin with its fourth stage, of two blocks, which is left out here.
        rates = [drop_path * i / (sum(depths) + 1) for i in range(sum(depths))]
        self.layers = nn.ModuleList()
        for i, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            start = sum(depths[:i])
            own = [0.0] * depth if i + 2 <= freeze_at else rates[start : start + depth]
            self.layers.append(Stage(widths[i], count, window, own, last=i == 2))
        self.norm0, self.norm1, self.norm2 = (nn.LayerNorm(width) for width in widths)
        self.apply(_init)
        if freeze_at >= 1:
            self.patch_embed.requires_grad_(False)
        for stage in self.layers[: max(freeze_at - 1, 0)]:
            stage.get_submodule("blocks").requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode images.

        Args:
            image: [B,3,H,W], normalized.

        Returns:
            [B,C,H/4,W/4], [B,2C,H/8,W/8], [B,4C,H/16,W/16] and the last one again, sides rounded up; channels_last in memory.
        """
        x = self.patch_embed(image)
        outputs = []
        for stage, norm in zip(cast("list[Stage]", self.layers), (self.norm0, self.norm1, self.norm2), strict=True):
            x = stage(x)
            outputs.append(norm(x).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                x = stage.downsample(x)
        f4, f8, f16 = outputs
        return f4, f8, f16, f16


def swin_base(freeze_at: int = 2, drop_path: float = 0.3) -> Swin:
    """Swin-B with window 7, 86 M parameters before the fourth stage is left out."""
    return Swin(freeze_at=freeze_at, drop_path=drop_path)


def _relative_position_index(window: int) -> Tensor:
    """[n,n] int64: the row of the bias table for a pair of tokens, (dy + window - 1) * (2 window - 1) + (dx + window - 1)."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y[None] + window - 1) * (2 * window - 1) + x[:, None] - x[None] + window - 1


@kept_table(16)
def _shift_mask(height: int, width: int, window: int, shift: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[nW,n,n]: 0 for tokens of a shifted map that were neighbors before, -100 for those that the roll brought together.

    Kept for the last sizes seen: a video has one size, and the two sizes of mixed data fit as well.
    """
    row, column = (
        (place >= length - window).int() + (place >= length - shift).int()
        for length, place in ((height, torch.arange(height)), (width, torch.arange(width)))
    )
    region = row[:, None] * 3 + column
    tokens = region.view(height // window, window, width // window, window).transpose(1, 2).reshape(-1, window * window)
    apart = tokens[:, :, None] != tokens[:, None]
    return (apart.to(dtype) * _APART).to(device)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
