"""AOT: our names are the official ones (aot-benchmark)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from vosformer.convert import encoders

# The official code has had it since the DeAOT release and never reads it; the AOT checkpoints are older than that.
UNUSED = r"LSTT\.mask_token"
OPTIONAL = (UNUSED, *encoders.OPTIONAL)
WRAPPED = True


def from_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Leaves out the unused mask token and what an encoder file may have more (classifier, last stage)."""
    own = model.state_dict().keys()
    return {name: tensor for name, tensor in state.items() if name in own or not _ignorable(name)}


def to_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the same tensors."""
    return dict(state)


def from_pretrained(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the encoder's tensors of an ImageNet file of MobileNetV2, ResNet-50 or Swin-B."""
    return encoders.from_pretrained(state, model)


def _ignorable(name: str) -> bool:
    if re.fullmatch(UNUSED, name):
        return True
    encoder = name.removeprefix("encoder.")
    return encoder != name and encoders.unused(encoder)
