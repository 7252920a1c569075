"""A very small OneVOS and clips for it, shared by the tests of OneVOS."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vosformer.encoders.convmae import ConvViTSize
from vosformer.memory import Memory
from vosformer.models.onevos import OneVOS, OneVOSConfig
from vosformer.protocol import ObjectMasks

SMALL = ConvViTSize((16, 16, 32), (1, 1, 3), (2, 2, 2), 2)
HEIGHT, WIDTH = 64, 96
N = 24


def small(depth: int = 3, **overrides: Any) -> OneVOS:
    """A model whose weights are large enough for attention to matter."""
    torch.manual_seed(0)
    size = ConvViTSize((16, 16, 32), (1, 1, depth), (2, 2, 2), 2)
    model = OneVOS(OneVOSConfig(size=size, decoder=16, grid=5, **overrides))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("patch_wise_id_bank"):
                parameter.mul_(8)  # 16 x 16 ones of a mask of one identity
            elif "selector" in name:
                parameter.normal_(0, 0.5)
            elif "linear_ID_KV" in name or parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def images(frames: int, samples: int = 1, seed: int = 1) -> list[Tensor]:
    """Frames [B,3,64,96] that change slowly."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(samples, 3, HEIGHT, WIDTH, generator=generator)
    return [first + 0.3 * t * torch.randn(samples, 3, HEIGHT, WIDTH, generator=generator) for t in range(frames)]


def masks(t: int, given: bool = False, slots: int = 1, objects: int = 2) -> ObjectMasks:
    """Squares that move to the right; every slot has its own."""
    own = torch.zeros(slots, 10, HEIGHT, WIDTH)
    for s in range(slots):
        for k in range(objects):
            own[s, k, 6 + 26 * k : 28 + 26 * k, 4 * t + 8 * s : 4 * t + 8 * s + 32] = 1
    return ObjectMasks(own, torch.zeros(slots, 1, HEIGHT, WIDTH), given)


def roll(
    model: OneVOS, memory: Memory, frames: int, slots: int = 1, samples: int = 1, given: tuple[int, ...] = (0,)
) -> list[Tensor]:
    """Go through a clip with true masks; the logits of the frames after the first."""
    found = []
    for t, image in enumerate(images(frames, samples)):
        features = model.encode(image.to(next(model.parameters()).dtype))
        reading = model.read(features, memory) if t else None
        if reading is not None:
            found.append(reading.logits)
        targets = masks(t, t in given, slots * samples)
        memory.add(model.write(features, targets, reading, memory if t else None), t, t in given)
    return found
