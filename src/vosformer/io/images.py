"""Single pictures and arrays, of whatever kind and depth, as uint8 RGB, and back to files."""

from __future__ import annotations

import io
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import TiffImagePlugin, UnidentifiedImageError

from vosformer.errors import InputError
from vosformer.io.container import check_pixels
from vosformer.io.decoded import decode_picture
from vosformer.io.files import write_bytes
from vosformer.io.frames import Image
from vosformer.io.levels import Levels, find_levels

_KINDS = """
.jpg .jpeg .jpe .jfif .jif .mpo .png .apng .webp .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .pfm .tga .icb .vda .vst .jp2 .j2k .j2c
.jpc .jpf .jpx .jxl .avif .heic .heif .hif .gif .dpx .exr .hdr .sgi .rgb .rgba .bw .pcx .ras .sr .qoi .dds .psd
"""
SUFFIXES = frozenset(_KINDS.split())
"""Endings of pictures. In a folder, files of other names are frames, too, if Pillow finds a picture in them."""

_ORIENTATION = 0x0112
_WIDTH, _HEIGHT, _BITS = 256, 257, 258  # tags of TIFF
_LINEAR = {".exr", ".hdr"}
_JXL_BOX, _JXL_BARE = b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\n"
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
# What Pillow takes for pictures but would need other programs for, or of which it only shows the first of many.
_NO_PICTURES = {"MPEG", "PDF", "EPS", "WMF", "GRIB", "HDF5", "BUFR", "FLI"}


def open_picture(path: Path) -> Pillow.Image:
    """Open a picture with Pillow, of which only the header is read.

    Raises:
        InputError: it is none, or is too large by its header.
    """
    try:
        image = _open(path)
        if image.format in _NO_PICTURES:
            image.close()
            raise ValueError(f"it is {image.format}, no picture")
    except Exception as error:  # Pillow's readers raise nearly every kind of exception on broken files.
        raise InputError(f"{path} does not decode: {error}") from error
    check_pixels(path, image.height, image.width)
    return image


def _open(path: Path) -> Pillow.Image:
    try:
        return Pillow.open(path)
    except UnidentifiedImageError:
        with path.open("rb") as file:
            head = file.read(12)
        if head[4:8] == b"ftyp" and head[8:] in _HEIC_BRANDS:
            _package("pillow_heif", "HEIC").register_heif_opener()
        elif head == _JXL_BOX or head[:2] == _JXL_BARE:
            _package("pillow_jxl", "JPEG XL")  # registers itself
        else:
            raise
        return Pillow.open(path)


