"""JointFormer: official names (MCG-NJU/JointFormer) and ours; ConvMAE and MAE files for its backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vosformer.convert import names
from vosformer.encoders.convmae import from_convmae
from vosformer.encoders.vit import from_mae

_TABLE = (
    ("convmae.pos_embed", "positions"),
    ("convmae.cls_token", "token"),
    ("convmae.blocks3.", "blocks."),
    ("convmae.norm.", "norm."),
    ("convmae.patch_embed4_block4.", "update_embed."),
    ("convmae.blocks4.", "update_blocks."),
    ("convmae.patch_embed4_block5.", "enhance_embed."),
    ("convmae.blocks5.", "enhance_blocks."),
    ("convmae.", "stem."),
    ("decoder.fuser_16.attention.ChannelGate.mlp.1.", "decoder.fuser_16.attention.channel.fc1."),
    ("decoder.fuser_16.attention.ChannelGate.mlp.3.", "decoder.fuser_16.attention.channel.fc2."),
    ("decoder.fuser_16.attention.SpatialGate.spatial.", "decoder.fuser_16.attention.spatial."),
)
_MEMORY = "stem.patch_embed1_memory.proj.weight"

OPTIONAL: tuple[str, ...] = ()
WRAPPED = False


def from_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames; a memory stem of 4 channels (stage 0: one object) gets a fifth of zeros, so that nothing changes for one object."""
    found = names.to_ours(state, _TABLE)
    own, stem = model.state_dict().get(_MEMORY), found.get(_MEMORY)
    if own is not None and stem is not None and own.shape[1] == 5 and stem.shape[1] == 4:
        found[_MEMORY] = torch.cat([stem, torch.zeros_like(stem[:, :1])], 1)
    return found


def to_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames."""
    return names.to_theirs(state, _TABLE)


def from_pretrained(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A ConvMAE (or MAE) file: stem, blocks and norm; the last blocks once more for the compressed memory (Sec. 4.1 "Model").

    The memory stem begins with the weights for RGB, its mask channels with 0. Positions stay as they are computed.
    """
    own = model.state_dict()
    plain = "stem.patch_embed2.proj.weight" not in own
    file = from_mae(state) if plain else from_convmae(state)
    blocks, first = ("blocks.", "patch_embed.") if plain else ("blocks3.", "patch_embed1.")
    found: dict[str, Tensor] = {}
    for name, tensor in file.items():
        if name.startswith(blocks):
            found["blocks." + name.removeprefix(blocks)] = tensor
        elif name.startswith("norm."):
            found[name] = tensor
        elif name.startswith(first):
            for arm in ("query", "memory"):
                found[f"stem.patch_embed1_{arm}.{name.removeprefix(first)}"] = tensor
        elif name != "pos_embed":
            found[f"stem.{name}"] = tensor
    missing = own[_MEMORY].shape[1] - found[_MEMORY].shape[1]
    if missing > 0:
        rgb = found[_MEMORY]
        found[_MEMORY] = torch.cat([rgb, rgb.new_zeros(rgb.shape[0], missing, *rgb.shape[2:])], 1)
    for part in ("update_blocks", "enhance_blocks"):
        found |= _last_blocks(found, own, part)
    return found


def _last_blocks(found: Mapping[str, Tensor], own: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Copies of the last blocks, as many as `part` has, under its names."""
    shift = _count(found, "blocks") - _count(own, part)
    copies = {}
    for name in own:
        match = re.match(rf"{part}\.(\d+)\.(.*)", name)
        source = f"blocks.{int(match[1]) + shift}.{match[2]}" if match else ""
        if source in found:
            copies[name] = found[source]
    return copies


def _count(state: Mapping[str, Tensor], part: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(f"{part}.")})
