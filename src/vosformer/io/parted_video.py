"""Videos written so that a killed run loses nothing but the frames it does again anyway.

A video is written as parts of some frames each, `.NAME.parts/<serial>-<first frame>-<tick>.SUFFIX`. Each is whole from the
moment it has its name. `close` puts them together by copying packets, without encoding again. A container that is being written is
of no use after a SIGKILL, and encoders have no state that could be saved, hence the parts.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av

from vosformer.errors import OutputError
from vosformer.io.files import make_folder, output_errors, remove, replacing
from vosformer.io.frames import Frame, frame_rate
from vosformer.io.sinks import Labels, Probability, Sink
from vosformer.io.sound import Sound, SoundTrack

PART_FRAMES = 256
# The frames of a part wait until all are there, since they may come backwards.
_PART_BYTES = 64 << 20
_DEFAULT_FPS = Fraction(25)
TICKS = 120_000  # a second


class _Part(NamedTuple):
    """A finished part; `tick` is the time stamp of its first frame."""

    path: Path
    serial: int
    first: int
    tick: int


class PartedVideo(Sink):
    """A video file of one picture a frame, at the times of the source.

    Results may come in any order; the video is in the order of frames and begins at time 0.

    Args:
        path: of the file.
        fps: frames per second for frames without a time; None means 25.
        codec: FFmpeg's name of an encoder that is there.
        ticks: the most parts of a second that the format can count in.
        pixel_aspect: width of a pixel divided by its height, `Source.pixel_aspect`.
        sound: that the film gets, `Source.sound`.

    Raises:
        OutputError: the folder cannot be created.
    """

    def __init__(
        self,
        path: str | Path,
        fps: Fraction | float | None,
        codec: str,
        ticks: int = TICKS,
        pixel_aspect: Fraction | float = 1,
        sound: Sound | None = None,
    ) -> None:
        path = Path(path)
        self.name = path.name
        self._path, self._codec = path, codec
        self._fps = frame_rate(fps or _DEFAULT_FPS)
        self._aspect = Fraction(pixel_aspect).limit_denominator(255)
        # Fine ticks, and a whole number of them for each frame of a constant rate like 24000/1001.
        self._tick = Fraction(1, self._fps.numerator * max(1, ticks // self._fps.numerator))
        make_folder(path.parent)
        self._parts = path.with_name(f".{path.name}.parts")
        self._serial = -1  # of the next part; -1 = an earlier run may have left some
        self._held: list[tuple[int, int, Any]] = []  # (frame number, tick, picture)
        self._timecode: str | None = None  # of the first frame of the file
        self._sound = sound

    @abstractmethod
    def _picture(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> av.VideoFrame:
        """Return what the video shows of a frame, as it waits in memory."""

    @abstractmethod
    def _configure(self, stream: Any, picture: av.VideoFrame) -> None:
        """Choose how a new stream encodes. Every packet must come out in the order of frames."""

    def _encoded(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Return the picture in the format of the stream."""
        return picture

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        tick = round((Fraction(frame.number) / self._fps if frame.time is None else Fraction(frame.time)) / self._tick)
        picture = self._picture(frame, labels, scores, probability)
        turns = len(self._held) > 1 and (frame.number > self._held[-1][0]) != (self._held[1][0] > self._held[0][0])
        if turns:
            self._write_part()
        self._held.append((frame.number, tick, picture))
        bytes_each = sum(plane.buffer_size for plane in picture.planes)
        if len(self._held) >= min(PART_FRAMES, max(8, _PART_BYTES // bytes_each)):
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
                whole = _join(parts, temporary, self._tick, self._fps, self._timecode, self._sound)
            if not whole:
                self.notes = (*self.notes, f"the sound does not decode to its end, so {self._path} is silent from there on")

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
        path = self._parts / f"{self._serial:06d}-{first:08d}-{tick}{self._path.suffix}"
        with replacing(path) as temporary, _av_errors(path), av.open(str(temporary), "w") as container:
            stream: Any = container.add_stream(self._codec, rate=self._fps)
            stream.width, stream.height = frames[0][2].width, frames[0][2].height
            stream.codec_context.time_base = self._tick
            if self._aspect != 1:
                stream.codec_context.sample_aspect_ratio = self._aspect
            stream.codec_context.thread_count = 1  # the same bits on every machine, and the processor is left to the model
            self._configure(stream, frames[0][2])
            former = -1
            for _, moment, picture in frames:
                former = max(former + 1, moment - tick)
                encoded = self._encoded(picture)
                encoded.pts, encoded.time_base = former, self._tick
                container.mux(stream.encode(encoded))
            container.mux(stream.encode(None))
        self._serial += 1


def encoder(*names: str) -> str:
    """Return the first of these encoders that is there.

    Raises:
        OutputError: none is.
    """
    for candidate in names:
        try:
            av.codec.Codec(candidate, "w")
        except ValueError:
            continue
        return candidate
    raise OutputError(f"this PyAV has no encoder {' or '.join(names)}")


def _join(
    parts: list[_Part], path: Path, tick: Fraction, fps: Fraction, timecode: str | None, sound: Sound | None
) -> bool:  # fmt: skip
    """Write the film; return whether all of its sound is in it."""
    start = min(part.tick for part in parts)
    with ExitStack() as stack:
        output = stack.enter_context(av.open(str(path), "w", options={"movflags": "+faststart"}))
        if timecode is not None:
            output.metadata["timecode"] = timecode
        with av.open(str(parts[0].path)) as piece:
            stream: Any = output.add_stream_from_template(piece.streams.video[0])
            stream.time_base = tick
            # A mov keeps it beside the codec's parameters, which alone are copied.
            stream.codec_context.sample_aspect_ratio = piece.streams.video[0].sample_aspect_ratio or Fraction(1)
            if timecode is not None:
                stream.codec_context.framerate = fps  # counts the frames of a time code
        heard = None
        if sound is not None:
            end = (parts[-1].tick + _length(parts[-1].path, tick)) * tick
            heard = SoundTrack(sound, output, float(start * tick), float(end))
            stack.callback(heard.close)
        latest = -1
        for part in parts:
            with av.open(str(part.path)) as piece:
                packet: Any
                for packet in piece.demux(video=0):
                    if packet.size == 0:
                        continue
                    stamp = max(latest + 1, round(packet.pts * packet.time_base / tick) + part.tick - start)
                    latest = stamp
                    packet.duration = round(packet.duration * packet.time_base / tick)
                    packet.stream, packet.time_base = stream, tick
                    packet.pts = packet.dts = stamp
                    if heard is not None:
                        heard.up_to(float(stamp * tick))
                    output.mux(packet)
        if heard is not None:
            heard.up_to(math.inf)
        return heard is None or not heard.broken


def _length(path: Path, tick: Fraction) -> int:
    """Return the ticks from the first to the end of the last frame of a part."""
    with av.open(str(path)) as piece:
        packets: Iterator[Any] = piece.demux(video=0)  # what we wrote: every packet has a time and a duration
        ends = [(packet.pts + packet.duration) * packet.time_base for packet in packets if packet.size]
        last: Fraction = max(ends)
        return round(last / tick)


@contextmanager
def _av_errors(path: Path) -> Iterator[None]:
    """FFmpeg's errors of the disk are `OSError`s already; its others become `OutputError`s here."""
    try:
        with output_errors(path):
            yield
    except av.error.FFmpegError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
