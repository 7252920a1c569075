"""A labeled video on disk, and how frames are picked from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from vosformer.data.datasets.media import is_black_and_white, read_image, read_labels, read_values
from vosformer.data.types import Image, Labels
from vosformer.errors import DataError


@dataclass(frozen=True)
class Video:
    """Frames of one video with the label map of each.

    Attributes:
        name: as the data set names it.
        frames: picture files in order; only frames that have labels.
        masks: the label map of each frame.
        binary: every label above 0 means object 1; None: if no mask of the video holds anything but 0 and 255.
        stride: how many frames of the source lie between two of these (5 for YouTube-VOS, labeled at 6 of 30 frames a second).
        things_from: only values from this one on are objects, numbered 1, 2, ... through the whole video (125 in VIPSeg's panoptic
            masks, where lower values are regions without instances).
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]
    binary: bool | None = False
    stride: int = 1
    things_from: int | None = None

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
        if self.things_from is None:
            return read_labels(self.masks[index], _is_binary(self) if self.binary is None else self.binary)
        values = read_values(self.masks[index])
        labels = np.zeros(values.shape, np.uint8)
        for number, thing in enumerate(_things(self), 1):
            labels[values == thing] = number
        return labels


@lru_cache(maxsize=4096)
def _is_binary(video: Video) -> bool:
    """Tell whether all masks are black and white or empty; a file that cannot be read is left to those who need it."""
    found = False
    for path in video.masks:
        try:
            values = read_values(path)
        except DataError:
            continue
        if is_black_and_white(values):
            found = True
        elif values.any():
            return False
    return found


@lru_cache(maxsize=4096)
def _things(video: Video) -> tuple[int, ...]:
    """Return the values of a video's objects in ascending order: at most 254, so that they fit into labels."""
    found: set[int] = set()
    for path in video.masks:
        found.update(int(v) for v in np.unique(read_values(path)) if v >= (video.things_from or 0))
    return tuple(sorted(found)[:254])


@dataclass(frozen=True)
class Curriculum:
    """A value that changes as training goes on.

    Attributes:
        values: (item index from which it holds, value), in ascending order, the first at index 0.
    """

    values: tuple[tuple[int, int], ...]

    def at(self, index: int) -> int:
        """Return the value for item `index`."""
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
