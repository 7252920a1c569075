"""One training sample, and the data sets that make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vosformer.io.palette import VOID

IGNORE = VOID  # the name that losses use

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]


class Clip(NamedTuple):
    """One training sample: T frames of a video (real or made up), every frame with its labels.

    Attributes:
        images: uint8 [T,3,H,W], RGB. Normalization happens on the trainer's device.
        labels: uint8 [T,H,W]: 0 background, 1..count objects, 255 ignored.
        count: number of objects; ids 1..count all exist in frame 0.
    """

    images: Tensor
    labels: Tensor
    count: int  # type: ignore[assignment]  # `tuple.count` is not missed


class ClipDataset(Dataset[Clip]):
    """A stream of clips: item i is a pure function of (seed, i), in any process, so that a resumed run sees the same data.

    Subclasses implement `draw`. There are no epochs: training walks i = 0, 1, 2, ... (`len` is only there for torch's samplers).

    Args:
        seed: of the whole stream.
        length: what `len` returns.
    """

    def __init__(self, seed: int = 0, length: int = 1 << 40) -> None:
        self.seed = seed
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Clip:
        if index < 0:
            raise IndexError(f"clip {index}: streams start at 0")
        return self.draw(np.random.default_rng([self.seed, index]), index)

    def draw(self, rng: np.random.Generator, index: int) -> Clip:
        """Make one clip, with no other source of chance than `rng`."""
        raise NotImplementedError


def new_ids(kept: Sequence[int] | NDArray[np.intp]) -> Labels:
    """Build the table uint8 [256] that renumbers label maps: `kept` become 1, 2, ... in order, 255 stays, the others become 0."""
    table = np.zeros(256, np.uint8)
    table[IGNORE] = IGNORE
    table[kept] = np.arange(1, len(kept) + 1)
    return table


def to_clip(images: Sequence[Image], labels: Sequence[Labels], count: int) -> Clip:
    """Frames uint8 [H,W,3] and labels uint8 [H,W] -> a clip."""
    stacked = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    return Clip(torch.from_numpy(stacked), torch.from_numpy(np.ascontiguousarray(np.stack(labels))), count)
