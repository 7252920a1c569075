"""Decoded frames of a video stream as uint8 RGB: turned, of one size, of one range of values, high dynamic range toned down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vosformer.io.container import MAX_PIXELS, video_streams
from vosformer.io.frames import Image
from vosformer.io.hdr import HLG, PQ, tone_map
from vosformer.io.levels import Levels, find_levels
from vosformer.io.notes import Notes

Matrix = tuple[int, int, int, int]

_UPRIGHT: Matrix = (1, 0, 0, 1)
_ROTATED: dict[int, Matrix] = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}  # counterclockwise
_TRANSFERS = {PQ: "PQ", HLG: "HLG"}


@dataclass
class Look:
    """How the frames of one stream become pictures; see `look_at`.

    Attributes:
        name: of the source, for notes.
        coded: (height, width) that all frames get, before they are turned.
        matrix: see `display_matrix`.
        levels: of values of more than 8 bits, scaled to 16; None: the format's own scale.
        transfer: `PQ` or `HLG` for video of high dynamic range, else 0.
        primaries: of the colors, as ITU-T H.273 numbers them.
        notes: gets a line about frames of other sizes.
    """

    name: str
    coded: tuple[int, int]
    matrix: Matrix = _UPRIGHT
    levels: Levels | None = None
    transfer: int = 0
    primaries: int = 0
    notes: Notes = field(default_factory=Notes)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures."""
        height, width = self.coded
        return (width, height) if self.turned else (height, width)

    @property
    def turned(self) -> bool:
        """Whether height and width change places."""
        a, b = self.matrix[:2]
        return abs(b) > abs(a)

    def image(self, frame: Any, number: int) -> Image:
        """Turn a decoded frame into uint8 RGB [H,W,3]."""
        if (frame.height, frame.width) != self.coded:
            height, width = self.coded
            text = f"frames of {frame.width} x {frame.height} pixels were scaled to {width} x {height}, the size of the first"
            self.notes.add(text, number)
            frame = _scaled(frame, height, width)
        if self.levels is not None:
            pixels = self.levels.apply(frame_pixels(frame))
            pixels = np.repeat(pixels[:, :, None], 3, 2) if pixels.ndim == 2 else pixels
        elif self.transfer:
            pixels = tone_map(frame_pixels(frame).astype(np.uint16, copy=False), self.transfer, self.primaries)
        else:
            pixels = frame.reformat(format="rgb24", src_colorspace=_space(frame)).to_ndarray()
        return turn(pixels, self.matrix)


def look_at(name: str, frame: Any, levels: Levels | None, notes: Notes) -> Look:
    """Find out from a stream's first frame how its frames are to be shown.

    Args:
        name: of the source, for notes.
        frame: as PyAV decoded it.
        levels: that the user wants, in values of the file; None: see `stretch`.
        notes: gets a line about high dynamic range.
    """
    look = Look(name, (frame.height, frame.width), display_matrix(frame), notes=notes)
    if levels is not None:
        scale = 1 / native_scale(frame)
        look.levels = Levels(levels.low * scale, levels.high * scale)
    elif frame.color_trc in _TRANSFERS and bits(frame) > 8 and not _is_gray(frame):
        look.transfer, look.primaries = frame.color_trc, frame.color_primaries
        notes.add(f"{name} has a high dynamic range ({_TRANSFERS[look.transfer]}): it was toned down to that of ordinary video")
    return look


def stretch(look: Look, frames: Iterable[Any]) -> None:
    """Find the range of values of more than 8 bits from some frames of the stream, and note if they are stretched.

    Does nothing where the values have 8 bits, a range that the user chose, or a high dynamic range.
    """
    if look.levels is not None or look.transfer:
        return
    sampled, scale = [], 1.0
    for frame in frames:
        if bits(frame) <= 8:
            return
        scale = native_scale(frame)
        sampled.append(frame_pixels(frame))
    levels = find_levels(sampled)
    if levels.stretched or (sampled and sampled[0].dtype != np.uint16):
        look.levels = levels
    if levels.stretched:
        look.notes.add(f"{look.name}: {levels.describe(len(sampled), scale)}")


def bits(frame: Any) -> int:
    """Bits of a channel of a decoded frame."""
    return max((part.bits for part in frame.format.components), default=8)


def native_scale(frame: Any) -> float:
    """Return what the values of `frame_pixels` are to be multiplied by to have them as the file does."""
    depth = bits(frame)
    return (2**depth - 1) / 65535 if 8 < depth <= 16 else 1.0


def frame_pixels(frame: Any) -> NDArray[np.generic]:
    """Return a decoded frame at its depth: uint8, uint16 (more than 8 bits, scaled to 16) or float32; [H,W] if it is gray,
    else [H,W,3].
    """
    depth, gray = bits(frame), _is_gray(frame)
    if "f32" in frame.format.name or "f16" in frame.format.name:
        kind = "grayf32le" if gray else "gbrpf32le"
    elif depth > 8:
        kind = "gray16le" if gray else "rgb48le"
    else:
        kind = "gray" if gray else "rgb24"
    return np.asarray(frame.reformat(format=kind, src_colorspace=_space(frame)).to_ndarray())


def decode_picture(path: Path) -> NDArray[np.generic] | None:
    """Return the pixels of a picture that FFmpeg reads (DPX, OpenEXR, and many more), as `frame_pixels`; None if it does not
    decode.
    """
    try:
        with av.open(f"file:{path}") as container:
            if not container.format.name.endswith("_pipe") or not (streams := video_streams(container)):
                return None
            stream = streams[0]
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            return next((frame_pixels(frame) for frame in container.decode(stream)), None)
    except (av.error.FFmpegError, OSError, ValueError):
        return None


def pixel_aspect(stream: Any, look: Look) -> Fraction:
    """Width of a pixel divided by its height, after turning; 1 where the file does not say."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    if aspect <= 0:
        return Fraction(1)
    return 1 / Fraction(aspect) if look.turned else Fraction(aspect)


def display_matrix(frame: Any) -> Matrix:
    """Return (a, b, c, d) of the display matrix in 16.16 fixed point: x' = ax + cy, y' = bx + dy (ISO/IEC 14496-12, 6.2.2).

    To be asked for once a stream: it makes PyAV's frame refer to itself, so that its memory is only freed by the garbage collector,
    which does not know how much that is. Asked for each frame, hundreds of them pile up.
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # other data beside it of a kind that PyAV does not know, as EXIF; then without mirroring
        return _ROTATED.get(round(frame.rotation) % 360, _UPRIGHT)
    if data is not None:
        matrix = np.frombuffer(bytes(data), np.int32)
        return int(matrix[0]), int(matrix[1]), int(matrix[3]), int(matrix[4])
    return _UPRIGHT


def turn(image: Image, matrix: Matrix) -> Image:
    """Turn by the multiple of 90 degrees, and mirror, that comes closest to the display matrix (see `display_matrix`)."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        image, flip_x, flip_y = image.swapaxes(0, 1), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _scaled(frame: Any, height: int, width: int) -> Any:
    scaled = frame.reformat(width=width, height=height)
    scaled.color_trc, scaled.color_primaries = frame.color_trc, frame.color_primaries
    return scaled


def _space(frame: Any) -> str | None:
    # Video that does not name its matrix is BT.709 from 720 lines on and BT.601 below, as players assume; 2 = unspecified.
    return "ITU709" if frame.colorspace == 2 and frame.height >= 720 else None


def _is_gray(frame: Any) -> bool:
    return len(frame.format.components) < 3 and not frame.format.has_palette
