"""ConvMAE's ConvViT as an encoder of AOT, DeAOT and AOST (JointFormer Table 13, OneVOS Table 3 row 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vosformer.encoders.convmae import CONVVIT_B, ConvStem, ConvViTSize
from vosformer.nn.maps import Grid, to_map
from vosformer.nn.vit_blocks import EPS, initialize, make_blocks, resize_positions, sine_table

_GRID = 29  # side of the position table: 464 pixels, the crop of the training


class ConvViTEncoder(ConvStem):
    """Stem, positions, transformer blocks and final norm of a ConvViT.

    Neither paper says what is frozen; as with the other encoders `freeze_at` counts the patch embedding, then the stages.

    Args:
        size: its dimensions.
        freeze_at: 0 trains all, 1 freezes the first patch embedding, 2 also the blocks of stride 4, 3 those of stride 8.

    Attributes:
        channels: of the four outputs.
    """

    def __init__(self, size: ConvViTSize = CONVVIT_B, freeze_at: int = 2) -> None:
        super().__init__(size)
        self.channels = (*size.widths, size.widths[2])
        width = size.widths[2]
        self.pos_embed = nn.Parameter(sine_table(_GRID, width))
        self.blocks3 = make_blocks(size.depths[2], width, size.heads, size.ratios[2])
        self.norm = nn.LayerNorm(width, EPS)
        initialize(self)
        for names in (("patch_embed1",), ("blocks1",), ("patch_embed2", "blocks2"))[:freeze_at]:
            for name in names:
                self.get_submodule(name).requires_grad_(False)

    def forward(self, image: Tensor, first: str = "patch_embed1") -> tuple[Tensor, Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Encode images [B,3,H,W] -> maps at strides 4, 8 and 16, and the last one again."""
        f4, f8, f16 = super().forward(image, first)
        grid = Grid(f16.shape[2], f16.shape[3])
        x = self.tokens(f16) + resize_positions(self.pos_embed, grid)
        for block in self.blocks3:
            x = block(x)
        final = to_map(self.norm(x), grid).contiguous(memory_format=torch.channels_last)
        return f4, f8, final, final
