"""Containers of video, opened with PyAV: what all video sources share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.endings import check_ending
from vosformer.io.frames import frame_rate
from vosformer.io.h264_fields import FieldPairs
from vosformer.io.notes import Notes

# Demuxers of FFmpeg that take text for video or open other files and devices by themselves.
_REFUSED_FORMATS = {"tty", "concat", "lavfi", "ffmetadata", "image2", "hls", "dash", "sdp", "txd", "bin", "xbin", "adf", "idf"}

# A file whose data end this much before its header says was cut off; shorter gaps come from sound or rounding. Headers of these
# formats say it; of others FFmpeg gives what it finds.
_MISSING_SECONDS = 0.5
_WITH_DURATION = {"matroska", "flv", "asf"}
_END_ANYWHERE = {"mpegts", "mpeg"}

_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE

MAX_PIXELS = 178_956_970
"""Larger pictures are refused before they are decoded (the limit at which Pillow sees a decompression bomb)."""


@dataclass(frozen=True)
class VideoIndex:
    """Where the frames of a video file lie, from a pass over its packets without decoding: 16 bytes a frame.

    Attributes:
        stamps: int64 [n] ascending, time stamps of the frames in units of `unit`; None if the file has no usable ones (the frames
            are then numbered in the order they are decoded).
        keys: int64 ascending, time stamps of the frames where decoding can begin.
        unit: seconds.
        packets: number of packets with video.
        fields: packets hold half a frame each, where `stamps` has those of the first halves; or may do so, if `uncertain`.
        uncertain: only decoding tells how many frames there are.
        damage: what is wrong with the container (truncated), or None.
        notes: what a user should know about how the frames are numbered.
        rate: frames per second, where time stamps go back so that first and last do not tell it.
    """

    stamps: NDArray[np.int64] | None
    keys: NDArray[np.int64]
    unit: Fraction
    packets: int
    fields: bool = False
    uncertain: bool = False
    damage: str | None = None
    notes: tuple[str, ...] = ()
    rate: Fraction | None = None

    def numbered(self, stamps: NDArray[np.int64]) -> VideoIndex:
        """Return the same of these frames only."""
        return replace(self, stamps=stamps, keys=self.keys[np.isin(self.keys, stamps)], uncertain=False)


@dataclass
class _Packets:
    """What a pass over the packets of a stream found: `stamps` of frames, `count` of packets."""

    fields: FieldPairs | None = None
    count: int = 0
    read_to: int = 0  # the byte behind the last packet of any stream
    stamps: list[int | None] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    end: float = 0.0  # seconds, over all streams that were looked at
    decoding: list[int] = field(default_factory=list)  # times of decoding, where the file has them
    goes_back: bool = False
    corrupt: int = 0  # packets at the end of which a part is missing
    broken: str = ""


def check_pixels(path: Path | str, height: int, width: int) -> None:
    """Refuse sizes that only a broken or malicious header announces.

    Raises:
        InputError: a side is 0, or there are more than `MAX_PIXELS`.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise InputError(f"{path} is {width} x {height} pixels by its header: expected at most {MAX_PIXELS} pixels in all")


def video_streams(container: Any) -> list[Any]:
    """Return all real video streams of a container: cover pictures of music and thumbnails of chapters do not count."""
    found = []
    for stream in container.streams.video:
        if stream.codec_context is None:  # a codec that FFmpeg does not know
            continue
        kinds = type(stream.disposition)
        if not stream.disposition & (kinds.attached_pic | kinds.timed_thumbnails):
            found.append(stream)
    return found


