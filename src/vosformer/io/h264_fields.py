"""Which packets of interlaced H.264 are the second field of a frame, read from slice headers without decoding (ITU-T H.264)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_SLICES, _SPS, _PPS = (1, 5), 7, 8
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_HEADER_BYTES = 64  # of a slice: its first fields lie well within


class _Sequence(NamedTuple):
    """What a sequence parameter set says (7.3.2.1.1)."""

    frames_only: bool
    separate_planes: bool
    frame_number_bits: int


class _Field(NamedTuple):
    """A field of a picture: which one, and of which frame."""

    bottom: bool
    frame_number: int


class FieldPairs:
    """Goes through the packets of a stream in the order of decoding and tells which of them complete a frame that was begun.

    Attributes:
        fields: a packet with a single field was seen.
        unknown: parameter sets are missing or not understood, so that only decoding tells.

    Args:
        extradata: of the stream, as FFmpeg has it: an avcC box, or units with start codes, or empty.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self.fields = self.unknown = False
        self._length_bytes = 0
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, int] = {}
        self._pending: _Field | None = None
        data = extradata or b""
        if data[:1] == b"\1" and len(data) > 6:
            self._length_bytes = (data[4] & 3) + 1
            units: Iterator[bytes] = _avcc_units(data)
        else:
            units = _start_code_units(data)
        for unit in units:
            self._parameters(unit)

    @property
    def possible(self) -> bool:
        """Whether the stream may keep fields apart: not if every sequence has whole frames only."""
        return not self._sequences or not all(item.frames_only for item in self._sequences.values())

    def completes(self, data: bytes) -> bool:
        """Tell whether a packet only has the second field of the frame that the one before it began."""
        found: list[_Field] = []
        units = _length_units(data, self._length_bytes) if self._length_bytes else _start_code_units(data)
        for unit in units:
            if unit and unit[0] & 31 in _SLICES:
                field = self._slice(unit)
                if field is None:
                    self._pending = None
                    return False
                if not found or field != found[-1]:
                    found.append(field)
            else:
                self._parameters(unit)
        if not found:
            self.unknown = True
            return False
        first, last = found[0], found[-1]
        if len(found) > 1 and first.bottom != last.bottom:  # both fields in one packet
            self._pending = None
            return False
        self.fields = True
        before, self._pending = self._pending, first
        if before is not None and before.bottom != first.bottom and before.frame_number == first.frame_number:
            self._pending = None
            return True
        return False

    def _parameters(self, unit: bytes) -> None:
        kind = unit[0] & 31 if unit else 0
        try:
            if kind == _SPS:
                number, sequence = _sequence(_Bits(unit[1:]))
                self._sequences[number] = sequence
            elif kind == _PPS:
                bits = _Bits(unit[1 : 1 + _HEADER_BYTES])
                picture = bits.number()
                self._pictures[picture] = bits.number()
        except (IndexError, ValueError):
            self.unknown = True

    def _slice(self, unit: bytes) -> _Field | None:
        """Return the field of a slice; None if it belongs to a whole frame (7.3.3)."""
        try:
            bits = _Bits(unit[1 : 1 + _HEADER_BYTES])
            bits.number()
            bits.number()
            sequence = self._sequences[self._pictures[bits.number()]]
            if sequence.frames_only:
                return None
            if sequence.separate_planes:
                bits.take(2)
            frame_number = bits.take(sequence.frame_number_bits)
            return _Field(bool(bits.take(1)), frame_number) if bits.take(1) else None
        except (KeyError, IndexError, ValueError):
            self.unknown = True
            return None


class _Bits:
    """Reads the bits of a unit, whose emulation prevention is taken out (7.4.1)."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")
        self._text = f"{int.from_bytes(plain, 'big'):0{8 * len(plain)}b}" if plain else ""
        self._place = 0

    def take(self, count: int) -> int:
        part = self._text[self._place : self._place + count]
        if len(part) < count:
            raise IndexError("the unit is too short")
        self._place += count
        return int(part or "0", 2)

    def number(self) -> int:
        """Exp-Golomb code, unsigned (9.1)."""
        one = self._text.find("1", self._place)
        if one < 0 or one - self._place > 31:
            raise ValueError("no number")
        zeros, self._place = one - self._place, one
        return self.take(zeros + 1) - 1

    def signed(self) -> int:
        value = self.number()
        return (value + 1) // 2 if value % 2 else -(value // 2)


def _sequence(bits: _Bits) -> tuple[int, _Sequence]:
    profile = bits.take(8)
    bits.take(16)
    number, planes, chroma = bits.number(), False, 1
    if profile in _HIGH_PROFILES:
        chroma = bits.number()
        planes = chroma == 3 and bool(bits.take(1))
        bits.number()
        bits.number()
        bits.take(1)
        if bits.take(1):
            for at in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if at < 6 else 64)
    frame_number_bits = bits.number() + 4
    order = bits.number()
    if order == 0:
        bits.number()
    elif order == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        for _ in range(bits.number()):
            bits.signed()
    bits.number()
    bits.take(1)
    bits.number()
    bits.number()
    return number, _Sequence(bool(bits.take(1)), planes, frame_number_bits)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _start_code_units(data: bytes) -> Iterator[bytes]:
    offset = data.find(b"\0\0\1")
    while offset >= 0:
        after = data.find(b"\0\0\1", offset + 3)
        yield data[offset + 3 : after if after >= 0 else len(data)]
        offset = after


def _length_units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    offset = 0
    while offset + length_bytes < len(data):
        length = int.from_bytes(data[offset : offset + length_bytes], "big")
        offset += length_bytes
        yield data[offset : offset + length]
        offset += length


def _avcc_units(data: bytes) -> Iterator[bytes]:
    """Parameter sets of an avcC box (ISO/IEC 14496-15, 5.3.3.1)."""
    offset = 5
    for mask in (31, 255):
        if offset >= len(data):
            return
        count, offset = data[offset] & mask, offset + 1
        for _ in range(count):
            length = int.from_bytes(data[offset : offset + 2], "big")
            yield data[offset + 2 : offset + 2 + length]
            offset += 2 + length
