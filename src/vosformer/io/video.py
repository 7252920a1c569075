"""Video files: any frame, any range, both directions, without ever holding the whole video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from vosformer.errors import InputError
from vosformer.io.container import MAX_PIXELS, VideoIndex, build_index, mean_rate, open_file, video_stream
from vosformer.io.decoded import bits, look_at, pixel_aspect, stretch
from vosformer.io.files import file_mark
from vosformer.io.frames import Frame, Source, frame_name, frame_range
from vosformer.io.levels import SAMPLES, Levels
from vosformer.io.sound import Sound, heard_stream

# Decoded frames (not yet RGB) that reading backwards may hold. A smaller budget decodes long groups of pictures more often.
_BACKWARD_BYTES = 256 << 20

# The range of values is looked for in key frames, or in the first frames of files that have fewer.
_FEW_KEYS, _SAMPLED_FRAMES = 4, 320

# Frames of which two fields were paired without decoding that are compared with the decoder's.
_COMPARED_FRAMES = 24

_BROKEN = "the frame does not decode"


class VideoFile(Source):
    """A video file of any kind that FFmpeg reads: mp4, mov, mkv, webm, avi, ts, gif and others.

    Opening reads the packets once without decoding them, so that every frame has a number and frames that do not decode are known
    by theirs. Frames are numbered in the order they are shown, from the first one that can be shown; their times are the file's
    own, so variable frame rates are kept. Where H.264 keeps the two fields of a frame apart, its packets say which belong
    together. Rotation and mirroring from the display matrix are applied. Every iterator opens the file for itself.

    The fingerprint covers the size of the file, its first and last megabyte, the number of frames, and the choices below.

    Args:
        path: of the file.
        allow_truncated: take what is there of a file that was cut off, instead of refusing it.
        stream: place among its video streams, from 0; None: the one that is marked as default, of several the largest.
        levels: values that become black and white; None: see `vosformer.io.levels`.
        form: FFmpeg's name of the format, if it must not guess.

    Raises:
        InputError: the file is missing, no video, cut off, without a frame, or none of its frames decodes.
    """

    def __init__(
        self,
        path: Path,
        allow_truncated: bool = False,
        stream: int | None = None,
        levels: Levels | None = None,
        form: str | None = None,
    ) -> None:
        self.name, self._path, self._stream, self._form = str(path), path, stream, form
        self._choices = "" if stream is None and levels is None else f" {stream} {levels}"
        self._skipped = 0  # frames in front that cannot be shown, where frames are numbered as they are decoded
        self._index: VideoIndex = build_index(path, stream, form)
        if self._index.damage and not allow_truncated:
            raise InputError(
                f"{path}: {self._index.damage}; what is there of it can be used with --allow-truncated "
                f"(open_source(..., allow_truncated=True))"
            )
        for note in (*self._index.notes, *([f"{path}: {self._index.damage}"] if self._index.damage else [])):
            self.notes.add(note)
        self._pair_fields()
        head = self._first()
        self._count = None if self._index.stamps is None else len(self._index.stamps)
        self._budget = max(4, _BACKWARD_BYTES // (3 * head.height * head.width // 2 * (1 + (bits(head) > 8))))
        self._look = look_at(self.name, head, levels, self.notes)
        self.height, self.width = self._look.size
        with open_file(path, form) as container:
            video = video_stream(container, self.name, stream, self.notes)
            self.fps = mean_rate(video, self._index)
            self.pixel_aspect = pixel_aspect(video, self._look)
            stamps = self._index.stamps
            # Where time stamps go back, it is not known which sound belongs to a frame.
            if heard_stream(container) is not None and (stamps is not None or container.format.name == "avi"):
                self.sound = Sound(path, 0.0 if stamps is None else float(int(stamps[0]) * self._index.unit))
        if bits(head) > 8:
            stretch(self._look, self._samples())

    def _pair_fields(self) -> None:
        """Where two packets are one frame, make sure that the frames were counted as the decoder gives them."""
        index = self._index
        if not index.fields:
            return
        if index.stamps is not None and (index.uncertain or not self._agrees(index.stamps)):
            stamps = [frame.pts for frame in self._decode_file() if frame is not None and not frame.is_corrupt]
            known = np.unique(np.array([stamp for stamp in stamps if stamp is not None], np.int64))
            if stamps:
                self._index = index.numbered(known) if len(known) == len(stamps) else replace(index, stamps=None)
                self.notes.add(
                    f"{self.name} was decoded once to count its frames, since its fields lie apart: {len(stamps)} in "
                    f"{index.packets} packets"
                )

    def _agrees(self, stamps: Any) -> bool:
        """Decode the first frames and compare their times with those of the packets."""
        decoded = [frame.pts for frame in islice(self._decode_file(), _COMPARED_FRAMES) if frame is not None]
        first = int(np.searchsorted(stamps, decoded[0])) if decoded and decoded[0] is not None else 0
        expected: list[int] = stamps[first : first + len(decoded)].tolist()
        return decoded == expected

    def _first(self) -> Any:
        """Return the first frame that can be shown, which becomes number 0."""
        for number, frame in self._decode(0):
            if frame is None:
                continue
            if number:
                if self._index.stamps is None:
                    self._skipped = number
                else:
                    self._index = self._index.numbered(self._index.stamps[number:])
                self.notes.add(
                    f"the first {number} frames of {self.name} cannot be shown, as where a recording begins before a key frame: "
                    f"frame 0 is the first one that can, as FFmpeg, OpenCV and VLC count"
                )
            return frame
        raise InputError(f"{self._path}: none of its {self._index.packets} frames decodes")

    def _samples(self) -> Iterator[Any]:
        """Return some frames of the whole file, those that are cheap to reach."""
        if self._index.stamps is not None and len(self._index.keys) >= _FEW_KEYS:
            numbers = np.searchsorted(self._index.stamps, self._index.keys)
            for number in numbers[:: -(-len(numbers) // SAMPLES)]:
                yield from (frame for _, frame in self._decode_until(int(number), int(number)) if frame is not None)
            return
        for number, frame in self._decode(0):
            if number % (_SAMPLED_FRAMES // SAMPLES) == 0 and frame is not None:
                yield frame
            if number >= _SAMPLED_FRAMES:
                return

    @property
    def count(self) -> int:
        """Number of frames. Files without time stamps (AVI) are decoded once, at the first call, to count them."""
        if self._count is None:
            self._count = sum(1 for _ in self._decode(0))
        return self._count

    @property
    def variable_rate(self) -> bool:
        """Whether the gaps between frames differ by more than a tick or a tenth."""
        if self._index.stamps is None or len(self._index.stamps) < 3:
            return False
        gaps = np.diff(self._index.stamps)
        return bool(np.ptp(gaps) > max(2, 0.1 * float(np.median(gaps))))

    def frames(self, start: int | None = None, stop: int | None = None, step: int = 1) -> Iterator[Frame]:
        """See `Source.frames`. Backwards, at most 256 MB of decoded frames are held; longer groups are decoded several times."""
        if (start or 0) == 0 and stop is None and step == 1:
            # Needs no count, which an AVI file does not know without being decoded.
            return (self._frame(number, frame) for number, frame in self._decode(0))
        numbers = frame_range(self, start, stop, step)
        return self._forward(numbers) if step > 0 else self._backward(numbers)

    def decoded(self) -> Iterator[Any]:
        """Yield all frames as PyAV decodes them, with what pictures of 8 bits RGB leave out; None where one does not decode."""
        return (frame for _, frame in self._decode(0))

    def fingerprint(self) -> str:
        """Hash of the size, the first and last megabyte, and the number of frames."""
        return f"video:{file_mark(self._path, f'{self._index.packets}{self._choices}')}"

    def _forward(self, numbers: range) -> Iterator[Frame]:
        if not numbers:
            return
        for number, frame in self._decode(numbers[0]):
            if number in numbers:
                yield self._frame(number, frame)
            if number >= numbers[-1]:
                return

    def _backward(self, numbers: range) -> Iterator[Frame]:
        position = 0
        while position < len(numbers):
            segment = numbers[position : position + self._budget]
            # Not across a key frame: what lies before it would have to be decoded for nothing but the last few frames.
            first = max(self._key_number(segment[0]), segment[-1])
            held = {number: frame for number, frame in self._decode_until(first, segment[0]) if number in segment}
            for number in segment:
                if number < first:
                    break
                yield self._frame(number, held.pop(number, None))
                position += 1

    def _frame(self, number: int, frame: Any) -> Frame:
        time = self._time(number)
        if frame is None:
            return Frame(number, frame_name(number), None, time, _BROKEN)
        return Frame(number, frame_name(number), self._look.image(frame, number), time)

    def _time(self, number: int) -> float | None:
        stamps = self._index.stamps
        if stamps is None:
            return None if self.fps is None else float(number / self.fps)
        return float((int(stamps[number]) - int(stamps[0])) * self._index.unit)

    def _key_number(self, number: int) -> int:
        """Return the last frame up to `number` where decoding can begin."""
        index = self._index
        if index.stamps is None:
            return 0
        key = int(np.searchsorted(index.keys, index.stamps[number], side="right")) - 1
        return int(np.searchsorted(index.stamps, index.keys[key])) if key > 0 else 0

    def _decode_until(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        for number, frame in self._decode(first):
            yield number, frame
            if number >= last:
                return

    def _decode(self, first: int) -> Iterator[tuple[int, Any]]:
        """Yield (number, decoded frame or None) from `first` to the end, without gaps."""
        index = self._index
        if index.stamps is None:
            for number, frame in enumerate(self._decode_in_order()):
                if number >= first:
                    yield number, frame
            return
        key = int(np.searchsorted(index.keys, index.stamps[first], side="right")) - 1
        while True:
            frames = self._decode_from_key(index.stamps, key)
            head = next(frames, None)
            # Frames after a broken key frame are predicted from what came before it. Going back until a whole one is found gives
            # the same pixels wherever one starts, so that a run that is resumed sees what an uninterrupted one saw.
            if key > 0 and (head is None or head[1] is None):
                frames.close()
                key -= 1
                continue
            break
        if head is None:
            return
        if head[0] >= first:
            yield head
        for number, frame in frames:
            if number >= first:
                yield number, frame

    def _decode_from_key(self, stamps: Any, key: int) -> Any:
        expected = int(np.searchsorted(stamps, self._index.keys[key])) if key > 0 else 0
        with self._open() as (container, stream):
            for frame in _decoded(self._packets(container, stream, key)):
                number = int(np.searchsorted(stamps, frame.pts)) if frame.pts is not None else expected
                if number < expected or number >= len(stamps) or (frame.pts is not None and stamps[number] != frame.pts):
                    continue  # belongs to what was before the key frame
                for missing in range(expected, number):
                    yield missing, None
                yield number, None if frame.is_corrupt else frame
                expected = number + 1
        for missing in range(expected, len(stamps)):
            yield missing, None

    def _packets(self, container: Any, stream: Any, key: int) -> Iterator[Any]:
        """Yield the packets from that key frame on; containers that seek badly are read from further ahead."""
        if key > 0:
            target, back = int(self._index.keys[key]), 0
            while key - back > 0:
                # Some containers seek by decoding time and refuse targets; then try an earlier key frame.
                with suppress(av.error.FFmpegError):
                    container.seek(int(self._index.keys[key - back]), stream=stream, backward=True)
                    packets = container.demux(stream)
                    head = next((packet for packet in packets if packet.is_keyframe and packet.pts is not None), None)
                    if head is not None and head.pts <= target:
                        yield head
                        yield from packets
                        return
                back = 2 * back + 1
            container.seek(0, backward=True, any_frame=False)
        yield from container.demux(stream)

    def _decode_in_order(self) -> Iterator[Any]:
        for frame in islice(self._decode_file(), self._skipped, None):
            yield None if frame is None or frame.is_corrupt else frame

    def _decode_file(self) -> Iterator[Any]:
        """Yield all frames from the begin; None where a packet does not decode."""
        with self._open() as (container, stream):
            yield from _decoded(container.demux(stream), gaps=not self._index.fields)

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        with open_file(self._path, self._form) as container:
            stream = video_stream(container, self.name, self._stream)
            # One thread: frame threads make what is patched over in damaged frames depend on chance.
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container, stream


def _decoded(packets: Iterator[Any], gaps: bool = False) -> Iterator[Any]:
    """Yield the frames of packets; packets that do not decode are passed over, or give None if `gaps`."""
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return  # the container breaks off here; the index was built up to the same place
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            frames = [None] if gaps and packet.size else []
        yield from frames