def video_stream(container: Any, name: str, number: int | None = None, notes: Notes | None = None) -> Any:
    """Choose a video stream of a container.

    Args:
        container: opened with PyAV.
        name: what messages call it.
        number: its place among the video streams, from 0; None: the one that is marked as default, of several the largest.
        notes: gets a line if there was a choice.

    Raises:
        InputError: there is none; the message says which streams were found.
    """
    streams = video_streams(container)
    if not streams:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
        raise InputError(f"{name} has no video in it (found: {found})")
    shown = "; ".join(f"{at}: {s.width} x {s.height}{', default' * _is_default(s)}" for at, s in enumerate(streams))
    if number is not None and not 0 <= number < len(streams):
        raise InputError(f"{name} has no video stream {number}: expected one of {shown}")
    chosen = number
    if chosen is None:
        chosen = max(
            range(len(streams)), key=lambda at: (_is_default(streams[at]), streams[at].width * streams[at].height, -at)
        )
        if len(streams) > 1 and notes is not None:
            notes.add(
                f"{name} has {len(streams)} video streams ({shown}); stream {chosen} was read, --stream N chooses another"
            )
    check_pixels(name, streams[chosen].height or 1, streams[chosen].width or 1)
    return streams[chosen]


def _is_default(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).default)


def open_file(path: Path, form: str | None = None) -> Any:
    """Open a video file with PyAV.

    Args:
        path: of the file.
        form: FFmpeg's name of the format, if it must not guess.

    Raises:
        InputError: it is missing, empty, text, or nothing that FFmpeg knows; the message says what was found.
    """
    try:
        # The prefix keeps FFmpeg from taking a colon in a file name for a protocol.
        container = av.open(f"file:{path}", format=form)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} is no video that can be read: {describe(path)}") from error
    if set(container.format.name.split(",")) & _REFUSED_FORMATS:
        container.close()
        raise InputError(f"{path} is no video that can be read: {describe(path)}")
    return container


