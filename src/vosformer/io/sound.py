"""The sound of a video file for a film that is made of its frames."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av

# Of what mp4 holds; other sound (PCM of cameras, Vorbis) is encoded as AAC.
_COPIED = {"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "flac", "alac"}


class Sound(NamedTuple):
    """Where sound lies.

    Attributes:
        path: of the video file.
        start: time of frame 0 on the file's own clock, in seconds.
    """

    path: Path
    start: float


class SoundTrack:
    """Copies the sound of a stretch of a video into another container, packet by packet as its time comes.

    Attributes:
        broken: the sound did not decode up to its end; the film is silent from there on.

    Args:
        sound: where it lies.
        output: container that is being written, with its streams not yet begun.
        begin: second of the sound, from frame 0 on, that becomes time 0.
        end: second to stop before.
    """

    def __init__(self, sound: Sound, output: Any, begin: float, end: float) -> None:
        self.broken = False
        self._input = av.open(f"file:{sound.path}")
        source: Any = heard_stream(self._input)
        self._output, self._first, self._end = output, sound.start + begin, sound.start + end
        self._packets: Iterator[tuple[float, Any]] = iter(())
        self._next: tuple[float, Any] | None = None
        if source.codec_context.name in _COPIED:
            self._stream = output.add_stream_from_template(source)
            self._packets = self._copied(source)
        else:
            self._stream = output.add_stream("aac", rate=source.rate, layout=_layout(source))
            self._packets = self._encoded(source)

    def up_to(self, time: float) -> None:
        """Write what lies before a time of the film, in seconds."""
        while True:
            try:
                self._next = self._next or next(self._packets, None)
            except av.error.FFmpegError:
                self.broken, self._packets = True, iter(())
            if self._next is None or self._next[0] > time:
                return
            self._output.mux(self._next[1])
            self._next = None

    def close(self) -> None:
        """Let go of the file."""
        self._input.close()

    def _copied(self, source: Any) -> Iterator[tuple[float, Any]]:
        shift = round(self._first / source.time_base)
        self._seek()
        for packet in self._input.demux(source):
            if packet.size == 0 or packet.pts is None or packet.pts < shift:
                continue
            if float(packet.pts * source.time_base) >= self._end:
                return
            packet.pts -= shift
            packet.dts = packet.pts
            time = float(packet.pts * source.time_base)
            packet.stream = self._stream
            yield time, packet

    def _encoded(self, source: Any) -> Iterator[tuple[float, Any]]:
        resampler = av.AudioResampler(format="fltp", layout=_layout(source), rate=source.rate, frame_size=1024)
        shift = round(self._first * source.rate)
        self._seek()
        for frame in self._input.decode(source):
            if frame.time is None or frame.time < self._first:
                continue
            if frame.time >= self._end:
                break
            frame.pts = round(frame.time * source.rate) - shift
            frame.time_base = Fraction(1, source.rate)
            yield from self._packed(resampler.resample(frame))
        yield from self._packed([*resampler.resample(None), None])

    def _packed(self, frames: list[Any]) -> Iterator[tuple[float, Any]]:
        for frame in frames:
            for packet in self._stream.encode(frame):
                yield float(packet.pts * packet.time_base), packet

    def _seek(self) -> None:
        if self._first > 1:
            self._input.seek(int((self._first - 1) * av.time_base), backward=True)


def heard_stream(container: Any) -> Any:
    """Return the stream of a container that is heard: the one that FFmpeg takes for the best, if it knows its codec; else None."""
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    best = container.streams.best("audio")
    return best if best in known else next(iter(known), None)


def _layout(source: Any) -> str:
    """Return the name of a layout of channels that AAC knows; many files only say how many there are."""
    return {1: "mono", 2: "stereo", 6: "5.1"}.get(source.layout.nb_channels, "stereo")
