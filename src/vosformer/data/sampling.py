"""Which frames make a clip, which objects stay in it, and how two clips are merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vosformer.data.datasets.video import Video, reflect
from vosformer.data.types import IGNORE, Image, Labels, new_ids


@dataclass(frozen=True)
class GapSampling:
    """AOT's, DeAOT's and OneVOS's way: a reference frame, then frames with gaps of 1..max_gap, reflected at the ends.

    Attributes:
        frames: T.
        reverse: probability that time runs backwards.
        reference_pixels: a reference with more foreground pixels than this is preferred.
        reference_tries: draws of the reference before the last is taken.
        tries: draws of the clip until the reference shows every object of its other frames; the last is taken anyway.
    """

    frames: int = 5
    reverse: float = 0.5
    reference_pixels: int = 200
    reference_tries: int = 20
    tries: int = 5

    def __call__(self, rng: np.random.Generator, video: Video, max_gap: int) -> list[int]:
        """Return the indices of the clip's frames; the first is the reference."""
        way = -1 if rng.random() < self.reverse else 1
        seen: dict[int, NDArray[np.intp]] = {}

        def areas(index: int) -> NDArray[np.intp]:
            if index not in seen:
                seen[index] = np.bincount(video.labels(index).ravel(), minlength=256)[1:IGNORE]
            return seen[index]

        indices: list[int] = []
        for _ in range(self.tries):
            for _ in range(self.reference_tries):
                reference = int(rng.integers(len(video)))
                if areas(reference).sum() > self.reference_pixels:
                    break
            gaps = rng.integers(1, max_gap + 1, self.frames - 1)
            indices = [reference, *(reflect(reference + way * int(step), len(video)) for step in np.cumsum(gaps))]
            if not any(((areas(index) > 0) & (areas(reference) == 0)).any() for index in indices[1:]):
                break
        return indices


@dataclass(frozen=True)
class PairSampling:
    """SimVOS's way: a frame and one that is 1..max_gap - 1 frames later; backwards in half of the cases.

    Attributes:
        reverse: probability that time runs backwards.
        tries: draws until the first frame shows an object; the last is taken anyway.
    """

    reverse: float = 0.5
    tries: int = 5

    @property
    def frames(self) -> int:
        """T."""
        return 2

    def __call__(self, rng: np.random.Generator, video: Video, max_gap: int) -> list[int]:
        """Return the indices of the clip's frames."""
        indices: list[int] = []
        for _ in range(self.tries):
            reach = min(max(1, max_gap - 1), len(video) - 1)
            gap = int(rng.integers(1, reach + 1)) if reach else 0
            first = int(rng.integers(len(video) - gap))
            indices = [first, first + gap]
            if rng.random() < self.reverse:
                indices.reverse()
            if _shows_object(video, indices[0]):
                break
        return indices


@dataclass(frozen=True)
class SpreadSampling:
    """JointFormer's way: a random set that grows by frames within max_gap of those already chosen; sorted, at times reversed.

    Attributes:
        frames: T.
        reverse: probability that time runs backwards.
        tries: draws until the first frame shows an object; the last is taken anyway.
    """

    frames: int = 4
    reverse: float = 0.5
    tries: int = 5

    def __call__(self, rng: np.random.Generator, video: Video, max_gap: int) -> list[int]:
        """Return the indices of the clip's frames. A video with too few frames repeats its ends, as if played back and forth."""
        indices: list[int] = []
        for _ in range(self.tries):
            indices = self._draw(rng, len(video), max_gap)
            if rng.random() < self.reverse:
                indices.reverse()
            if _shows_object(video, indices[0]):
                break
        return indices

    def _draw(self, rng: np.random.Generator, length: int, max_gap: int) -> list[int]:
        if length < self.frames:
            return [reflect(i, length) for i in range(self.frames)]
        chosen = {int(rng.integers(length))}
        while len(chosen) < self.frames:
            near = {i for c in chosen for i in range(max(0, c - max_gap), min(length, c + max_gap + 1))} - chosen
            chosen.add(int(rng.choice(sorted(near))))
        return sorted(chosen)


Sampling = GapSampling | PairSampling | SpreadSampling


def merge(
    first: tuple[Sequence[Image], Sequence[Labels]], second: tuple[Sequence[Image], Sequence[Labels]]
) -> tuple[list[Image], list[Labels]]:
    """Paste the objects of the second clip, pixel by pixel, on the first (AOT's dynamic merge). Sizes and lengths are equal.

    The second clip's ids follow those of the first; ids beyond 254 do not fit and are dropped.
    """
    offset = max(int(np.where(labels == IGNORE, 0, labels).max()) for labels in first[1])
    images, merged = [], []
    for picture, labels, upper, upper_labels in zip(*first, *second, strict=True):
        ids = upper_labels.astype(np.int64) + offset
        solid = (upper_labels > 0) & (upper_labels != IGNORE) & (ids < IGNORE)
        images.append(np.where(solid[..., None], upper, picture))
        merged.append(np.where(solid, ids, labels).astype(np.uint8))
    return images, merged


def keep_objects(
    rng: np.random.Generator, labels: Sequence[Labels], min_pixels: int, limit: int, shuffle: bool = True
) -> tuple[list[Labels], int]:
    """Renumber the objects of a clip to 1..n: those with more than `min_pixels` in the first frame, at most `limit` of them.

    Which ones is drawn at random; all others become background; 255 stays. With `shuffle` the new ids are a random permutation,
    else they keep their order.
    """
    areas = np.bincount(labels[0].ravel(), minlength=256)
    areas[[0, IGNORE]] = 0
    kept = rng.permutation(np.flatnonzero(areas > min_pixels))[:limit]
    if not shuffle:
        kept = np.sort(kept)
    table = new_ids(kept)
    return [table[frame] for frame in labels], len(kept)


def without_hidden(labels: Sequence[Labels]) -> list[Labels]:
    """Make objects background that are small in the first frame and not in the next two (JointFormer's rule for BL30K).

    An object counts with more than 30 x 30 pixels in the first frame, or with more than 10 x 10 there and fewer than 20 x 20 in both
    of the next ones.
    """
    areas = np.stack([np.bincount(frame.ravel(), minlength=256) for frame in labels[:3]])
    small = (areas[0] > 10 * 10) & (areas[1:].max(0, initial=0) < 20 * 20)
    counts = (areas[0] > 30 * 30) | small
    table = np.where(counts, np.arange(256), 0).astype(np.uint8)
    table[IGNORE] = IGNORE
    return [table[frame] for frame in labels]


class EpochOrder:
    """Endless order of `count` entries: every epoch is a random permutation, a pure function of (seed, epoch)."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._latest = (0, self._permutation(0))  # only saves time: what comes out never depends on it

    def __getitem__(self, index: int) -> int:
        epoch, position = divmod(index, self.count)
        if self._latest[0] != epoch:
            self._latest = (epoch, self._permutation(epoch))
        return int(self._latest[1][position])

    def _permutation(self, epoch: int) -> NDArray[np.intp]:
        return np.random.default_rng([self.seed, epoch, 7]).permutation(self.count)


def _shows_object(video: Video, index: int) -> bool:
    labels = video.labels(index)
    return bool(((labels > 0) & (labels != IGNORE)).any())
