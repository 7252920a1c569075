"""Encoders trained on ImageNet: torchvision's MobileNetV2 and ResNet, EfficientNet-Lite, Microsoft's Swin; and ConvMAE's ConvViT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from vosformer.encoders.convmae import from_convmae
from vosformer.encoders.convvit import ConvViTEncoder
from vosformer.errors import WeightsError
from vosformer.nn.maps import Grid
from vosformer.nn.norm import FrozenBatchNorm2d
from vosformer.nn.vit_blocks import resize_positions

# Follows from the window size; files made for other programs may lack it.
OPTIONAL = (r".*\.relative_position_index",)

# What classification needs and a segmentation encoder does not.
_UNUSED = re.compile(
    r"classifier\..*|fc\..*|layer4\..*|layers\.3\..*|layers\.2\.downsample\..*|head\..*|norm\.(weight|bias)|.*attn_mask|.*num_batches_tracked"
)

# What pre-training does not give: Swin's norms of the outputs, and what follows from the window size.
_FRESH = re.compile(rf"norm[012]\.(weight|bias)|{OPTIONAL[0]}")


def unused(name: str) -> bool:
    """Tell whether an encoder has no use for a tensor of that name in an ImageNet file."""
    return _UNUSED.fullmatch(name) is not None


def from_pretrained(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors for `model.encoder` (or for `model`, if it has no such part), under the names that `model` has.

    Args:
        state: an ImageNet file's tensors, names with or without a leading `encoder.`. Convolutions may have their batch norm folded
            in: where a convolution of the file has a bias and ours has none, the norm after it becomes the identity plus that bias.
        model: what they are for.

    Raises:
        WeightsError: nothing in the file belongs to this encoder.
    """
    part = getattr(model, "encoder", None)
    encoder, prefix = (part, "encoder.") if isinstance(part, nn.Module) else (model, "")
    if isinstance(encoder, ConvViTEncoder):
        return {prefix + name: tensor for name, tensor in _convvit(state, encoder).items()}
    own = encoder.state_dict()
    file = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}
    if not any(name in own for name in file):
        raise WeightsError(
            f"none of its {len(state)} tensors ({', '.join(list(state)[:3])}, ...) belongs to the encoder {type(encoder).__name__} "
            f"({', '.join(list(own)[:3])}, ...)"
        )
    found = {name: tensor for name, tensor in file.items() if not unused(name)}
    for bias, norm in _norms_after_convolutions(encoder):
        folded = found.pop(bias, None) if bias not in own else None
        if folded is not None:
            found |= _identity_norm(norm, folded, encoder.get_submodule(norm))
    missing = [name for name in own if name not in found and not _FRESH.fullmatch(name)]
    if missing:
        raise WeightsError(
            f"{len(missing)} tensors of the encoder {type(encoder).__name__} are missing: {', '.join(missing[:10])}"
            f"{', ...' if len(missing) > 10 else ''}"
        )
    return {prefix + name: tensor for name, tensor in found.items()}


def _convvit(state: Mapping[str, Tensor], encoder: ConvViTEncoder) -> dict[str, Tensor]:
    """Return a ConvMAE file; its positions are resized to the encoder's table."""
    found = from_convmae({name.removeprefix("encoder."): tensor for name, tensor in state.items()})
    side = round(encoder.pos_embed.shape[1] ** 0.5)
    found["pos_embed"] = resize_positions(found["pos_embed"], Grid(side, side))
    # A file fine-tuned with average pooling has no final norm.
    missing = [name for name in encoder.state_dict() if name not in found and not name.startswith("norm.")]
    if missing:
        raise WeightsError(f"{len(missing)} tensors of the encoder ConvViT are missing: {', '.join(missing[:10])}")
    return found


def _norms_after_convolutions(encoder: nn.Module) -> Iterator[tuple[str, str]]:
    """Pairs (name of a convolution's bias, name of the batch norm that follows it in the order of definition)."""
    convolution = None
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d) and convolution is not None:
            yield f"{convolution}.bias", name
            convolution = None


def _identity_norm(name: str, shift: Tensor, norm: nn.Module) -> dict[str, Tensor]:
    """Return a batch norm's tensors that make it ``x + shift``, exactly: the variance makes up for eps."""
    eps = float(getattr(norm, "eps", 0.0))
    one, zero = torch.ones_like(shift, dtype=torch.float32), torch.zeros_like(shift, dtype=torch.float32)
    return {
        f"{name}.weight": one,
        f"{name}.bias": shift.float(),
        f"{name}.running_mean": zero,
        f"{name}.running_var": one - eps,
    }
