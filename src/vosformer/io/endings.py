"""Whether a video file is whole: what its container says of its own end, against where the file ends.

Each check reads a few bytes of the head or the tail, never the whole file. Containers that may be cut anywhere by design (transport
and program streams, Ogg, GIF) are read as far as they go with a note; where a container says how much is missing, that is damage.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEAD_BYTES = 1 << 16
_TAIL_BYTES = 1 << 17
_TS_PACKETS = (188, 192, 204)
_UNREAD_SHARE = 0.02


class Ending(NamedTuple):
    """What the end of a file tells.

    Attributes:
        damage: what is missing, or None.
        notes: what a user should know although the file is read.
    """

    damage: str | None = None
    notes: tuple[str, ...] = ()


_Check = Callable[[BinaryIO, int], "str | None"]


def check_ending(path: Path, form: str, read_to: int | None) -> Ending:
    """Compare the end of a file with what its container says.

    Args:
        path: of the file.
        form: FFmpeg's name of its format.
        read_to: the byte behind the last packet that was read, of any stream; None if it is not known.
    """
    names = set(form.split(","))
    size = path.stat().st_size
    notes: list[str] = []
    with path.open("rb") as file:
        for name in sorted(names & set(_CHECKS)):
            check, open_ended = _CHECKS[name]
            found = check(file, size)
            if found and open_ended:
                notes.append(f"{path} {found}: it was read as far as it goes")
            elif found:
                return Ending(f"it is cut off: it {found}")
        if names & _ONLY_PACKETS and read_to is not None and size - read_to > max(4096, _UNREAD_SHARE * size):
            file.seek(read_to)
            joined = " (another recording is joined to it there)" if b"FLV\1" in file.read(64) else ""
            notes.append(
                f"{path}: what lies behind byte {read_to} of its {size} is not read{joined}, as FFmpeg and players do not: split it, "
                f"or convert it first"
            )
    return Ending(None, tuple(notes))


def _matroska(file: BinaryIO, size: int) -> str | None:
    """EBML header, then a segment whose size is known unless the recording is live (RFC 8794, RFC 9559)."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    offset = head.find(b"\x18\x53\x80\x67")
    if offset < 0 or offset + 12 > len(head):
        return None
    first = head[offset + 4]
    length = 9 - first.bit_length()
    value = int.from_bytes(head[offset + 4 : offset + 4 + length], "big") & ((1 << 7 * length) - 1)
    end = offset + 4 + length + value
    if value == (1 << 7 * length) - 1 or end <= size:
        return None
    return f"ends at byte {size}, but should reach to {end}"


def _flv(file: BinaryIO, size: int) -> str | None:
    """Every tag is followed by its size (Adobe FLV 10.1, E.3)."""
    file.seek(0)
    match = re.search(rb"\x00\x08filesize\x00(.{8})", file.read(_HEAD_BYTES), re.DOTALL)
    announced = struct.unpack(">d", match[1])[0] if match else 0.0
    if size < announced < 1 << 60:
        return f"ends at byte {size}, but should reach to {announced:.0f}"
    file.seek(max(0, size - 4))
    back = int.from_bytes(file.read(4), "big")
    if 11 <= back <= size - 13:
        file.seek(size - 4 - back)
        head = file.read(4)
        if head[0] & 31 in (8, 9, 18) and int.from_bytes(head[1:], "big") + 11 == back:
            return None
    return "ends in the middle of a tag"


def _riff(file: BinaryIO, size: int) -> str | None:
    """Chunks RIFF one after the other, each with its length."""
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF":
            return None
        if length in (0, 0xFFFFFFFF):
            return "was never closed, as where a recording breaks off"
        offset += 8 + length + length % 2
        if offset > size + 8:  # some writers are off by a header
            return f"ends at byte {size}, but should reach to {offset}"
    return None


def _mp4(file: BinaryIO, size: int) -> str | None:
    """Boxes one after the other, each with its length (ISO/IEC 14496-12, 4.2); those of fragments hold frames."""
    offset, fragments = 0, False
    while offset + 8 <= size:
        file.seek(offset)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:16], "big")
        fragments |= name == b"moof"
        if length < 8:
            return None
        offset += length
        if offset > size and fragments and name in (b"moof", b"mdat"):
            return f"ends at byte {size}, but its last fragment should reach to {offset}"
    return None