def describe(path: Path) -> str:
    """Say what a file that is no video holds instead, for messages."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        return f"{error.strerror}"
    if size == 0:
        return "the file is empty"
    text = head.decode("utf-8", "replace").rstrip("�")
    if text.isprintable() or all(letter.isprintable() or letter in "\r\n\t" for letter in text):
        return f"it is text that begins with {text[:40]!r}"
    if head[4:8] == b"ftyp":
        return f"an MP4 file of {size} bytes without its index, which is written last: the recording or the copy was cut off"
    return f"{size} bytes of an unknown or broken kind that begin with {head[:8].hex(' ')}"


def build_index(path: Path, number: int | None = None, form: str | None = None) -> VideoIndex:
    """Read the packets of a video file once.

    Args:
        path: of the file.
        number: see `video_stream`.
        form: see `open_file`.

    Raises:
        InputError: the file is no video, or holds no frame.
    """
    with open_file(path, form) as container:
        stream = video_stream(container, str(path), number)
        # FFmpeg gives frames of AVI the order of decoding as time stamps.
        unordered = container.format.name == "avi"
        found = _packets(container, stream)
        stamps = found.stamps
        if not stamps:
            raise InputError(f"{path} is a video without a single frame")
        known = np.unique(np.array([stamp for stamp in stamps if stamp is not None], np.int64))
        usable = len(known) == len(stamps) and not found.goes_back
        notes = []
        if found.goes_back:
            notes.append(
                f"the time stamps of {path} go back, as where recordings were joined: its frames are in the order of the file"
            )
        if len(stamps) < found.count:
            notes.append(f"{path} keeps the fields of its frames apart: {len(stamps)} frames in {found.count} packets")
        damage, more = _ending(path, container, stream, found)
        if damage and usable and found.corrupt:
            cut = np.sort(np.array(stamps[-found.corrupt :], np.int64))
            whole = known[~np.isin(known, cut)]
            known = whole if whole.size else known
        pairs = found.fields
        uncertain = pairs is not None and pairs.possible and pairs.unknown
        return VideoIndex(
            known if usable and not (unordered and len(found.keys) < len(stamps)) else None,
            np.unique(np.array(found.keys, np.int64)),
            stream.time_base,
            found.count,
            uncertain or (pairs is not None and pairs.fields),
            uncertain,
            damage,
            (*notes, *more),
            _usual_rate(found, stream.time_base) if found.goes_back else None,
        )


def _packets(container: Any, stream: Any) -> _Packets:
    codec = stream.codec_context.name
    found = _Packets()
    if codec == "h264" and stream.codec_context.field_order != _PROGRESSIVE:
        found.fields = FieldPairs(stream.codec_context.extradata)
    try:
        for packet in container.demux():
            if packet.size == 0:
                continue
            found.read_to = max(found.read_to, (packet.pos or 0) + packet.size)
            if packet.pts is not None:
                found.end = max(found.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index == stream.index and _shows(codec, packet):
                _note_packet(found, packet)
    except av.error.FFmpegError as error:
        found.broken = f"its container is broken after {len(found.stamps)} frames ({error.strerror})"
    return found


def _note_packet(found: _Packets, packet: Any) -> None:
    found.corrupt = 0 if not packet.is_corrupt else found.corrupt + (not packet.is_discard)
    found.count += not packet.is_discard
    if found.fields is not None and found.fields.possible and found.fields.completes(bytes(packet)):
        return  # the frame has the time of its first field
    if packet.dts is not None:
        found.goes_back |= bool(found.decoding) and packet.dts < found.decoding[-1]
        found.decoding.append(packet.dts)
    if packet.is_keyframe and packet.pts is not None:
        found.keys.append(packet.pts)
    if not packet.is_discard:
        found.stamps.append(packet.pts)


def _usual_rate(found: _Packets, unit: Fraction) -> Fraction | None:
    gaps = np.diff(found.decoding)
    usual = int(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 0
    return (1 / (usual * unit)).limit_denominator(1001) if usual else None


def _ending(path: Path, container: Any, stream: Any, found: _Packets) -> tuple[str | None, tuple[str, ...]]:
    """Return what is missing at the end of a file, and notes about it."""
    if found.broken:
        return found.broken, ()
    names = set(container.format.name.split(","))
    frames, size = len(found.stamps), path.stat().st_size
    entries = list(getattr(stream, "index_entries", ()))
    missing = sum(entry.pos + entry.size > size for entry in entries)
    if missing:
        text = f"it is cut off: the data of {missing} of the {len(entries)} entries of its index lie behind the end of the file"
        return text, ()
    if names & _WITH_DURATION and container.duration is not None:
        announced = container.duration / av.time_base
        if found.end < announced - _MISSING_SECONDS:
            text = f"it is cut off: it announces {announced:.2f} s, but ends after {frames} frames at {found.end:.2f} s"
            return text, ()
    damage, notes = check_ending(path, container.format.name, found.read_to)
    if "avi" in names and notes and stream.frames > frames:
        return f"it is cut off: it announces {stream.frames} frames and has {frames}", ()
    if damage is None and found.corrupt and not names & _END_ANYWHERE:
        damage = f"it is cut off: its last packet, after {frames - 1} frames, is not whole"
    return damage, notes


def _shows(codec: str, packet: Any) -> bool:
    """Tell whether a packet gives a frame to show: VP8 and VP9 have packets that are only there to predict others from."""
    if codec not in ("vp8", "libvpx", "vp9", "libvpx-vp9"):
        return True
    data = bytes(packet)
    if "8" in codec or codec == "libvpx":
        return bool(data[0] & 0x10)  # show_frame, RFC 6386 section 9.1
    if data[-1] & 0xE0 == 0xC0:
        return True  # a superframe always ends in a frame that is shown (VP9 specification, annex B)
    bits = int.from_bytes(data[:2], "big")
    profile = (bits >> 13 & 1) | (bits >> 12 & 1) << 1
    bit = 11 - (profile == 3)
    shows_existing = bits >> bit & 1
    return bool(shows_existing or bits >> (bit - 2) & 1)


def mean_rate(stream: Any, index: VideoIndex | None) -> Fraction | None:
    """Frames per second: the container's, unless the time stamps say something else."""
    rate: Fraction | None = stream.average_rate or stream.guessed_rate
    if index is None or index.stamps is None or len(index.stamps) < 2:
        guessed: Fraction | None = stream.guessed_rate
        return (index.rate if index is not None else None) or guessed or rate
    seconds = (int(index.stamps[-1]) - int(index.stamps[0])) * index.unit
    measured = (len(index.stamps) - 1) / seconds
    if rate and abs(rate / measured - 1) < 0.01:
        return Fraction(rate)
    return frame_rate(measured)
