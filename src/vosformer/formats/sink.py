"""A sink of `track` that ends in any annotation format."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import OutputError
from vosformer.formats.api import write
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo, complete
from vosformer.formats.registry import find_format
from vosformer.io import Frame, Source
from vosformer.io.files import set_aside
from vosformer.io.records import Lines, Records
from vosformer.io.sinks import Probability


class FormatSink(Records):
    """Gathers the masks of all frames and writes them in a format when the run ends.

    Until then they lie in a part file of JSON lines, so that a killed run can go on; memory does not grow with the video but for
    formats that need all of it at once.

    Args:
        path: of the file, or of the folder, which is replaced.
        format: its name in `vosformer.formats.FORMATS`.
        video: name of the video.
        fps: frames per second, or None.
        length: frames of the whole video, where known.
        objects: id -> names, categories and colors.
        pictures: the frames, if the pictures are to be written, too.

    Raises:
        OutputError: the folder cannot be created.
    """

    def __init__(
        self, path: str | Path, format: str, video: str = "video", fps: Fraction | None = None, length: int | None = None,
        objects: Mapping[int, ObjectInfo] | None = None, pictures: Source | None = None,
    ) -> None:  # fmt: skip
        super().__init__(path)
        self._format = find_format(format)
        self._video, self._fps, self._length = video, fps, length or 0
        self._objects = dict(objects or {})
        self._pictures = pictures
        self._ids: tuple[int, ...] = ()
        self._aside: tuple[str, ...] = ()

    def check_ids(self, ids: Any) -> None:
        """Keep the ids that are given; ids below 1 fit no format."""
        self._ids = tuple(ids)
        if min(self._ids, default=1) < 1:
            raise OutputError(f"{self._path}: the id {min(self._ids)} does not fit {self._format.name}: expected 1 or more")

    def set_aside(self) -> None:
        """See `Sink.set_aside`."""
        if self._path.is_dir():
            self._aside = set_aside(self._path, "**/*.*")

    def write(self, frame: Frame, labels: NDArray[np.int32], scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        masks = {int(i): Mask.of(labels == i).counts for i in np.unique(labels) if i}
        known = {str(i): round(float(score), 6) for i, score in scores.items() if i in masks}
        size = list(labels.shape)
        record = {"frame": frame.number, "name": frame.name, "time": frame.time, "size": size, "masks": masks, "scores": known}
        self._lines.append(record)

    def _put_together(self, path: Path) -> None:
        frames = _Recorded(self._lines)
        first = next(iter(frames), None)
        if first is None:
            return
        size = next(self._lines.sorted())["size"]
        objects = complete([self._objects.get(i, ObjectInfo(i)) for i in self._ids], frames)
        objects = {i: self._objects.get(i, item) for i, item in objects.items()}
        length = max(self._length, frames.last + 1)
        video = LabeledVideo(self._video, size[0], size[1], frames, objects, self._fps, length)
        self.notes = self._aside + tuple(write(video, path, self._format.name, pictures=self._pictures, overwrite=True))


class _Recorded:
    """Labeled frames that are read from JSON lines each time."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        numbers = array("q", (record["frame"] for record in lines.sorted()))
        self._count = len(numbers)
        self.last = max(numbers, default=-1)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[LabeledFrame]:
        for record in self._lines.sorted():
            height, width = record["size"]
            masks = {int(i): Mask(height, width, counts) for i, counts in record["masks"].items()}
            scores = {int(i): score for i, score in record["scores"].items()}
            yield LabeledFrame(record["frame"], record["name"], masks, scores, record["time"])
