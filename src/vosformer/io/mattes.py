"""Mattes for video editors: one film or one sequence of pictures an object, white where the object is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vosformer.io.files import make_folder, set_aside, write_bytes
from vosformer.io.frames import Frame
from vosformer.io.parted_video import PartedVideo, encoder
from vosformer.io.sinks import Labels, Probability, Sink, png

_BT709 = 1
_FULL_RANGE = 2


def start_timecode(path: Path) -> str | None:
    """Return the time code of the first frame of a video file, or None if it has none."""
    try:
        with av.open(f"file:{path}") as container:
            tagged: list[Any] = [container, *container.streams]
            found = (value for item in tagged for key, value in item.metadata.items() if key.lower() == "timecode")
            return next(found, None)
    except (av.error.FFmpegError, OSError, ValueError):
        return None


def _gray(labels: Labels, scores: Mapping[int, float], probability: Probability, i: int) -> NDArray[np.uint8]:
    """Return the matte of an object, uint8 [H,W]; black where it is not tracked."""
    if i not in scores and not (labels == i).any():
        return np.zeros(labels.shape, np.uint8)
    return np.asarray(np.rint(probability(i).clip(0, 1) * 255), np.uint8)


class MatteImages(Sink):
    """A gray PNG an object and frame: `folder/<id>/<stem>.<frame name>.png`, numbered as the source; white is the object.

    Raises:
        OutputError: the folder cannot be created.
    """

    soft = True

    def __init__(self, folder: str | Path, stem: str) -> None:
        self._folder, self._stem = make_folder(Path(folder)), stem
        self.name = Path(folder).name
        self._ids: set[int] = set()

    def check_ids(self, ids: Iterable[int]) -> None:
        """Keep the ids, so that every sequence has a picture of every frame."""
        self._ids.update(ids)

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        for i in sorted(self._ids | set(scores)):
            folder = make_folder(self._folder / str(i))
            write_bytes(folder / f"{self._stem}.{frame.name}.png", png(_gray(labels, scores, probability, i)))

    def set_aside(self) -> None:
        """See `Sink.set_aside`."""
        self.notes = set_aside(self._folder, "[0-9]*/*.png")

    def present(self, frames: int) -> bool:
        """See `Sink.present`."""
        return not frames or any(self._folder.glob("*/*.png"))


class _MatteFilm(PartedVideo):
    """The film of one object; frames of the source that were not written are black."""

    soft = True

    def __init__(
        self, path: Path, i: int, fps: Fraction | None, count: int | None, timecode: str | None, codec: str, aspect: Fraction
    ) -> None:  # fmt: skip
        super().__init__(path, fps, encoder(codec), pixel_aspect=aspect)
        self._i, self._count = i, count
        self._timecode = timecode

    def _picture(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> av.VideoFrame:
        gray = _gray(labels, scores, probability, self._i)
        if self._codec == "ffv1":
            return av.VideoFrame.from_ndarray(gray, format="gray")
        even = np.pad(gray, ((0, gray.shape[0] % 2), (0, gray.shape[1] % 2)), "edge")
        return av.VideoFrame.from_ndarray(np.repeat(even[:, :, None], 3, 2), format="rgb24")

    def _configure(self, stream: Any, picture: av.VideoFrame) -> None:
        if self._codec == "ffv1":
            stream.pix_fmt = "gray"
            stream.codec_context.color_range = _FULL_RANGE
            return
        stream.pix_fmt = "yuv422p10le"
        stream.codec_context.colorspace = _BT709
        stream.options = {"profile": "hq"}

    def _encoded(self, picture: av.VideoFrame) -> av.VideoFrame:
        if self._codec == "ffv1":
            picture.color_range = _FULL_RANGE
            return picture
        video = picture.reformat(format="yuv422p10le", dst_colorspace="ITU709", threads=1)
        video.colorspace = _BT709
        return video

    def finish(self) -> None:
        """Fill what was not tracked with black, so that the film is as long as the source; then see `Sink.finish`."""
        self._write_part()
        written: set[int] = set()
        size = None
        for part in self._finished():
            with av.open(str(part.path)) as piece:
                stream = piece.streams.video[0]
                size = (stream.height, stream.width)
                frames = sum(packet.size > 0 for packet in piece.demux(video=0))
                written |= set(range(part.first, part.first + frames))
        if size is not None:
            former = None
            for number in sorted(set(range(self._count or 0)) - written):
                if former is not None and number > former + 1:
                    self._write_part()  # parts are joined by their first frames, so none may reach over others
                former = number
                frame = Frame(number, str(number), None, None)
                self.write(frame, np.zeros(size, np.int32), {}, lambda i: np.zeros((0, 0), np.float32))
        super().finish()


class MatteFilms(Sink):
    """A film an object for video editors: `folder/<stem>_<id>_matte.mov`, gray, white is the object.

    Frame count, rate and start time code are the source's; frames that were not tracked are black. ProRes 422 HQ, or FFV1 (lossless,
    gray of full range) in .mkv.

    Args:
        folder: is created.
        stem: what the files begin with.
        fps: frames per second; None means 25.
        count: frames of the source; None: the film ends with the results.
        timecode: of the first frame, or None.
        codec: "prores_ks" or "ffv1".
        pixel_aspect: width of a pixel divided by its height, `Source.pixel_aspect`.

    Raises:
        OutputError: the folder cannot be created, or PyAV lacks the encoder.
    """

    soft = True

    def __init__(
        self, folder: str | Path, stem: str, fps: Fraction | None = None, count: int | None = None, timecode: str | None = None,
        codec: str = "prores_ks", pixel_aspect: Fraction = Fraction(1),
    ) -> None:  # fmt: skip
        self.name = Path(folder).name
        self._folder = make_folder(Path(folder))
        suffix = ".mkv" if codec == "ffv1" else ".mov"
        self._make: Callable[[int], _MatteFilm] = lambda i: _MatteFilm(
            self._folder / f"{stem}_{i}_matte{suffix}", i, fps, count, timecode, codec, pixel_aspect
        )
        self._films: dict[int, _MatteFilm] = {}

    def check_ids(self, ids: Iterable[int]) -> None:
        """Begin a film of each object."""
        for i in sorted(ids):
            self._films.setdefault(i, self._make(i))

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        self.check_ids(scores)
        for film in self._films.values():
            film.write(frame, labels, scores, probability)

    def checkpoint(self) -> dict[str, Any]:
        """See `Sink.checkpoint`."""
        return {str(i): film.checkpoint() for i, film in self._films.items()}

    def restore(self, token: Mapping[str, Any] | None) -> None:
        """See `Sink.restore`."""
        for i, film in self._films.items():
            film.restore(None if token is None else token.get(str(i)))

    def set_aside(self) -> None:
        """See `Sink.set_aside`."""
        self.notes = set_aside(self._folder, "*_matte.m*")

    def present(self, frames: int) -> bool:
        """See `Sink.present`."""
        return not frames or any(self._folder.glob("*_matte.m*"))

    def finish(self) -> None:
        """See `Sink.finish`."""
        for film in self._films.values():
            film.finish()

    def clean(self) -> None:
        """See `Sink.clean`."""
        for film in self._films.values():
            film.clean()
