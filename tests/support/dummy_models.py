"""Models without weights that really track: they match colors. What a session must do can be seen exactly with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vosformer.geometry import FrameSize, Geometry, Placement
from vosformer.policy import EveryK, Policy
from vosformer.protocol import Entry, Features, MemoryView, Merging, ObjectMasks, Reading, VOSModel
from vosformer.testing import moving_squares

flat_clip = moving_squares


class NeverEnlarged(Geometry):
    """Shows small frames as they are: colors need no more pixels, and the tests take less time."""

    def place(self, height: int, width: int, size: FrameSize, scale: float = 1.0) -> Placement:
        small = isinstance(size, int) and size >= min(height, width)
        return super().place(height, width, None if small else size, scale)


class ColorModel(VOSModel):
    """Every pixel of stride 4 looks up, among all remembered pixels, whose color it has."""

    geometry: Geometry = NeverEnlarged()
    policy: Policy = EveryK(2, None)

    def __init__(self, slot_size: int = 3) -> None:
        super().__init__()
        self.slot_size = slot_size
        self.weight = nn.Parameter(torch.zeros(1))

    def encode(self, image: Tensor) -> Features:
        return Features(image, (self._sample(image),))

    def _sample(self, values: Tensor) -> Tensor:
        first = 0 if self.geometry.align_corners else 2
        return values[..., first::4, first::4]

    def read(self, features: Features, memory: MemoryView, sharpness: float = 50.0) -> Reading:
        colors = features.pyramid[0].flatten(2).transpose(1, 2).float()
        known = {**memory.last(0)}
        for name, tensor in memory.bank(0).items():
            known[name] = torch.cat([known[name], tensor], 1)
        near = (-sharpness * torch.cdist(colors, known["color"].float())).softmax(-1)
        masks = (near @ known["mask"].float()).transpose(1, 2).unflatten(2, features.pyramid[0].shape[-2:])
        return Reading(masks.clamp(1e-6, 1).log())

    def write(self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: MemoryView | None) -> Entry:
        colors = features.pyramid[0].flatten(2).transpose(1, 2)
        planes = torch.cat([1 - masks.own.sum(1, keepdim=True), masks.own], 1)
        small = self._sample(planes).flatten(2).transpose(1, 2)
        layer = {"color": colors.expand(small.shape[0], -1, -1).clone(), "mask": small}
        return Entry((layer,))


class PerObjectColorModel(ColorModel):
    """The same with one object a slot, soft feedback and STM's aggregation."""

    geometry = NeverEnlarged("pad", False, short=480, long=None, scaled_short=None, resample="bilinear")
    shares_memory = False
    feedback = "soft"
    merging = Merging.STM

    def __init__(self) -> None:
        super().__init__(1)

    def read(self, features: Features, memory: MemoryView, sharpness: float = 50.0) -> Reading:
        logits = super().read(features, memory, sharpness).logits
        return Reading(torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:] - logits[:, :1]], 1))
