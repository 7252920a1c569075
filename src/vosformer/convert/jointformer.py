"""JointFormer: official names and ours; ConvMAE and MAE files for its encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vosformer.convert import names
from vosformer.encoders.convmae import from_convmae
from vosformer.encoders.vit import from_mae
from vosformer.errors import WeightsError

_TABLE = (
    ("convmae.pos_embed", "positions"),
    ("convmae.cls_token", "token"),
    ("convmae.blocks3.", "blocks."),
    ("convmae.patch_embed4_block4.", "update_embed."),
    ("convmae.blocks4.", "update_blocks."),
    ("convmae.patch_embed4_block5.", "enhance_embed."),
    ("convmae.blocks5.", "enhance_blocks."),
    ("convmae.norm.", "norm."),
    ("convmae.", "stem."),
    ("decoder.fuser_16.attention.ChannelGate.mlp.1.", "decoder.fuser_16.attention.channel.fc1."),
    ("decoder.fuser_16.attention.ChannelGate.mlp.3.", "decoder.fuser_16.attention.channel.fc2."),
    ("decoder.fuser_16.attention.SpatialGate.spatial.", "decoder.fuser_16.attention.spatial."),
)
_MEMORY = "stem.patch_embed1_memory"
_QUERY = "stem.patch_embed1_query"

OPTIONAL: tuple[str, ...] = ()
WRAPPED = False


def from_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors.

    Files of the first stage know no other objects: their fifth input channel starts as the official loader starts it.
    """
    ours = names.to_ours(state, _TABLE)
    weight, own = ours.get(f"{_MEMORY}.proj.weight"), model.state_dict().get(f"{_MEMORY}.proj.weight")
    if weight is not None and own is not None and weight.dim() == 4 and weight.shape[1] == 4 and own.shape[1] == 5:
        others = nn.init.trunc_normal_(torch.empty_like(weight[:, :1]), std=0.02)
        ours[f"{_MEMORY}.proj.weight"] = torch.cat([weight, others], 1)
    return ours


def to_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors."""
    return names.to_theirs(state, _TABLE)


def from_pretrained(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return a ConvMAE file, or an MAE, DeiT-III or MoCo-v3 file for a plain ViT.

    The patch embedding starts both stems; the mask channels of the memory stem keep their fresh values. The last
    blocks start those of the compressed memory, too (paper, Sec. 4.1 "Model"). The position table is ours: a sine table of 24 x 24
    positions, as the files' own is one of 14 x 14.
    """
    own = model.state_dict()
    if f"{_QUERY}.norm.weight" in own:
        found, first = from_convmae(state), "patch_embed1."
        found = names.to_ours(found, (("blocks3.", "blocks."), ("norm.", "norm."), ("pos_embed", "pos_embed"), ("", "stem.")))
    else:
        found, first = from_mae(state), "patch_embed."
        found = names.to_ours(found, ((first, f"stem.{first}"),))
    del found["pos_embed"]
    for name in [name for name in found if name.startswith(f"stem.{first}")]:
        tensor, rest = found.pop(name), name.removeprefix(f"stem.{first}")
        found[f"{_QUERY}.{rest}"] = tensor
        fresh = own.get(f"{_MEMORY}.{rest}")
        if fresh is not None:  # the naive baseline has no second stem
            found[f"{_MEMORY}.{rest}"] = torch.cat([tensor, fresh[:, 3:].to(tensor)], 1) if tensor.dim() == 4 else tensor
    missing = [name for name in own if name.startswith(("stem.", "blocks.")) and name not in found]
    if missing:
        raise WeightsError(f"{len(missing)} tensors of the encoder are missing: {', '.join(missing[:10])}")
    return found | _last_blocks(found, own, "update_blocks") | _last_blocks(found, own, "enhance_blocks")


def _last_blocks(found: Mapping[str, Tensor], own: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the last blocks, as many as `part` has, under its names."""
    copies = {}
    shift = _count(own, "blocks") - _count(own, part)
    for name in own:
        if name.startswith(f"{part}."):
            _, index, rest = name.split(".", 2)
            copies[name] = found[f"blocks.{int(index) + shift}.{rest}"]
    return copies


def _count(state: Mapping[str, Tensor], part: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(f"{part}.")})
