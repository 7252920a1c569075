"""A tiny system for the trainer's tests: a convolutional encoder, and attention over what the memory holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.data.types import Clip
from vosformer.geometry import Geometry
from vosformer.memory import Memory
from vosformer.policy import EveryK
from vosformer.protocol import Entry, Features, Merging, ObjectMasks, Reading, VOSModel


class Dummy(VOSModel):
    """Attention from the frame's tokens to remembered ones, whose values are downsampled masks through an identity embedding."""

    geometry = Geometry()
    policy = EveryK(gap=5, capacity=8)

    def __init__(self, slot_size: int = 10, feedback: str = "hard", width: int = 16) -> None:
        super().__init__()
        self.slot_size = slot_size
        self.feedback = feedback
        self.merging = Merging.STM if slot_size == 1 else Merging.AOT
        self.shares_memory = slot_size > 1
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        )
        self.key = nn.Conv2d(width, width, 1)
        self.id_bank = nn.Linear(slot_size, width)
        self.head = nn.Conv2d(2 * width, 1 + slot_size, 3, padding=1)
        self.reads: list[tuple[int, int]] = []

    def encode(self, image: Tensor) -> Features:
        return Features(image, (self.encoder(image),))

    def read(self, features: Features, memory: Memory, **options: Any) -> Reading:
        (level,) = features.pyramid
        bank, last = memory.bank(0), memory.last(0)
        slots = (bank or last)["k"].shape[0]
        level = level.repeat_interleave(slots // level.shape[0], 0)
        query = self.key(level).flatten(2).transpose(1, 2)
        keys = torch.cat([part["k"] for part in (bank, last) if part], 1)
        values = torch.cat([part["v"] for part in (bank, last) if part], 1)
        self.reads.append((memory.last_frame.number if memory.last_frame else -1, len(memory.frames)))
        found = F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).unflatten(2, level.shape[-2:])
        return Reading(self.head(torch.cat([level, found], 1)))

    def write(self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: Memory | None) -> Entry:
        (level,) = features.pyramid
        level = level.repeat_interleave(masks.own.shape[0] // level.shape[0], 0)
        small = F.interpolate(masks.own, level.shape[-2:], mode="area").flatten(2).transpose(1, 2)
        return Entry(({"k": self.key(level).flatten(2).transpose(1, 2), "v": self.id_bank(small)},))

    def reference(self, features: Features, masks: ObjectMasks) -> tuple[Entry, list[Reading]]:
        entry = self.write(features, masks, None, None)
        memory = Memory(self.policy)
        memory.add(entry, 0, True)
        return entry, [self.read(features, memory)]


class Squares:
    """Colored squares that move over noise; clip i is a function of i alone."""

    def __init__(self, count: int = 2, frames: int = 4, size: int = 33, vary: bool = False, side: int = 10) -> None:
        self._count, self._frames, self._size, self._vary, self._side = count, frames, size, vary, side

    def __getitem__(self, index: int) -> Clip:
        random = np.random.default_rng((7, index))
        count = int(random.integers(1, self._count + 1)) if self._vary else self._count
        images = random.integers(0, 60, (self._frames, 3, self._size, self._size), dtype=np.uint8)
        labels = np.zeros((self._frames, self._size, self._size), np.uint8)
        for i in range(1, count + 1):
            y, x = random.integers(0, self._size - self._side - self._frames, 2)
            color = random.integers(100, 256, 3, dtype=np.uint8)
            for t in range(self._frames):
                images[t, :, y + t : y + t + self._side, x : x + self._side] = color[:, None, None]
                labels[t, y + t : y + t + self._side, x : x + self._side] = i
        return Clip(torch.from_numpy(images), torch.from_numpy(labels), count)
