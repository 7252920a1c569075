"""The plain vision transformer (Dosovitskiy et al. 2021) in MAE's layout: its sizes, and the public files.

The systems build it out of `nn/vit_blocks.py` themselves, since who attends to whom is what makes them different. Parameter names are
those of the public MAE files: `patch_embed.proj`, `blocks.N`, `norm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vosformer.errors import WeightsError

# What only pre-training or classification needs.
_PRETRAINING_ONLY = ("mask_token", "decoder_", "head.", "fc_norm.", "cls_token")


@dataclass(frozen=True)
class ViTSize:
    """The dimensions of a ViT with patches of 16 x 16 pixels.

    Attributes:
        width: channels C.
        depth: number of blocks.
        heads: attention heads.
        ratio: hidden width of the feed-forward parts / C.
    """

    width: int
    depth: int
    heads: int
    ratio: int = 4


VIT_B = ViTSize(768, 12, 12)
VIT_L = ViTSize(1024, 24, 16)
VIT_TINY = ViTSize(192, 4, 3)


def from_mae(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The encoder's tensors of a public MAE file (pre-trained or fine-tuned), under their own names.

    Names: `patch_embed.proj.`, `blocks.`, `norm.` and `pos_embed` [1,1+g*g,C] (row 0 is the class token's; g is 14 at 224 pixels).
    A wrapping "model" or "state_dict" and a leading `module.` are taken off; decoder, mask token, class token and heads are left out.
    A file fine-tuned with average pooling has no `norm.`; then there is none in the result.

    Raises:
        WeightsError: it does not hold a ViT with patches of 16 x 16.
    """
    inner = checkpoint.get("model", checkpoint.get("state_dict", checkpoint))
    if not isinstance(inner, Mapping):
        raise WeightsError(f"expected a dictionary of tensors, found {type(inner).__name__}")
    state = {name.removeprefix("module."): tensor for name, tensor in inner.items() if isinstance(tensor, Tensor)}
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(_PRETRAINING_ONLY)}
    missing = [name for name in ("pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight") if name not in kept]
    if missing:
        raise WeightsError(f"not a ViT encoder: {', '.join(missing)} missing among {len(state)} tensors")
    shape = tuple(kept["patch_embed.proj.weight"].shape)
    if len(shape) != 4 or shape[1:] != (3, 16, 16):
        raise WeightsError(f"patch_embed.proj.weight has shape {shape}, expected [C,3,16,16]: patches of 16 x 16 pixels")
    return kept