def _asf(file: BinaryIO, size: int) -> str | None:
    """Find the size of the file in its header (ASF specification, 3.2), unless it is a broadcast."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    offset = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if offset < 0 or offset + 92 > len(head):
        return None
    announced, flags = int.from_bytes(head[offset + 40 : offset + 48], "little"), head[offset + 88]
    if flags & 1 or announced <= size:
        return None
    return f"ends at byte {size}, but should reach to {announced}"


def _mxf(file: BinaryIO, size: int) -> str | None:
    """Find the offset of the footer in the header (SMPTE ST 377-1, 7.1)."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    offset = head.find(bytes.fromhex("060e2b34020501010d01020101"))
    if offset < 0 or offset + 64 > len(head):
        return None
    at = offset + 16
    at += 1 + (head[at] & 127 if head[at] & 128 else 0)
    footer = int.from_bytes(head[at + 24 : at + 32], "big")
    return f"ends at byte {size}, but its footer should lie at {footer}" if footer >= size else None


def _ogg(file: BinaryIO, size: int) -> str | None:
    """Look whether the last page says that it is the last (RFC 3533, 6)."""
    tail = _tail(file, size)
    offset = tail.rfind(b"OggS\0")
    if offset < 0 or offset + 27 > len(tail):
        return "ends in the middle of a page"
    segments = tail[offset + 27 : offset + 27 + tail[offset + 26]]
    if offset + 27 + tail[offset + 26] + sum(segments) > len(tail):
        return "ends in the middle of a page"
    return None if tail[offset + 5] & 4 else "ends without a mark of its end, as where a recording was cut off"


def _ivf(file: BinaryIO, size: int) -> str | None:
    file.seek(0)
    head = file.read(32)
    offset = int.from_bytes(head[6:8], "little")
    while offset + 12 <= size:
        file.seek(offset)
        head = file.read(4)
        if head == b"DKIF":  # another recording is joined to it
            return None
        offset += 12 + int.from_bytes(head, "little")
    return "ends in the middle of a frame" if offset != size else None


def _gif(file: BinaryIO, size: int) -> str | None:
    tail = _tail(file, size).rstrip(b"\0")
    return None if tail.endswith(b"\x3b") else "has no mark of its end, as where a file was cut off"


def _apng(file: BinaryIO, size: int) -> str | None:
    """Chunks one after the other, the last is IEND (PNG, 5.6)."""
    offset = 8
    while offset + 8 <= size:
        file.seek(offset)
        length, name = struct.unpack(">I4s", file.read(8))
        offset += 12 + length
        if name == b"IEND":
            return None
    return "ends before its last chunk"


def _transport(file: BinaryIO, size: int) -> str | None:
    """Packets of one length, each begins with 0x47 (ISO/IEC 13818-1, 2.4.3.2)."""
    file.seek(0)
    head = file.read(8192)
    for first in range(min(1024, len(head))):
        for length in _TS_PACKETS:
            if first + 4 * length < len(head) and all(head[first + n * length] == 0x47 for n in range(5)):
                start = first - 4 if length == 192 else first
                rest = (size - max(0, start)) % length
                return "ends in the middle of a packet, as where a recording was cut off" if rest else None
    return None


def _program(file: BinaryIO, size: int) -> str | None:
    """Packets with their lengths from the last pack on (ISO/IEC 13818-1, 2.5.3)."""
    tail = _tail(file, size)
    offset = tail.rfind(b"\0\0\1\xba")
    while 0 <= offset < len(tail):
        code = tail[offset : offset + 4]
        if code == b"\0\0\1\xb9":
            return None
        if len(code) < 4 or code[:3] != b"\0\0\1" or offset + 6 > len(tail):
            break
        if code[3] == 0xBA:  # 14 bytes and stuffing, or 12 in MPEG-1
            offset += 14 + (tail[offset + 13] & 7) if offset + 14 <= len(tail) and tail[offset + 4] & 0xC0 == 0x40 else 12
        else:
            offset += 6 + int.from_bytes(tail[offset + 4 : offset + 6], "big")
    return None if offset == len(tail) else "ends in the middle of a packet, as where a recording was cut off"


def _tail(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, size - _TAIL_BYTES))
    return file.read(_TAIL_BYTES)


# FFmpeg's name of a format -> (check, whether files of it may end anywhere)
_CHECKS: dict[str, tuple[_Check, bool]] = {
    "matroska": (_matroska, False),
    "flv": (_flv, False),
    "avi": (_riff, True),
    "mp4": (_mp4, False),
    "asf": (_asf, False),
    "mxf": (_mxf, False),
    "ivf": (_ivf, False),
    "apng": (_apng, False),
    "ogg": (_ogg, True),
    "gif": (_gif, True),
    "mpegts": (_transport, True),
    "mpeg": (_program, True),
}

# Formats of which nothing but packets lies behind the first one.
_ONLY_PACKETS = {"flv", "ivf", "asf", "yuv4mpegpipe", "dv"}
