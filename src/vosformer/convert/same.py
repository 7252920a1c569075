"""The adapter of systems without official checkpoints: names stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vosformer.convert import encoders

OPTIONAL = encoders.OPTIONAL
WRAPPED = True


def from_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the same tensors."""
    return dict(state)


def to_official(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the same tensors."""
    return dict(state)


def from_pretrained(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the model's part `encoder`, or of the model itself, if it is a known encoder."""
    return encoders.from_pretrained(state, model)
