"""The plain vision transformer (Dosovitskiy et al. 2021) in MAE's layout: its sizes, and the public files.

The systems build it out of `nn/vit_blocks.py` themselves, since who attends to whom is what makes them different. Parameter names are
those of the public MAE files: `patch_embed.proj`, `blocks.N`, `norm`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vosformer.errors import WeightsError

# What only pre-training or classification needs.
_PRETRAINING_ONLY = ("mask_token", "decoder_", "head.", "fc_norm.", "cls_token")


_MOCO = "base_encoder."  # MoCo-v3: the momentum encoder and the predictor are of no use here


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
    """Take the encoder's tensors of a public MAE, DeiT-III or MoCo-v3 file (pre-trained or fine-tuned), under their own names.

    Names: `patch_embed.proj.`, `blocks.`, `norm.` and `pos_embed` [1,1+g*g,C] (row 0 is the class token's; g is 14 at 224 pixels).
    A wrapping "model" or "state_dict" and a leading `module.` are taken off; decoder, mask token, class token and heads are left out.
    A file fine-tuned with average pooling has no `norm.`; then there is none in the result. Of MoCo-v3's files the base encoder is
    taken. DeiT-III's have no position for the class token, which gets zeros, and layer scale: what a block adds times `gamma_1` or
    `gamma_2`, which are multiplied into the layer before, so that the same numbers come out of blocks without it.

    Raises:
        WeightsError: it does not hold a ViT with patches of 16 x 16.
    """
    inner = checkpoint.get("model", checkpoint.get("state_dict", checkpoint))
    if not isinstance(inner, Mapping):
        raise WeightsError(f"expected a dictionary of tensors, found {type(inner).__name__}")
    state = {name.removeprefix("module."): tensor for name, tensor in inner.items() if isinstance(tensor, Tensor)}
    if any(name.startswith(_MOCO) for name in state):
        state = {name.removeprefix(_MOCO): tensor for name, tensor in state.items() if name.startswith(_MOCO)}
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(_PRETRAINING_ONLY)}
    kept = _without_layer_scale(kept)
    missing = [name for name in ("pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight") if name not in kept]
    if missing:
        raise WeightsError(f"not a ViT encoder: {', '.join(missing)} missing among {len(state)} tensors")
    shape = tuple(kept["patch_embed.proj.weight"].shape)
    if len(shape) != 4 or shape[1:] != (3, 16, 16):
        raise WeightsError(f"patch_embed.proj.weight has shape {shape}, expected [C,3,16,16]: patches of 16 x 16 pixels")
    if math.isqrt(kept["pos_embed"].shape[1]) ** 2 == kept["pos_embed"].shape[1]:
        kept["pos_embed"] = F.pad(kept["pos_embed"], (0, 0, 1, 0))
    return kept


def _without_layer_scale(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiply `gamma_1` into `attn.proj` and `gamma_2` into `mlp.fc2` of each block."""
    found = {name: tensor for name, tensor in state.items() if not name.endswith((".gamma_1", ".gamma_2"))}
    for name, gamma in state.items():
        for end, layer in ((".gamma_1", ".attn.proj"), (".gamma_2", ".mlp.fc2")):
            if name.endswith(end) and name.removesuffix(end) + layer + ".weight" in found:
                target = name.removesuffix(end) + layer
                found[f"{target}.weight"] = found[f"{target}.weight"] * gamma[:, None]
                found[f"{target}.bias"] = found[f"{target}.bias"] * gamma
    return found