def _package(name: str, kind: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        text = f"it is {kind}, which needs the package {name.replace('_', '-')}: install vosformer[pictures]"
        raise ValueError(text) from None


def is_linear(path: Path) -> bool:
    """Tell whether floating-point pixels of a picture are linear light, as those of EXR and Radiance."""
    return path.suffix.lower() in _LINEAR


def image_size(path: Path) -> tuple[int, int] | None:
    """Give (height, width) in pixels as `read_image` returns them, from the header where possible; None if it cannot be read."""
    try:
        try:
            with open_picture(path) as image:
                turned = _orientation(path, image) >= 5
                return (image.width, image.height) if turned else (image.height, image.width)
        except InputError:
            tags = _tiff_tags(path)
            if not tags:
                return read_pixels(path).shape[:2]
            height, width = int(tags[_HEIGHT]), int(tags[_WIDTH])
            check_pixels(path, height, width)
            return (width, height) if tags.get(_ORIENTATION, 1) >= 5 else (height, width)
    except Exception:  # as above
        return None


def read_image(path: Path, levels: Levels | None = None) -> Image:
    """Read an image file as uint8 RGB [H,W,3].

    EXIF rotation is applied, gray is repeated, alpha is laid over black.

    Args:
        path: of the file.
        levels: what becomes black and white in pictures of more than 8 bits; None: found from this picture alone.

    Raises:
        InputError: the file does not decode; the message says why.
    """
    return to_rgb(read_pixels(path), str(path), levels, is_linear(path))


def read_pixels(path: Path) -> NDArray[np.generic]:
    """Read an image file at its own depth: uint8, uint16 or float32; [H,W], [H,W,3] or [H,W,4], with EXIF rotation applied.

    Pillow reads it, else OpenCV, else FFmpeg. Linear light (EXR, Radiance) stays as it is, see `is_linear`.

    Raises:
        InputError: none of them can.
    """
    try:
        values = _pillow(path)
    except InputError as error:
        other = _opencv(path)
        other = decode_picture(path) if other is None else other
        if other is None:
            raise InputError(str(error)) from None
        values = other
    return values


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


def to_rgb(values: NDArray[np.generic], name: str, levels: Levels | None = None, linear: bool = False) -> Image:
    """Turn an array of one image into uint8 RGB [H,W,3], C-contiguous.

    Args:
        values: uint8, uint16 or float32 [H,W], [H,W,1], [H,W,3] (RGB) or [H,W,4] (RGBA).
        name: what a message calls it.
        levels: see `read_image`.
        linear: floating-point values are linear light.

    Raises:
        InputError: shape or dtype are others.
    """
    array = np.asarray(values)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"{name} has shape {np.shape(values)}: expected [H,W], [H,W,1], [H,W,3] or [H,W,4]")
    if array.dtype not in (np.uint8, np.uint16, np.float32):
        raise InputError(f"{name} has dtype {array.dtype}: expected uint8 (0 to 255), uint16 (0 to 65535) or float32")
    rgb, alpha = array[:, :, :3], array[:, :, 3:]
    if array.dtype != np.uint8:
        rgb = (levels or find_levels([rgb], linear)).apply(rgb)
        alpha = Levels(0, 65535 if array.dtype == np.uint16 else 1).apply(alpha)
    if array.shape[2] == 1:
        rgb = np.repeat(rgb, 3, axis=2)
    elif array.shape[2] == 4:
        rgb = ((rgb * alpha.astype(np.uint16) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(rgb)


def _pillow(path: Path) -> NDArray[np.generic]:
    with open_picture(path) as image:
        if cuts_to_8_bits(path, image):
            raise InputError(f"{path}: Pillow would cut its 16 bits a channel to 8")
        try:
            turn = _orientation(path, image)
            return _turned(pillow_pixels(image), turn)
        except Exception as error:  # Pillow's decoders raise nearly every kind of exception on broken files.
            raise InputError(f"{path} does not decode: {error}") from error


def pillow_pixels(image: Pillow.Image) -> NDArray[np.generic]:
    """Return the pixels of a picture that Pillow has open, at its depth; see `read_pixels`."""
    if image.mode in ("RGB", "L"):
        return np.array(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        fits = values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 65535
        return values.astype(np.uint16 if fits else np.float32)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        return np.array(image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def cuts_to_8_bits(path: Path, image: Pillow.Image) -> bool:
    """Tell whether a picture has colors of 16 bits, of which Pillow keeps the upper 8."""
    if image.format == "TIFF":
        depths = getattr(image, "tag_v2", {}).get(_BITS, (1,))
        return not image.mode.startswith(("I", "F")) and max(depths if isinstance(depths, tuple) else (depths,)) > 8
    with path.open("rb") as file:
        head = file.read(64)
    if image.format == "PNG":
        return head[24] == 16 and head[25] != 0  # bit depth and color type; gray of 16 bits stays as it is
    if image.format == "PPM":
        return head[:2] == b"P6" and b"65535" in head
    return image.format == "SGI" and head[3] == 2 and image.mode != "L"


def _orientation(path: Path, image: Pillow.Image) -> int:
    """Return the EXIF orientation, 1 to 8. Pillow turns TIFF by itself; PNG may have it behind the pixels."""
    early = {"exif", "Raw profile type exif"} & image.info.keys()
    if image.format == "TIFF" or (image.format == "PNG" and not early and not _late_exif(path)):
        return 1
    found: Any = image.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def _late_exif(path: Path) -> bool:
    """Walk over the chunks of a PNG without decoding them."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"eXIf":
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _turned(values: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Turn and mirror pixels as EXIF wants it: 2 mirrored, 3 upside down, 6 and 8 turned, and so on (EXIF 2.32, 4.6.4)."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    flip_y, flip_x = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return values[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def _tiff_tags(path: Path) -> dict[int, Any]:
    """Return the tags of a TIFF whose kind of pixels Pillow lacks (16 bits or floating point a color); empty for other
    files.
    """
    with path.open("rb") as file:
        head = file.read(8)
        if head[:4] not in (b"II*\0", b"MM\0*"):
            return {}
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        return dict(tags)


def _opencv(path: Path) -> NDArray[np.generic] | None:
    if _is_bomb(path):
        return None
    try:
        values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        tags = _tiff_tags(path)
    except Exception:  # of either library, on broken files
        return None
    if values is None or 0 in values.shape or (values.ndim == 3 and values.shape[2] not in (1, 3, 4)):
        return None
    if values.ndim == 3 and values.shape[2] >= 3:
        values = values[:, :, [2, 1, 0, 3][: values.shape[2]]]
    orientation = tags.get(_ORIENTATION, 1)
    if values.dtype not in (np.uint8, np.uint16):
        values = values.astype(np.float32)
    return _turned(values, orientation if orientation in range(1, 9) else 1)


def _is_bomb(path: Path) -> bool:
    """Tell whether a header announces more pixels than are decoded: OpenCV would reserve gigabytes for them."""
    try:
        tags = _tiff_tags(path)
        if tags:
            check_pixels(path, int(tags[_HEIGHT]), int(tags[_WIDTH]))
        with Pillow.open(path):
            return False
    except (InputError, Pillow.DecompressionBombError):
        return True
    except Exception:  # no picture to Pillow
        return False
