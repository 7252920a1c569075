"""OneVOS: our names are the official ones without the doubled prefix of the encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vosformer.encoders.convmae import from_convmae
from vosformer.encoders.vit import from_mae
from vosformer.errors import WeightsError
from vosformer.nn.maps import Grid
from vosformer.nn.vit_blocks import resize_positions

# The released code has a final norm and never applies it.
_UNUSED = "backbone.backbone.norm."

OPTIONAL: tuple[str, ...] = ()
WRAPPED = True


def from_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """One `backbone.` is taken off, and the norm that is never applied is left out."""
    return {
        name.removeprefix("backbone.") if name.startswith("backbone.backbone.") else name: tensor
        for name, tensor in state.items()
        if not name.startswith(_UNUSED)
    }


def to_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the reverse; the norm that is never applied becomes the identity."""
    official = {f"backbone.{name}" if name.startswith("backbone.") else name: tensor for name, tensor in state.items()}
    positions = state.get("backbone.pos_embed")
    if positions is not None:
        official[f"{_UNUSED}weight"] = torch.ones_like(positions[0, 0])
        official[f"{_UNUSED}bias"] = torch.zeros_like(positions[0, 0])
    return official


def from_pretrained(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the encoder's tensors of a public ConvMAE or MAE file; positions are resized as OneVOS does it.

    A OneVOS checkpoint starts all that a OneVOS-D model shares with it.

    Raises:
        WeightsError: it is none of these.
    """
    if any(name.startswith("backbone.backbone.") for name in state):
        return from_official(state, model)
    conv = "patch_embed1.proj.weight" in state
    found = from_convmae(state) if conv else from_mae(state)
    positions = found.pop("pos_embed")
    count = model.state_dict()["backbone.pos_embed"].shape[1]
    side = round(count**0.5)
    square = int(positions.shape[1] ** 0.5) ** 2
    if positions.dim() != 3 or positions.shape[1] not in (square, square + 1):
        raise WeightsError(
            f"pos_embed has shape {tuple(positions.shape)}, expected a square grid, with or without a class token"
        )
    table = positions[:, positions.shape[1] - square :]
    own = {f"backbone.{_block_name(name, conv)}": t for name, t in found.items() if not name.startswith("norm.")}
    return own | {"backbone.pos_embed": resize_positions(table, Grid(side, side), by_scale=True)}


def _block_name(name: str, conv: bool) -> str:
    return name if conv or not name.startswith("blocks.") else f"blocks3.{name.removeprefix('blocks.')}"
