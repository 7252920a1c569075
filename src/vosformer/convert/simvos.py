"""SimVOS: official names (jimmy-dq/SimVOS) and ours; MAE files for its ViT."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vosformer.convert import names
from vosformer.encoders.vit import from_mae
from vosformer.errors import WeightsError
from vosformer.nn.maps import Grid
from vosformer.nn.vit_blocks import resize_positions

# The left-overs of MAE's ViT, in every official file; and the token refinement, which files of models without it have, too.
_UNUSED = re.compile(r"cls_token|pos_embed|head\..*|fc_norm\..*")
_REFINEMENT = re.compile(r"refine_(front|back)\..*")
_TABLE = (
    ("pos_embed_new", "positions"),
    *(
        (f"{official}.{theirs}.", f"{ours}.{mine}.")
        for official, ours in (("tlearner", "refine_front"), ("tlearner_back", "refine_back"))
        for theirs, mine in (
            ("norm", "norm"),
            ("input_norm", "input_norm"),
            ("patch_to_cluster_atten.0", "conv"),
            ("patch_to_cluster_linear", "assign"),
        )
    ),
    ("fpn1.0.", "fpn.up4."),
    ("fpn1.1.ln.", "fpn.norm."),
    ("fpn1.3.", "fpn.up2."),
    ("fpn2.0.", "fpn.up8."),
    ("stcn_decoder.", "decoder."),
)

OPTIONAL: tuple[str, ...] = ()
WRAPPED = False


def from_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors, and leave out what SimVOS never reads."""
    own = model.state_dict().keys()
    ours = names.to_ours({name: tensor for name, tensor in state.items() if not _UNUSED.fullmatch(name)}, _TABLE)
    refined = any(_REFINEMENT.match(name) for name in own)
    return {name: tensor for name, tensor in ours.items() if refined or not _REFINEMENT.match(name)}


def to_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors. Official code loads the result with `strict=False`, as it does its own files."""
    return names.to_theirs(state, _TABLE)


def from_pretrained(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return an MAE file's ViT; its position table is resized to ours (bicubic, the class token's row aside)."""
    own = model.state_dict()
    found = from_mae(state)
    table, side = found.pop("pos_embed"), round((own["positions"].shape[1] - 1) ** 0.5)
    found["positions"] = torch.cat([table[:, :1], resize_positions(table[:, 1:], Grid(side, side))], 1)
    missing = [name for name in own if name.startswith(("patch_embed.", "blocks.")) and name not in found]
    if missing:
        raise WeightsError(f"{len(missing)} tensors of the ViT are missing: {', '.join(missing[:10])}")
    return found
