"""Training streams of the papers: clips of labeled videos, and clips made from pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vosformer.data.augmentation.pipelines import StillAugment, VideoAugment
from vosformer.data.datasets.picture import Still
from vosformer.data.datasets.video import Curriculum, Video
from vosformer.data.sampling import EpochOrder, Sampling, keep_objects, merge, without_hidden
from vosformer.data.types import IGNORE, Clip, ClipDataset, Image, Labels, to_clip
from vosformer.errors import DataError

_TRIES = 20
_IGNORED_TRIES = 5


@dataclass(frozen=True)
class VideoSource:
    """The videos of one data set, and how they are drawn.

    Attributes:
        name: of the set.
        videos: its videos.
        max_gap: largest gap between frames of a clip, in labeled frames, by item index.
        repeat: how often each video is drawn in an epoch.
    """

    name: str
    videos: tuple[Video, ...]
    max_gap: Curriculum
    repeat: int = 1


@dataclass(frozen=True)
class Selection:
    """Which objects a clip keeps.

    Attributes:
        max_objects: at most so many, drawn at random; the others become background.
        min_pixels: an object counts if it has more pixels than this in the first frame.
        merge: probability that the objects of a second clip are pasted on top.
        ignored: a clip with a larger share of pixels 255 in one of its frames is drawn again, up to 5 times.
        vanishing: also an object of up to 900 pixels in the first frame that is larger than 20 x 20 in one of the next two is left
            out, since too little of it is shown first (BL30K).
    """

    max_objects: int = 10
    min_pixels: int = 100
    merge: float = 0.0
    ignored: float = 1.0
    vanishing: bool = False


class VideoClips(ClipDataset):
    """Clips of labeled videos, sampled and augmented as a paper does.

    Args:
        sources: the data sets; an epoch draws each video `repeat` times.
        sampling: which frames make a clip.
        augment: the pipeline.
        selection: which objects stay.
        seed: of the stream.

    Raises:
        DataError: there is no video at all.
    """

    def __init__(
        self, sources: Sequence[VideoSource], sampling: Sampling, augment: VideoAugment, selection: Selection, seed: int = 0
    ) -> None:
        super().__init__(seed)
        self.sampling, self.augment, self.selection = sampling, augment, selection
        self._entries = [(s, v) for s in sources for v in s.videos for _ in range(s.repeat)]
        if not self._entries:
            raise DataError(f"there is no video to train on in {', '.join(s.name for s in sources) or 'an empty list of sets'}")
        self._order = EpochOrder(len(self._entries), seed)

    def draw(self, rng: np.random.Generator, index: int) -> Clip:
        """Make one clip. A clip whose first frame shows no object is replaced by one of another video.

        Raises:
            DataError: a file is broken, or none of many videos shows an object.
        """
        entry = self._order[index]
        for _ in range(_TRIES):
            images, labels = self._clip(rng, index, entry)
            if rng.random() < self.selection.merge or not _has_objects(labels[0]):
                second = self._clip(rng, index, int(rng.integers(len(self._entries))))
                images, labels = merge((images, labels), second)
            if self.selection.vanishing:
                labels = without_hidden(labels)
            labels, count = keep_objects(rng, labels, self.selection.min_pixels, self.selection.max_objects)
            if count:
                return to_clip(images, labels, count)
            entry = int(rng.integers(len(self._entries)))
        raise DataError(
            f"{_TRIES} clips in a row show no object, the last of video {self._entries[entry][1].name!r}"
            f" (255 is for pixels that do not count; objects are 1, 2, ...): run `vosformer data check`"
        )

    def _clip(self, rng: np.random.Generator, index: int, entry: int) -> tuple[list[Image], list[Labels]]:
        source, video = self._entries[entry]
        for _ in range(_IGNORED_TRIES):
            frames = [video.load(i) for i in self.sampling(rng, video, source.max_gap.at(index))]
            images, labels = self.augment(rng, [image for image, _ in frames], [labels for _, labels in frames])
            if max(float((ids == IGNORE).mean()) for ids in labels) <= self.selection.ignored:
                break
        return images, labels


class StillClips(ClipDataset):
    """Clips made from labeled pictures (the papers' synthetic pre-training).

    Args:
        stills: the pictures; repeat entries to weight a set.
        augment: the pipeline.
        selection: which objects stay.
        frames: T.
        seed: of the stream.

    Raises:
        DataError: there is no picture.
    """

    def __init__(
        self, stills: Sequence[Still], augment: StillAugment, selection: Selection, frames: int, seed: int = 0
    ) -> None:
        super().__init__(seed)
        if not stills:
            raise DataError("there is no labeled picture to train on")
        self.stills, self.augment, self.selection, self.frames = stills, augment, selection, frames
        self._order = EpochOrder(len(stills), seed)

    def draw(self, rng: np.random.Generator, index: int) -> Clip:
        """Make one clip; with probability `selection.merge` (or if nothing is left) a second picture's objects are pasted on it.

        Raises:
            DataError: a file is broken, or none of many pictures shows an object.
        """
        entry = self._order[index]
        for _ in range(_TRIES):
            images, labels = self._clip(rng, entry)
            if rng.random() < self.selection.merge or (self.selection.merge and not _has_objects(labels[0])):
                images, labels = merge((images, labels), self._clip(rng, int(rng.integers(len(self.stills)))))
            labels, count = keep_objects(rng, labels, self.selection.min_pixels, self.selection.max_objects)
            if count:
                return to_clip(images, labels, count)
            entry = int(rng.integers(len(self.stills)))
        raise DataError(
            f"{_TRIES} pictures in a row show no object, the last {self.stills[entry].name}; `vosformer data check` tells more"
        )

    def _clip(self, rng: np.random.Generator, entry: int) -> tuple[list[Image], list[Labels]]:
        image, labels = self.stills[entry].load()
        # At most so many objects of one picture, so that a crowd does not push out the picture that is pasted on it.
        labels = keep_objects(rng, [labels], 0, self.selection.max_objects)[0][0]
        return self.augment(rng, image, labels, self.frames)


def _has_objects(labels: Labels) -> bool:
    return bool(((labels > 0) & (labels != IGNORE)).any())
