"""ConvViT, the encoder of ConvMAE (Gao et al. 2022): a convolutional stem at strides 4 and 8, transformer blocks at stride 16.

This file holds the stem; the transformer blocks differ from system to system and live in `models/`. Parameter names are those of the
public ConvMAE files, so that these load by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.errors import WeightsError
from vosformer.nn.conv import Conv2d, DepthwiseConv2d
from vosformer.nn.graphs import making_graph
from vosformer.nn.linear import TokenLinear
from vosformer.nn.maps import to_tokens

# What only pre-training or classification needs; everything else of a public file is used.
_PRETRAINING_ONLY = ("mask_token", "decoder_", "stage1_output_decode", "stage2_output_decode", "head.", "fc_norm.")


@dataclass(frozen=True)
class ConvViTSize:
    """The dimensions of a ConvViT.

    Attributes:
        widths: channels at strides 4, 8 and 16.
        depths: blocks at strides 4, 8 and 16.
        ratios: hidden width of the feed-forward parts / their channels, at strides 4, 8 and 16.
        heads: attention heads at stride 16.
    """

    widths: tuple[int, int, int]
    depths: tuple[int, int, int]
    ratios: tuple[int, int, int]
    heads: int


CONVVIT_B = ConvViTSize((256, 384, 768), (2, 2, 11), (4, 4, 4), 12)
CONVVIT_L = ConvViTSize((384, 768, 1024), (2, 2, 23), (8, 8, 4), 16)
CONVVIT_TINY = ConvViTSize((48, 96, 192), (1, 1, 4), (4, 4, 4), 3)


_STRIP = 30  # rows of a map that go through the feed-forward part of a `ConvBlock` together


class StemMaps(NamedTuple):
    """What the stem makes of a frame.

    Attributes:
        f4: [B,C1,H/4,W/4], after the blocks of stride 4.
        f8: [B,C2,H/8,W/8], after the blocks of stride 8.
        f16: [B,C,H/16,W/16], the third patch embedding, before `patch_embed4` and positions.
    """

    f4: Tensor
    f8: Tensor
    f16: Tensor


def channel_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm over the channels of a map [B,C,h,w]; free of copies if the map is channels_last."""
    normed: Tensor = norm(x.permute(0, 2, 3, 1))
    return normed.permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    """Convolution with kernel = stride = `patch`, LayerNorm over channels (eps 1e-5), GELU: [B,Cin,H,W] -> [B,C,H/p,W/p]."""

    def __init__(self, inputs: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = Conv2d(inputs, width, patch, patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(channel_norm(self.norm, self.proj(x)))


class _ConvMlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Conv2d(width, hidden, 1)
        self.fc2 = Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or making_graph():
            whole: Tensor = self.fc2(self.fc1(x, "gelu"))
            return whole
        # In strips: of the hidden map, the largest of the whole network, only a part exists at a time.
        out = torch.empty_like(x)
        for top in range(0, x.shape[2], _STRIP):
            rows = slice(top, top + _STRIP)
            out[:, :, rows] = self.fc2(self.fc1(x[:, :, rows], "gelu"))
        return out


class ConvBlock(nn.Module):
    """A transformer block whose attention is a 5x5 depthwise convolution between two 1x1 ones: [B,C,h,w] -> [B,C,h,w]."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.conv1 = Conv2d(width, width, 1)
        self.attn = DepthwiseConv2d(width, 5)
        self.conv2 = Conv2d(width, width, 1)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _ConvMlp(width, width * ratio)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(channel_norm(self.norm1, x))
        x = x + self.conv2(self.attn(y))
        out: Tensor = x + self.mlp(channel_norm(self.norm2, x))
        return out


class ConvStem(nn.Module):
    """The convolutional part of a ConvViT, and the linear layer that hands its map to the transformer blocks.

    Args:
        size: the dimensions.
        inputs: name -> channels of the first patch embeddings. One is usual; JointFormer has `patch_embed1_query` (3 channels) and
            `patch_embed1_memory` (RGB and masks), and shares everything after.
    """

    def __init__(self, size: ConvViTSize, inputs: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.size = size
        for name, channels in (inputs or {"patch_embed1": 3}).items():
            self.add_module(name, PatchEmbed(channels, size.widths[0], 4))
        self.patch_embed2 = PatchEmbed(size.widths[0], size.widths[1], 2)
        self.patch_embed3 = PatchEmbed(size.widths[1], size.widths[2], 2)
        self.patch_embed4 = TokenLinear(size.widths[2], size.widths[2])
        self.blocks1 = nn.Sequential(*(ConvBlock(size.widths[0], size.ratios[0]) for _ in range(size.depths[0])))
        self.blocks2 = nn.Sequential(*(ConvBlock(size.widths[1], size.ratios[1]) for _ in range(size.depths[1])))

    def forward(self, image: Tensor, first: str = "patch_embed1") -> StemMaps:
        """[B,Cin,H,W] -> maps at strides 4, 8 and 16. `first` names the patch embedding to begin with."""
        x = image.contiguous(memory_format=torch.channels_last)
        f4 = self.blocks1(self.get_submodule(first)(x))
        f8 = self.blocks2(self.patch_embed2(f4))
        return StemMaps(f4, f8, self.patch_embed3(f8))

    def tokens(self, f16: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,N,C]: the map as tokens through `patch_embed4`; positions are added by the caller."""
        tokens: Tensor = self.patch_embed4(to_tokens(f16))
        return tokens


def from_convmae(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the encoder's tensors of a public ConvMAE file (pre-trained or fine-tuned), under their own names.

    Names: `patch_embed1.` to `patch_embed4.`, `blocks1.` to `blocks3.` (the transformer blocks), `norm.` and `pos_embed`
    [1,196,C] (a 14x14 grid, no class token). A wrapping "model" or "state_dict" and a leading `module.` are taken off; decoders, mask
    token and heads are left out. Systems resize the positions as they do it themselves.

    Raises:
        WeightsError: it does not hold a ConvViT.
    """
    inner = checkpoint.get("model", checkpoint.get("state_dict", checkpoint))
    if not isinstance(inner, Mapping):
        raise WeightsError(f"expected a dictionary of tensors, found {type(inner).__name__}")
    state = {name.removeprefix("module."): tensor for name, tensor in inner.items() if isinstance(tensor, Tensor)}
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(_PRETRAINING_ONLY)}
    missing = [name for name in ("pos_embed", "patch_embed1.proj.weight", "blocks3.0.attn.qkv.weight") if name not in kept]
    if missing:
        raise WeightsError(f"not a ConvMAE encoder: {', '.join(missing)} missing among {len(state)} tensors")
    return kept
