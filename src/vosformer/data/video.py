"""A labelled video on disk, and how frames are picked from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vosformer.data.media import read_image, read_labels
from vosformer.data.types import Image, Labels
from vosformer.errors import DataError


@dataclass(frozen=True)
class Video:
    """Frames of one video with the label map of each.

    Attributes:
        name: as the data set names it.
        frames: picture files in order; only frames that have labels.
        masks: the label map of each frame.
        binary: every label above 0 means object 1.
        stride: how many frames of the source lie between two of these (5 for YouTube-VOS, labelled at 6 of 30 frames a second).
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]
    binary: bool = False
    stride: int = 1

    def __len__(self) -> int:
        return len(self.frames)

    def load(self, index: int) -> tuple[Image, Labels]:
        """Picture uint8 [H,W,3] and labels uint8 [H,W] of one frame.

        Raises:
            DataError: a file cannot be read, or the two differ in size.
        """
        image, labels = read_image(self.frames[index]), self.labels(index)
        if image.shape[:2] != labels.shape:
            raise DataError(
                f"{self.masks[index]}: the mask is {labels.shape[0]} x {labels.shape[1]} pixels, "
                f"its frame {self.frames[index]} is {image.shape[0]} x {image.shape[1]}"
            )
        return image, labels

    def labels(self, index: int) -> Labels:
        """Labels uint8 [H,W] of one frame."""
        return read_labels(self.masks[index], self.binary)


@dataclass(frozen=True)
class Curriculum:
    """A value that changes as training goes on.

    Attributes:
        values: (item index from which it holds, value), in ascending order, the first at index 0.
    """

    values: tuple[tuple[int, int], ...]

    def at(self, index: int) -> int:
        """The value for item `index`."""
        return next(value for start, value in reversed(self.values) if index >= start)


def reflect(index: int, length: int) -> int:
    """Fold an index that runs past either end back into 0..length-1, without repeating the end frames."""
    if length == 1:
        return 0
    index %= 2 * (length - 1)
    return index if index < length else 2 * (length - 1) - index


def frame_times(rng: np.random.Generator, count: int, max_gap: int) -> list[int]:
    """`count` times from 0 on, with gaps drawn uniformly from 1..max_gap; backwards in half of the cases."""
    gaps = rng.integers(1, max_gap + 1, count - 1)
    times = [0, *(int(t) for t in np.cumsum(gaps))]
    return [-t for t in times] if rng.random() < 0.5 else times
