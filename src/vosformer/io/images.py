"""Single images and arrays, of whatever kind, as uint8 RGB, and back to files."""

from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

from vosformer.errors import InputError
from vosformer.io.files import write_bytes
from vosformer.io.frames import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})

# Pillow rotates TIFF by itself while loading; PNG would have to be decoded to see whether it has EXIF data.
_EXIF_FORMATS = {"JPEG", "MPO", "WEBP"}
_ORIENTATION = 0x0112


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sort key that puts "frame 2" before "frame 10"; upper and lower case are the same, ties go by the exact name."""
    pieces = re.split(r"([0-9]+)", name.casefold())
    return tuple(int(piece) if at % 2 else piece for at, piece in enumerate(pieces)), name


def image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) in pixels from the header, EXIF rotation counted; None if the file is no image that can be read."""
    try:
        with Pillow.open(path) as image:
            width, height = image.size
            turned = image.format in _EXIF_FORMATS and image.getexif().get(_ORIENTATION, 1) >= 5
            return (width, height) if turned else (height, width)
    except Exception:  # Pillow's readers raise nearly every kind of exception on broken files.
        return None


def read_image(path: Path) -> Image:
    """An image file as uint8 RGB [H,W,3].

    EXIF rotation is applied. Grey is repeated, 16 bits are cut to the upper 8, alpha is laid over black.

    Raises:
        InputError: the file does not decode; the message says why.
    """
    try:
        with Pillow.open(path) as image:
            if image.format in _EXIF_FORMATS:
                return _pillow_to_rgb(ImageOps.exif_transpose(image))
            return _pillow_to_rgb(image)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:
        # Pillow lacks some kinds that OpenCV reads, e.g. colour TIFF of 16 bits.
        values = _opencv(path)
        if values is None:
            raise InputError(f"{path} does not decode: {error}") from error
        return to_rgb(values, str(path))


def write_picture(path: Path, image: Image) -> None:
    """Write uint8 [H,W,3] as the format that the suffix names.

    Raises:
        OutputError: it cannot be written.
        InputError: the suffix names no format.
    """
    kind = Pillow.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: {path.suffix!r} names no picture format; expected .png or .jpg")
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, kind)
    write_bytes(path, buffer.getvalue())


def to_rgb(values: NDArray[np.generic], name: str) -> Image:
    """An array of one image as uint8 RGB [H,W,3], C-contiguous.

    Args:
        values: uint8 or uint16 [H,W], [H,W,1], [H,W,3] (RGB) or [H,W,4] (RGBA).
        name: what a message calls it.

    Raises:
        InputError: shape or dtype are others.
    """
    array = np.asarray(values)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"{name} has shape {np.shape(values)}: expected [H,W], [H,W,1], [H,W,3] or [H,W,4]")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"{name} has dtype {array.dtype}: expected uint8 (0 to 255) or uint16 (0 to 65535)")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    elif array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.uint16)
        array = ((array[:, :, :3] * alpha + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(array)


def _pillow_to_rgb(image: Pillow.Image) -> Image:
    if image.mode == "RGB":
        return np.ascontiguousarray(image)
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"grey values {values.min()} to {values.max()} are no picture: expected 0 to 255 or 0 to 65535")
        return to_rgb(values.astype(np.uint16), "the image")
    if image.mode == "F":
        return _float_to_rgb(np.asarray(image, np.float32))
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        return to_rgb(np.asarray(image.convert("RGBA")), "the image")
    return np.ascontiguousarray(image.convert("RGB"))


def _float_to_rgb(values: NDArray[np.float32]) -> Image:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # also true for NaN
        raise InputError(f"floating-point grey values {low:g} to {high:g} are no picture: expected 0 to 1 or 0 to 255")
    return to_rgb(np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8), "the image")


def _opencv(path: Path) -> NDArray[np.generic] | None:
    try:
        values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        return None
    if values is None or values.dtype not in (np.uint8, np.uint16):
        return None
    if values.ndim == 3 and values.shape[2] >= 3:
        values = values[:, :, [2, 1, 0, 3][: values.shape[2]]]
    return np.asarray(values)
