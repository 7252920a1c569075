"""A seventh system in one file: a space-time memory network (Oh et al., ICCV 2019) on MobileNetV2.

Every object is a pass of its own. The current frame's keys look up the values of remembered frames, which know the object's mask; a
decoder makes a new mask of what was found. As in STCN, one encoder serves the frame as it is read and as it is remembered.

Run this file to see it follow a square:

    python examples/stm.py
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vosformer import Session, Variant, build, register
from vosformer.geometry import padded
from vosformer.models.identity_system import EncoderName, build_encoder
from vosformer.nn.attention import attend
from vosformer.nn.conv import Conv2d
from vosformer.nn.maps import Grid, per_slot, to_map, to_tokens
from vosformer.nn.stm_decoder import ResBlock, Skips, STMDecoder
from vosformer.policy import EveryK
from vosformer.protocol import Entry, Features, MemoryView, Merging, ObjectMasks, Reading, VOSModel
from vosformer.registry import build_from


@dataclass(frozen=True)
class STMConfig:
    """Hyper-parameters: the encoder, the channels of keys and values, and the gap between remembered frames."""

    encoder: EncoderName = "mobilenet_v2"
    key: int = 128
    value: int = 512
    decoder: int = 256
    gap: int = 5


class STM(VOSModel):
    """The system; `Features.pyramid` holds maps at strides 4 and 8 for the decoder, the keys, and the values without a mask."""

    slot_size = 1
    geometry = padded("bilinear")
    shares_memory = False
    feedback = "soft"
    merging = Merging.STM
    write_ignores_memory = True

    def __init__(self, config: STMConfig) -> None:
        super().__init__()
        self.config = config
        self.policy = EveryK(config.gap, None)  # and the last frame, which every memory keeps
        self.encoder = build_encoder(config.encoder, 2)
        at4, at8, _, last = self.encoder.channels
        self.key = Conv2d(last, config.key, 3, padding=1)
        self.value = Conv2d(last, config.value, 3, padding=1)
        self.mask = Conv2d(2, config.value, 16, stride=16)
        self.join = ResBlock(config.value, config.value)
        self.decoder = STMDecoder(2 * config.value, at8, at4, config.value, config.decoder)

    def encode(self, image: Tensor) -> Features:
        """Make keys and values of a frame that know no object."""
        f4, f8, _, last = self.encoder(image)
        skips = self.decoder.skips(f8, f4)
        return Features(image, (skips.at4, skips.at8, self.key(last), self.value(last)))

    def read(self, features: Features, memory: MemoryView) -> Reading:
        """Look up the values of all remembered places, and decode them beside the frame's own."""
        past = memory.references(0)
        slots = len(past[0]["k"])
        key, own = (per_slot(level, slots) for level in features.pyramid[2:])
        found = attend(to_tokens(key), [p["k"] for p in past], [p["v"] for p in past], heads=1)
        x = torch.cat([to_map(found, Grid(*own.shape[-2:])), own], 1)
        at4, at8 = features.pyramid[:2]
        logits = self.decoder(x, Skips(at8=at8, at4=at4)).logits
        return Reading(torch.cat([torch.zeros_like(logits), logits], 1))

    def write(self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: MemoryView | None) -> Entry:
        """Leave the keys, and values that know the masks of the object and of all others."""
        slots = len(masks.own)
        planes = torch.cat([masks.own, masks.others], 1).to(features.image.dtype)
        values = self.join(per_slot(features.pyramid[3], slots) + self.mask(planes))
        keys = to_tokens(per_slot(features.pyramid[2], slots))
        return Entry(({"k": keys.contiguous(), "v": to_tokens(values)},))


SMALL = {"encoder": "tiny", "key": 16, "value": 32, "decoder": 16}
register(Variant("stm-mobilenet", "stm", partial(build_from, STM, STMConfig(), SMALL), "STM on MobileNetV2, as an example"))

if __name__ == "__main__":
    frame, labels = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.int32)
    frame[16:40, 16:40] = labels[16:40, 16:40] = 1
    session = Session(build("stm-mobilenet", tiny=True), size=64)
    session.step(frame, labels)
    print("pixels of the object, with random weights:", int((session.step(frame).labels == 1).sum()))
