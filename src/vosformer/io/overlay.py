"""The video with the masks drawn on it, written so that a killed run loses nothing but the frames it does again anyway.

The video is written as parts of some frames each, `.overlay.mp4.parts/<serial>-<first frame>-<tick>.mp4`. Each is whole from the
moment it has its name. `close` puts them together by copying packets, without encoding again. A container that is being written is
of no use after a SIGKILL, and encoders have no state that could be saved, hence the parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.errors import OutputError
from vosformer.io.files import make_folder, output_errors, remove, replacing
from vosformer.io.frames import Frame, Image, frame_rate
from vosformer.io.palette import colours
from vosformer.io.sinks import Labels, Probability, Sink

_PART_FRAMES = 256
# The frames of a part wait (1.5 bytes a pixel) until all are there, since they may come backwards.
_PART_BYTES = 64 << 20
_DEFAULT_FPS = Fraction(25)
_TICKS = 120_000  # a second
_TICKS_MPEG4 = 65_535
_BT601 = 5  # AVCOL_SPC_BT470BG: the matrix that swscale converts with, so that players show the same colours


def draw(image: Image, labels: Labels, palette: NDArray[np.uint8] | None = None, opacity: float = 0.5) -> Image:
    """Lay the objects over an image: each in its colour, translucent inside, opaque along its contour.

    Args:
        image: uint8 RGB [H,W,3]; it is not changed.
        labels: integers [H,W], any ids, 0 = nothing.
        palette: uint8 RGB [256,3]; None takes the DAVIS palette.
        opacity: of the colour inside, 0 to 1.

    Returns:
        uint8 RGB [H,W,3].
    """
    used, places = np.unique(labels, return_inverse=True)
    compact = places.reshape(labels.shape).astype(np.uint16)
    table = colours(used.astype(np.int64), palette)
    size = 2 * max(1, round(min(labels.shape) / 360)) + 1
    kernel = np.ones((size, size), np.uint8)
    # Erosion and dilation by numbers differ exactly where two labels are near each other.
    contour = cv2.erode(compact, kernel) != cv2.dilate(compact, kernel)
    painted = table[compact]
    mixed = cv2.addWeighted(image, 1 - opacity, painted, opacity, 0)
    inside = (labels != 0)[:, :, None]
    return np.where(inside, np.where(contour[:, :, None], painted, mixed), image).astype(np.uint8)


class _Part(NamedTuple):
    """A finished part; `tick` is the time stamp of its first frame."""

    path: Path
    serial: int
    first: int
    tick: int


class OverlayVideo(Sink):
    """An mp4 of the frames with the masks on them, at the times of the source.

    H.264 where PyAV has libx264, else MPEG-4 part 2. Sides are made even by repeating the last row or column. Frames that did not
    decode are black under their masks. Results may come in any order; the video is in the order of frames and begins at time 0.

    Args:
        path: of the mp4 file.
        fps: frames per second for frames without a time; None means 25.
        palette: uint8 RGB [256,3]; None takes the DAVIS palette.
        opacity: of the colours, 0 to 1.
        codec: FFmpeg's name of an encoder; None chooses.

    Raises:
        OutputError: the folder cannot be created, or there is no such encoder.
    """

    def __init__(
        self,
        path: str | Path,
        fps: Fraction | float | None = None,
        palette: NDArray[np.uint8] | None = None,
        opacity: float = 0.5,
        codec: str | None = None,
    ) -> None:
        path = Path(path)
        self.name = path.name
        self._path, self._palette, self._opacity = path, palette, opacity
        self._fps = frame_rate(fps or _DEFAULT_FPS)
        self._codec = _encoder(codec)
        # Fine ticks, and a whole number of them for each frame of a constant rate like 24000/1001. MPEG-4 has 16 bits for them.
        finest = _TICKS_MPEG4 if self._codec == "mpeg4" else _TICKS
        self._tick = Fraction(1, self._fps.numerator * max(1, finest // self._fps.numerator))
        make_folder(path.parent)
        self._parts = path.with_name(f".{path.name}.parts")
        self._serial = -1  # of the next part; -1 = an earlier run may have left some
        self._held: list[tuple[int, int, Any]] = []  # (frame number, tick, picture)

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        image = np.zeros((*labels.shape, 3), np.uint8) if frame.image is None else frame.image
        tick = round((Fraction(frame.number) / self._fps if frame.time is None else Fraction(frame.time)) / self._tick)
        picture = _even(draw(image, labels, self._palette, self._opacity))
        video = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        turns = len(self._held) > 1 and (frame.number > self._held[-1][0]) != (self._held[1][0] > self._held[0][0])
        if turns:
            self._write_part()
        self._held.append((frame.number, tick, video))
        if len(self._held) >= min(_PART_FRAMES, max(8, _PART_BYTES // (picture.nbytes // 2))):
            self._write_part()

    def checkpoint(self) -> dict[str, Any]:
        """See `Sink.checkpoint`; ends the part that is open."""
        self._write_part()
        return {"parts": self._serial}

    def restore(self, token: Mapping[str, Any] | None) -> None:
        """See `Sink.restore`."""
        self._serial = 0 if token is None else int(token["parts"])
        found = list(self._finished())
        for part in found:
            if part.serial >= self._serial:
                remove(part.path)
        if sum(part.serial < self._serial for part in found) < self._serial:
            raise OutputError(f"{self._parts} lacks parts that the run to resume has written: start it anew")

    def present(self, frames: int) -> bool:
        """See `Sink.present`."""
        return self._path.exists()

    def finish(self) -> None:
        """See `Sink.finish`."""
        self._write_part()
        parts = sorted(self._finished(), key=lambda part: part.first)
        if parts:
            with replacing(self._path) as temporary, _av_errors(self._path):
                _join(parts, temporary, self._tick)

    def clean(self) -> None:
        """See `Sink.clean`."""
        remove(self._parts)

    def _finished(self) -> Iterator[_Part]:
        if not self._parts.is_dir():
            return
        for path in self._parts.iterdir():
            match = re.fullmatch(r"(\d+)-(\d+)-(\d+)", path.stem)
            if match:
                yield _Part(path, int(match[1]), int(match[2]), int(match[3]))

    def _write_part(self) -> None:
        if self._serial < 0:
            self.restore(None)
        if not self._held:
            return
        frames = sorted(self._held, key=lambda item: item[0])
        self._held = []
        make_folder(self._parts)
        first, tick = frames[0][0], frames[0][1]
        path = self._parts / f"{self._serial:06d}-{first:08d}-{tick}.mp4"
        with replacing(path) as temporary, _av_errors(path), av.open(str(temporary), "w") as container:
            stream = self._stream(container, frames[0][2])
            former = -1
            for _, moment, picture in frames:
                former = max(former + 1, moment - tick)
                picture.pts, picture.time_base = former, self._tick
                picture.colorspace = _BT601
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        self._serial += 1

    def _stream(self, container: Any, picture: Any) -> Any:
        stream = container.add_stream(self._codec, rate=self._fps)
        stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
        stream.codec_context.time_base = self._tick
        stream.codec_context.colorspace = _BT601
        stream.codec_context.gop_size = _PART_FRAMES
        # Without B-frames a part begins and ends where its first and last frame do, and parts can be joined by shifting stamps.
        stream.codec_context.max_b_frames = 0
        stream.codec_context.thread_count = 1  # the same bits on every machine, and the processor is left to the model
        if self._codec == "libx264":
            # With its macroblock tree x264 gives small frames other bits from one run to the next (seen at 48 x 32).
            stream.options = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}
        else:
            stream.codec_context.qmin, stream.codec_context.qmax = 2, 6
            stream.bit_rate = 8 * picture.height * picture.width
        return stream


def _join(parts: list[_Part], path: Path, tick: Fraction) -> None:
    start = min(part.tick for part in parts)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as output:
        stream: Any = None
        latest = -1
        for part in parts:
            with av.open(str(part.path)) as piece:
                if stream is None:
                    stream = output.add_stream_from_template(piece.streams.video[0])
                    stream.time_base = tick
                packet: Any
                for packet in piece.demux(video=0):
                    if packet.size == 0:
                        continue
                    stamp = max(latest + 1, round(packet.pts * packet.time_base / tick) + part.tick - start)
                    latest = stamp
                    packet.duration = round(packet.duration * packet.time_base / tick)
                    packet.stream, packet.time_base = stream, tick
                    packet.pts = packet.dts = stamp
                    output.mux(packet)


def _even(image: Image) -> Image:
    bottom, right = image.shape[0] % 2, image.shape[1] % 2
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), "edge") if bottom or right else image


def _encoder(name: str | None) -> str:
    for candidate in [name] if name else ["libx264", "mpeg4"]:
        try:
            av.codec.Codec(candidate, "w")
        except ValueError:
            continue
        return candidate
    raise OutputError(f"this PyAV has no encoder {name or 'for H.264 or MPEG-4'}: choose another, e.g. codec='mjpeg'")


@contextmanager
def _av_errors(path: Path) -> Iterator[None]:
    """FFmpeg's errors of the disk are `OSError`s already; its others become `OutputError`s here."""
    try:
        with output_errors(path):
            yield
    except av.error.FFmpegError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
