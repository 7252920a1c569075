"""One object of a picture in a crop around it: what an interactive segmenter is trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vosformer.data.augmentation.photometric import Jitter
from vosformer.data.datasets.media import bounding_box
from vosformer.data.datasets.picture import Still
from vosformer.data.datasets.video import Video
from vosformer.data.sampling import EpochOrder
from vosformer.data.types import IGNORE, Clip, ClipDataset, Image, Labels, to_clip
from vosformer.errors import DataError

_TRIES = 20
_JITTER = Jitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03, probability=0.8)

Draw = Callable[[np.random.Generator, int], tuple[Image, Labels]]
"""(generator, item number) -> a picture uint8 [H,W,3] and its labels uint8 [H,W]."""


@dataclass(frozen=True)
class Zoom:
    """How large a crop is around an object of so many pixels.

    Attributes:
        near: (smallest, largest) long side of a near crop, as multiple of the object's long side.
        far: the same of a far crop, up to the whole picture.
        share: probability of a near one.
        stretch: the aspect is changed by a factor of up to e^stretch.
        min_pixels: smaller objects are not looked at.
        min_shown: no crop is so large that it shows fewer pixels of the object than this.
    """

    near: tuple[float, float] = (1.1, 1.9)
    far: tuple[float, float] = (1.9, 20.0)
    share: float = 0.5
    stretch: float = 0.2
    min_pixels: int = 300
    min_shown: int = 40


class ObjectCrops(ClipDataset):
    """Clips of one frame: a crop around one object, labeled 1; all other objects are background.

    Args:
        source: where pictures come from.
        crop: side of the square crops, pixels.
        seed: of the stream.
        zoom: how large they are before they are resized.
    """

    def __init__(self, source: Draw, crop: int, seed: int = 0, zoom: Zoom | None = None) -> None:
        super().__init__(seed)
        self.source, self.crop, self.zoom = source, crop, zoom or Zoom()

    def draw(self, rng: np.random.Generator, index: int) -> Clip:
        """Make one crop; pictures without an object that is large enough are drawn again.

        Raises:
            DataError: a file is broken, or none of many pictures shows an object.
        """
        for attempt in range(_TRIES):
            image, labels = self.source(rng, index if attempt == 0 else int(rng.integers(1 << 30)))
            areas = np.bincount(labels.ravel(), minlength=256)
            areas[[0, IGNORE]] = 0
            ids = np.flatnonzero(areas >= self.zoom.min_pixels)
            if len(ids):
                return self._cut(rng, image, labels, int(rng.choice(ids)))
        raise DataError(
            f"{_TRIES} pictures in a row show no object of {self.zoom.min_pixels} pixels: run `vosformer data check`"
        )

    def _cut(self, rng: np.random.Generator, image: Image, labels: Labels, object: int) -> Clip:
        box = bounding_box(labels == object)
        assert box is not None
        top, bottom, left, right = box
        long = max(bottom - top, right - left)
        zoom = self.zoom
        low, high = (math.log(factor) for factor in (zoom.near if rng.random() < zoom.share else zoom.far))
        largest = self.crop * math.sqrt((labels == object).sum() / zoom.min_shown)
        side = min(long * math.exp(rng.uniform(low, high)), largest)
        stretch = math.exp(rng.uniform(-zoom.stretch, zoom.stretch))
        rows = _window(rng, labels.shape[0], side * stretch, top, bottom)
        columns = _window(rng, labels.shape[1], side / stretch, left, right)
        truth = np.where(labels == IGNORE, IGNORE, labels == object).astype(np.uint8)[rows, columns]
        flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
        size = (self.crop, self.crop)
        part = image[rows, columns]
        way = cv2.INTER_AREA if min(part.shape[:2]) > self.crop else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(part, size, interpolation=way), np.uint8)[:, flip]
        mask = np.asarray(cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST), np.uint8)[:, flip]
        return to_clip([_JITTER.draw(rng)(np.ascontiguousarray(picture))], [mask], 1)


def from_stills(stills: Sequence[Still], seed: int) -> Draw:
    """Return every picture once an epoch.

    Raises:
        DataError: there is none.
    """
    if not stills:
        raise DataError("there is no labeled picture to cut objects from")
    order = EpochOrder(len(stills), seed)
    return lambda rng, index: stills[order[index]].load()


def from_videos(videos: Sequence[Video]) -> Draw:
    """Any frame of any video, all videos alike.

    Raises:
        DataError: there is none.
    """
    if not videos:
        raise DataError("there is no labeled video to cut objects from")

    def draw(rng: np.random.Generator, index: int) -> tuple[Image, Labels]:
        video = videos[int(rng.integers(len(videos)))]
        return video.load(int(rng.integers(len(video))))

    return draw


def from_clips(clips: ClipDataset) -> Draw:
    """Return the first frames of a stream of clips."""

    def draw(rng: np.random.Generator, index: int) -> tuple[Image, Labels]:
        clip = clips[index]
        return clip.images[0].permute(1, 2, 0).numpy(), clip.labels[0].numpy()

    return draw


def _window(rng: np.random.Generator, length: int, side: float, first: int, last: int) -> slice:
    """Return a range of about `side` pixels inside `length` that holds most of first..last, which may lie anywhere in it."""
    size = int(min(length, max(side, 16.0)))
    slack = size - (last - first)
    begin = first - rng.uniform(-0.1 if slack < 0 else 0.0, 1.0) * slack
    begin = int(np.clip(begin, 0, length - size))
    return slice(begin, begin + size)
