"""Containers of video, opened with PyAV: what all video sources share."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.frames import Image

# Demuxers of FFmpeg that take text for video or open other files and devices by themselves.
_REFUSED_FORMATS = {"tty", "concat", "lavfi", "ffmetadata", "image2", "hls", "dash", "sdp", "txd", "bin", "xbin", "adf", "idf"}

# A matroska file whose data end this much before its header says was cut off; shorter gaps come from sound or rounding.
_MISSING_SECONDS = 0.5


Matrix = tuple[int, int, int, int]


@dataclass(frozen=True)
class VideoIndex:
    """Where the frames of a video file lie, from a pass over its packets without decoding: 16 bytes a frame.

    Attributes:
        stamps: int64 [n] ascending, time stamps of the frames in units of `unit`; None if the file has no usable ones (the frames
            are then numbered in the order they are decoded).
        keys: int64 ascending, time stamps of the frames where decoding can begin.
        unit: seconds.
        packets: number of frames that the packets announce.
        damage: what is wrong with the container (truncated), or None.
    """

    stamps: NDArray[np.int64] | None
    keys: NDArray[np.int64]
    unit: Fraction
    packets: int
    damage: str | None


def video_stream(container: Any, name: str) -> Any:
    """The first real video stream of a container (cover pictures of music do not count).

    Raises:
        InputError: there is none; the message says which streams were found.
    """
    for stream in container.streams.video:
        pictures = getattr(type(stream.disposition), "attached_pic", None)
        if pictures is None or not stream.disposition & pictures:
            return stream
    found = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
    raise InputError(f"{name} has no video in it (found: {found})")


def open_file(path: Path) -> Any:
    """Open a video file with PyAV.

    Raises:
        InputError: it is missing, empty, text, or nothing that FFmpeg knows; the message says what was found.
    """
    try:
        # The prefix keeps FFmpeg from taking a colon in a file name for a protocol.
        container = av.open(f"file:{path}")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} is no video that can be read: {describe(path)}") from error
    if set(container.format.name.split(",")) & _REFUSED_FORMATS:
        container.close()
        raise InputError(f"{path} is no video that can be read: {describe(path)}")
    return container


def describe(path: Path) -> str:
    """What a file that is no video holds instead, for messages."""
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


def build_index(path: Path) -> VideoIndex:
    """Read the packets of a video file once.

    Raises:
        InputError: the file is no video, or holds no frame.
    """
    with open_file(path) as container:
        stream = video_stream(container, str(path))
        matroska = "matroska" in container.format.name
        # FFmpeg gives frames of AVI the order of decoding as time stamps.
        unordered = container.format.name == "avi"
        codec = stream.codec_context.name
        stamps: list[int | None] = []
        keys: list[int] = []
        end, broken = 0.0, ""
        try:
            for packet in container.demux(None if matroska else stream):
                if packet.size == 0:
                    continue
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index != stream.index or not _shows(codec, packet):
                    continue
                if packet.is_keyframe and packet.pts is not None:
                    keys.append(packet.pts)
                if not packet.is_discard:
                    stamps.append(packet.pts)
        except av.error.FFmpegError as error:
            broken = f"its container is broken after {len(stamps)} frames ({error.strerror})"
        if not stamps:
            raise InputError(f"{path} is a video without a single frame")
        known = np.unique(np.array([stamp for stamp in stamps if stamp is not None], np.int64))
        usable = len(known) == len(stamps) and not (unordered and len(keys) < len(stamps))
        return VideoIndex(
            known if usable else None,
            np.unique(np.array(keys, np.int64)),
            stream.time_base,
            len(stamps),
            broken or _truncation(path, container, stream, end if matroska else None, len(stamps)),
        )


def _truncation(path: Path, container: Any, stream: Any, end: float | None, frames: int) -> str | None:
    size = path.stat().st_size
    entries = list(getattr(stream, "index_entries", ()))
    missing = sum(entry.pos + entry.size > size for entry in entries)
    if missing:
        return f"it is cut off: the data of {missing} of the {len(entries)} entries of its index lie behind the end of the file"
    if end is not None and container.duration is not None:
        announced = container.duration / av.time_base
        if end < announced - _MISSING_SECONDS:
            return f"it is cut off: it announces {announced:.2f} s, but ends after {frames} frames at {end:.2f} s"
    return None


def _shows(codec: str, packet: Any) -> bool:
    """Whether a packet gives a frame to show: VP8 and VP9 have packets that are only there to predict others from."""
    if codec not in ("vp8", "libvpx", "vp9", "libvpx-vp9"):
        return True
    data = bytes(packet)
    if "8" in codec or codec == "libvpx":
        return bool(data[0] & 0x10)  # show_frame, RFC 6386 section 9.1
    if data[-1] & 0xE0 == 0xC0:
        return True  # a superframe always ends in a frame that is shown (VP9 specification, annex B)
    bits = int.from_bytes(data[:2], "big")
    profile = (bits >> 13 & 1) | (bits >> 12 & 1) << 1
    place = 11 - (profile == 3)
    shows_existing = bits >> place & 1
    return bool(shows_existing or bits >> (place - 2) & 1)


def to_image(frame: Any, matrix: Matrix) -> Image:
    """A decoded frame as uint8 RGB [H,W,3], turned and mirrored as the display matrix says."""
    # Video that does not name its matrix is BT.709 from 720 lines on and BT.601 below, as players assume; 2 = unspecified.
    space = "ITU709" if frame.colorspace == 2 and frame.height >= 720 else None
    return turn(frame.reformat(format="rgb24", src_colorspace=space).to_ndarray(), matrix)


def display_matrix(frame: Any) -> Matrix:
    """(a, b, c, d) of the display matrix in 16.16 fixed point: x' = ax + cy, y' = bx + dy (ISO/IEC 14496-12, 6.2.2).

    To be asked for once a stream: it makes PyAV's frame refer to itself, so that its memory is only freed by the garbage collector,
    which does not know how much that is. Asked for each frame, hundreds of them pile up.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is not None:
        matrix = np.frombuffer(bytes(data), np.int32)
        return int(matrix[0]), int(matrix[1]), int(matrix[3]), int(matrix[4])
    return 1, 0, 0, 1


def turn(image: Image, matrix: Matrix) -> Image:
    """Turn by the multiple of 90 degrees, and mirror, that comes closest to the display matrix (see `display_matrix`)."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        image, flip_x, flip_y = image.swapaxes(0, 1), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def mean_rate(stream: Any, index: VideoIndex | None) -> Fraction | None:
    """Frames per second: the container's, unless the time stamps say something else."""
    rate: Fraction | None = stream.average_rate or stream.guessed_rate
    if index is None or index.stamps is None or len(index.stamps) < 2:
        guessed: Fraction | None = stream.guessed_rate
        return guessed or rate
    seconds = (int(index.stamps[-1]) - int(index.stamps[0])) * index.unit
    measured = (len(index.stamps) - 1) / seconds
    if rate and abs(rate / measured - 1) < 0.01:
        return Fraction(rate)
    return measured.limit_denominator(1001)
