"""Reading pictures and label maps, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from vosformer.data.types import Image, Labels
from vosformer.errors import DataError, InputError
from vosformer.io.images import image_size
from vosformer.io.label_png import read_raw_labels
from vosformer.io.palette import painted_ids

_PILLOW_FAILURES = (OSError, SyntaxError, ValueError, UnidentifiedImageError, PILImage.DecompressionBombError)


def read_image(path: Path) -> Image:
    """Return a picture as uint8 RGB [H,W,3], turned as its EXIF data say (as tracking sees it).

    Raises:
        DataError: it is missing or cannot be decoded.
    """
    pixels = _decode(path, cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def read_sprite(path: Path) -> NDArray[np.uint8]:
    """Return a picture with transparency as uint8 RGBA [h,w,4], cut to what is visible; opaque pictures get a full alpha.

    Raises:
        DataError: it is missing, cannot be decoded, or nothing of it is visible.
    """
    pixels = _decode(path, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 2:
        rgba = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGBA))
    else:
        rgba = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGBA))
    trimmed = trim(rgba.astype(np.uint8, copy=False))
    if trimmed is None:
        raise DataError(f"{path}: no pixel has an alpha of 128 or more, so nothing of this sprite is visible")
    return trimmed


def read_labels(path: Path, binary: bool | None = False) -> Labels:
    """Return a label map as uint8 [H,W]: the palette index or the gray value of each pixel.

    Args:
        path: a PNG (indexed, gray or black and white; a color picture if it is gray in fact, or in colors of the DAVIS palette).
        binary: every value above 0 becomes object 1 (saliency masks, DAVIS 2016); None: in a mask of nothing but 0 and 255.

    Raises:
        DataError: missing, undecodable, in colors that stand for no label, or with labels above 255.
    """
    values = read_values(path)
    if binary is None:
        binary = is_black_and_white(values)
    if binary:
        values = (values > 0).astype(np.int64)
    if values.max(initial=0) > 255:
        raise DataError(f"{path}: the mask has the label {values.max()}; labels of 0 to 255 are expected")
    return values.astype(np.uint8)


def is_black_and_white(values: NDArray[np.int64]) -> bool:
    """Tell whether a mask holds 255 and besides it nothing but 0."""
    return bool((values == 255).any() and ((values == 0) | (values == 255)).all())


def read_values(path: Path) -> NDArray[np.int64]:
    """Return a label map's values [H,W], whatever the depth it is stored with; a picture in colors of the DAVIS palette
    counts as indexed.

    Raises:
        DataError: missing, undecodable, or in colors that the palette lacks.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such mask")
    try:
        raw = read_raw_labels(path)
    except InputError as error:
        raise DataError(f"{path}: the mask cannot be read ({str(error).removeprefix(f'{path} does not decode: ')})") from None
    values = raw.values
    if raw.colored:
        colors = np.asarray(values[..., :3], np.uint8)
        if (colors == colors[..., :1]).all():
            values = colors[..., 0]
        else:
            values, missing = painted_ids(colors)
            if missing:
                raise DataError(
                    f"{path}: the mask is a color picture, and {missing} of its colors are not in the DAVIS palette; an indexed or"
                    " gray PNG with one number an object is expected"
                )
    return values.astype(np.int64)


def verify_image(path: Path) -> tuple[int, int]:
    """Return (height, width) of a picture that was decoded to its last byte, as `read_image` turns it.

    Raises:
        DataError: it is missing, cut short or not a picture.
    """
    try:
        with PILImage.open(path) as picture:
            picture.load()
            return image_size(path) or (picture.height, picture.width)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such picture") from None
    except _PILLOW_FAILURES as error:
        raise DataError(f"{path}: the picture cannot be read ({error})") from None


def has_alpha(path: Path) -> bool:
    """Tell whether a picture has transparency, by its header; False if it cannot be read."""
    try:
        with PILImage.open(path) as picture:
            return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    except _PILLOW_FAILURES:
        return False


def cut_out(image: Image, mask: NDArray[np.bool_]) -> NDArray[np.uint8] | None:
    """Return the object under `mask` as RGBA [h,w,4] with a soft edge, cut to its bounding box; None if the mask is empty."""
    box = bounding_box(mask)
    if box is None:
        return None
    top, bottom, left, right = box
    # One pixel of room, so that the soft edge ends inside the patch.
    alpha = np.pad(mask[top:bottom, left:right].astype(np.uint8) * 255, 1)
    alpha = np.minimum(np.asarray(cv2.GaussianBlur(alpha, (3, 3), 0)), alpha)
    colors = np.pad(image[top:bottom, left:right], ((1, 1), (1, 1), (0, 0)), mode="edge")
    return np.dstack([colors, alpha])


def trim(rgba: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the part of an RGBA picture where alpha is at least 128, or None if there is no such pixel."""
    box = bounding_box(rgba[..., 3] >= 128)
    if box is None:
        return None
    top, bottom, left, right = box
    return np.ascontiguousarray(rgba[top:bottom, left:right])


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Return (top, bottom, left, right) of the true pixels, ends exclusive; None if there are none."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _decode(path: Path, flags: int) -> NDArray[np.uint8]:
    try:
        raw = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such picture") from None
    except OSError as error:
        raise DataError(f"{path}: the picture cannot be read ({error})") from None
    pixels = cv2.imdecode(raw, flags) if len(raw) else None
    if pixels is None:
        raise DataError(f"{path}: not a picture that can be decoded ({len(raw)} bytes)")
    if pixels.dtype != np.uint8:
        raise DataError(f"{path}: found {pixels.dtype} pixels, expected 8 bits a channel")
    return np.asarray(pixels)
