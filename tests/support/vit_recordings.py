"""Weights and clips of the recordings of the ViT systems, made again from their rules (names, shapes and integers alone)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vosformer.geometry import padded
from vosformer.inference.objects import merge_slots
from vosformer.memory import Memory
from vosformer.policy import Policy
from vosformer.protocol import Features, Merging, ObjectMasks, Reading


def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor's values from its official name and shape."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())), dtype=torch.float32)
    last = name.rsplit(".", 1)[-1]
    if noise.ndim <= 1:
        return 1 + 0.1 * noise if last == "weight" else 0.02 * noise
    if noise.ndim == 3 and shape[0] == 1:
        return 0.2 * noise
    return noise / (noise.numel() / shape[0]) ** 0.5


def fill(model: nn.Module, adapter: Any, keep: Collection[str] = ()) -> nn.Module:
    """Give a model the weights of the recordings, by way of the official names."""
    official = adapter.to_official(model.state_dict(), model)
    values = {name: old if name in keep else filled(name, tuple(old.shape)) for name, old in official.items()}
    model.load_state_dict(adapter.from_official(values, model))
    return model.eval().requires_grad_(False)


def make_clip(height: int, width: int, frames: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Three textured objects that move over noise: uint8 [T,h,w,3] and labels uint8 [T,h,w]."""
    back = _noise(height, width + frames * 4, 8, 1)
    textures = [_noise(2 * height, 2 * width, 4, 10 + k) for k in range(3)]
    tints = np.array([[60, -40, -40], [-40, 60, -40], [-40, -40, 60]])
    rows, columns = np.mgrid[:height, :width]

    def down(value: int) -> int:
        return value * height // 96

    def right(value: int) -> int:
        return value * width // 128

    images, labels = [], []
    for t in range(frames):
        image = back[:, 2 * t : 2 * t + width].astype(np.int64) // 2 + 64
        label = np.zeros((height, width), np.uint8)
        centers = [(34 + 3 * t, 30 + 6 * t), (60, 92 - 5 * t), (74 - 4 * t, 56 + 2 * t)]
        for k, (y, x) in enumerate(centers):
            dy, dx = rows - down(y), columns - right(x)
            if k == 0:
                inside = dy**2 + dx**2 <= down(20) * right(20)
            elif k == 1:
                inside = (abs(dy) <= down(18)) & (abs(dx) <= right(13))
            else:
                inside = abs(dy) * right(14) + abs(dx) * down(14) <= down(14) * right(14)
            texture = textures[k][np.clip(dy + height, 0, 2 * height - 1), np.clip(dx + width, 0, 2 * width - 1)]
            image = np.where(inside[..., None], texture.astype(np.int64) // 2 + 64 + tints[k], image)
            label[inside] = k + 1
        images.append(np.clip(image, 0, 255).astype(np.uint8))
        labels.append(label)
    return np.stack(images), np.stack(labels)


def _noise(height: int, width: int, cell: int, seed: int) -> NDArray[np.uint8]:
    y, x = (place // np.uint64(cell) for place in np.mgrid[:height, :width].astype(np.uint64))
    channels = []
    for c in range(3):
        value = (x * np.uint64(73856093)) ^ (y * np.uint64(19349663)) ^ np.uint64((c + 1) * 83492791 + seed * 2654435761)
        value = (value ^ (value >> np.uint64(13))) * np.uint64(1274126177) & np.uint64(0xFFFFFFFF)
        channels.append((value >> np.uint64(11)) & np.uint64(0xFF))
    return np.stack(channels, -1).astype(np.uint8)


def padding(size: tuple[int, int]) -> NDArray[np.int64]:
    """Columns left and right, rows above and below, that a clip of this (height, width) gets."""
    place = padded("bilinear").place(*size, None)
    right, below = place.network[1] - place.inner[1] - place.left, place.network[0] - place.inner[0] - place.top
    return np.array([place.left, right, place.top, below])


class Frame(NamedTuple):
    """One frame of a run, as the recordings want it."""

    features: Features
    reading: Reading | None
    logits4: Tensor | None  # [K,h,w]
    chances: Tensor | None  # [1+K,H,W], soft aggregation at padded size


class Run:
    """A per-object system that goes through the clip of the recordings.

    Args:
        model: the system.
        policy: its memory.
        size: (height, width) of the clip.
        frames: how many.
        ids: the objects, all given on frame 0.
        forced: the memory gets the true masks; else the soft aggregated probabilities.
        watch: called after each frame with its number and what came of it.
    """

    def __init__(
        self, model: Any, policy: Policy, size: tuple[int, int], frames: int, ids: tuple[int, ...], forced: bool = True,
        watch: Callable[[int, Frame], None] = lambda t, frame: None,
    ) -> None:  # fmt: skip
        images, labels = make_clip(*size, frames)
        place = padded("bilinear").place(*size, None)
        self.frames: list[Frame] = []
        self.tokens: list[Tensor | None] = []
        memory = Memory(policy)
        for t in range(frames):
            features = model.encode(model.geometry.image(images[t], place).to(model.norm.weight.dtype))
            known = model.geometry.labels(torch.from_numpy(labels[t].astype(np.int64)), place)
            masks = torch.stack([(known == i).to(model.norm.weight.dtype) for i in ids])
            reading, logits, chances = None, None, None
            if t:
                reading = model.read(features, memory)
                logits = reading.logits[:, 1]
                chances = aggregate(reading.logits, model.merging)
                if not forced:
                    masks = chances[1:]
            frame = Frame(features, reading, logits, chances)
            self.frames.append(frame)
            watch(t, frame)
            entry = model.write(features, targets(masks, t == 0), reading, memory if t else None)
            self.tokens.append(entry.token)
            memory.add(entry, t, t == 0)

    @property
    def logits4(self) -> Tensor:
        """[T-1,K,h,w]."""
        return torch.stack([frame.logits4 for frame in self.frames[1:] if frame.logits4 is not None])

    @property
    def labels(self) -> tuple[Tensor, Tensor]:
        """[T-1,H,W]: the most probable object of each place, and its distance from the second."""
        best = torch.stack([self.chances(t).topk(2, 0).values for t in range(1, len(self.frames))])
        labels = torch.stack([self.chances(t).argmax(0) for t in range(1, len(self.frames))])
        return labels, best[:, 0] - best[:, 1]

    def token(self, t: int) -> Tensor:
        """[K,C] after frame t."""
        found = self.tokens[t]
        assert found is not None
        return found[:, 0]

    def chances(self, t: int) -> Tensor:
        """[1+K,H,W] of frame t."""
        found = self.frames[t].chances
        assert found is not None
        return found


def targets(masks: Tensor, given: bool) -> ObjectMasks:
    """Masks [K,H,W] of objects that share a cohort -> what each slot is written with."""
    own = masks[:, None]
    return ObjectMasks(own, masks.sum(0, keepdim=True)[None] - own, given)


def aggregate(logits: Tensor, merging: Merging) -> Tensor:
    """Logits [K,2,h,w] at stride 4 of the objects of one sample -> probabilities [1+K,H,W]."""
    large = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    return merge_slots(list(large.split(1)), merging).softmax(1)[0]
