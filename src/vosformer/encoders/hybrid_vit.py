"""ConvViT and plain ViT with OneVOS's blocks: from an image to skip maps and to the tokens that enter the blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.encoders.convmae import ConvStem, ConvViTSize
from vosformer.encoders.vit import ViTSize
from vosformer.nn.hybrid import HybridBlock
from vosformer.nn.maps import Grid, to_map
from vosformer.nn.vit_blocks import PatchEmbed, resize_positions, sine_table


class ConvViT(ConvStem):
    """Stem, positions and blocks of a ConvViT.

    Args:
        size: its dimensions.
        grid: side of the learned position table.
        blocks: as many as `size` says.
    """

    def __init__(self, size: ConvViTSize, grid: int, blocks: Sequence[HybridBlock]) -> None:
        super().__init__(size)
        self.pos_embed = nn.Parameter(sine_table(grid, size.widths[2]))
        self.blocks3 = nn.ModuleList(blocks)

    def start(self, image: Tensor) -> tuple[Tensor, ...]:
        """[B,3,H,W] -> maps at strides 4, 8, 16, and the tokens [B,N,C] that enter the blocks."""
        maps = self(image)
        height, width = maps.f16.shape[-2:]
        return (*maps, self.tokens(maps.f16) + resize_positions(self.pos_embed, Grid(height, width), by_scale=True))


class PlainViT(nn.Module):
    """The same of a plain ViT: patches of 16 x 16 pixels.

    The paper does not say what the decoder sees at strides 8 and 4; here transposed convolutions of the patch embedding.

    Args:
        size: its dimensions.
        grid: side of the learned position table.
        blocks: as many as `size` says.
    """

    def __init__(self, size: ViTSize, grid: int, blocks: Sequence[HybridBlock]) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(3, size.width)
        self.up8 = nn.ConvTranspose2d(size.width, size.width // 2, 2, 2)
        self.up4 = nn.ConvTranspose2d(size.width // 2, size.width // 3, 2, 2)
        self.pos_embed = nn.Parameter(sine_table(grid, size.width))
        self.blocks3 = nn.ModuleList(blocks)

    def start(self, image: Tensor) -> tuple[Tensor, ...]:
        """[B,3,H,W] -> maps at strides 4, 8, 16, and the tokens [B,N,C] that enter the blocks."""
        grid = Grid(image.shape[2] // 16, image.shape[3] // 16)
        tokens = self.patch_embed(image)
        f16 = to_map(tokens, grid)
        f8 = F.gelu(self.up8(f16))
        return F.gelu(self.up4(f8)), f8, f16, tokens + resize_positions(self.pos_embed, grid, by_scale=True)
