"""Label maps in: every way in which people keep masks, and a clear refusal of what is no label map."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from vosformer.errors import InputError
from vosformer.io.order import natural_key
from vosformer.io.palette import DAVIS_PALETTE, pack, painted_ids

SUFFIXES = frozenset({".png", ".npy", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".jpg", ".jpeg"})

_GREY_MODES = {"1", "L", "I;16", "I;16L", "I;16B", "I;16N", "I"}
_EXPECTED = (
    "expected a label map: an indexed PNG, a grey image whose values are ids, or black and white for one object. Save it without "
    "anti-aliasing or smoothing; ids that are meant as they are can be given as .npy"
)

# This many values that only occur as thin transitions cannot be thin objects by chance.
_TRANSITIONS = 3
_MANY_TRANSITIONS = 24


@dataclass(frozen=True)
class LabelMap:
    """Objects of one frame.

    Attributes:
        labels: int32 [H,W], 0 = background, else the id of the object.
        palette: uint8 RGB [256,3] of an indexed image, or None.
        notes: what a user should know about how the file was read.
    """

    labels: NDArray[np.int32]
    palette: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids that occur, ascending, without 0."""
        return tuple(int(value) for value in np.unique(self.labels) if value)


def read_labels(path: Path | str, *, allow_empty: bool = False) -> LabelMap:
    """Read the label map of one frame.

    - Indexed images: the indices are the ids, and the palette is kept.
    - Grey images of 1, 8 or 16 bits: the values are the ids. A lone 255 (65535 in 16 bits) besides 0 means object 1.
    - Colour images: all of their colours must be colours of the DAVIS palette. Colour images without any colour are read as grey.
    - Pixels of alpha 0, and indices that the palette hides, are background; other alpha than 0 and full is refused as soft.
    - JPEG and lossy WebP are refused: they do not keep values.
    - `.npy`: an integer or bool array [H,W], taken as it is.
    - A folder: one black and white image per object, named by its id ("3.png", or anything that ends in "_3.png"). Where objects
      overlap the lowest id wins, and a note says so.

    Args:
        path: of the file or folder.
        allow_empty: accept a map without any object.

    Raises:
        InputError: the file is missing or broken, is no label map (the message shows the values found), has negative ids or ids
            beyond 2^31 - 1, or is empty.
    """
    path = Path(path)
    if path.is_dir():
        found = _read_object_folder(path)
    elif not path.exists():
        raise InputError(f"{path}: there is no such mask")
    elif path.suffix.lower() == ".npy":
        found = _read_array(path)
    else:
        found = _read_image(path)
    if not allow_empty and not found.labels.any():
        raise InputError(f"{path} has no object in it: all of its {found.labels.size} pixels are 0 (background)")
    return found


def check_size(labels: NDArray[np.int32], height: int, width: int, path: Path | str) -> None:
    """Refuse a label map of another size than the frames.

    Raises:
        InputError: the sizes differ.
    """
    if labels.shape != (height, width):
        found = " x ".join(str(side) for side in labels.shape[::-1])
        raise InputError(
            f"{path} is {found} pixels, but the frames are {width} x {height}: a mask must have the size of its frame"
        )


def _read_image(path: Path) -> LabelMap:
    try:
        with Pillow.open(path) as image:
            image.load()
    except Exception as error:  # Pillow's readers raise nearly every kind of exception on broken files.
        raise InputError(f"{path} is no image that can be read: {error}") from error
    if _is_lossy(path, image.format):
        raise InputError(f"{path} is compressed as lossy {image.format}, which changes values, so ids are lost: {_EXPECTED}")
    if image.mode == "P":
        return _from_indices(path, image)
    if image.mode in _GREY_MODES:
        return LabelMap(_from_grey(path, np.asarray(image)))
    if image.mode in ("LA", "RGB", "RGBA"):
        return LabelMap(_from_colours(path, np.asarray(image.convert("RGBA"))))
    raise InputError(f"{path} is an image of mode {image.mode}, which cannot hold ids: {_EXPECTED}")


def _from_indices(path: Path, image: Pillow.Image) -> LabelMap:
    raw = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(raw)] = raw
    given, hidden = np.asarray(image), _transparent_indices(image)
    indices = np.where(np.isin(given, hidden), np.uint8(0), given)
    used = np.unique(indices)
    notes = () if used[0] == 0 else ("no pixel of it is background (index 0)",)
    if not np.array_equal(palette[used], DAVIS_PALETTE[used]):
        if list(used) == [0, 255] or list(used) == [255]:
            return LabelMap((indices > 0).astype(np.int32), palette, notes)
        brightness = palette.astype(np.int64) @ np.array([299, 587, 114]) // 4  # fits 16 bits
        _refuse_soft(path, indices, brightness.astype(np.uint16)[indices], _TRANSITIONS)
        _check_background(path, palette, np.unique(given), hidden)
    return LabelMap(indices.astype(np.int32), palette, notes)


def _is_lossy(path: Path, form: str | None) -> bool:
    if form != "WEBP":
        return form in ("JPEG", "MPO")
    data = path.read_bytes()  # the lossless kind of chunk may come after others
    return data[12:16] == b"VP8 " or (data[12:16] == b"VP8X" and b"VP8L" not in data)


def _transparent_indices(image: Pillow.Image) -> list[int]:
    alpha = image.info.get("transparency")
    if isinstance(alpha, bytes):
        return [index for index, value in enumerate(alpha) if value == 0]
    return [] if alpha is None else [int(alpha)]


def _check_background(path: Path, palette: NDArray[np.uint8], used: NDArray[np.generic], hidden: list[int]) -> None:
    """Refuse images that quantisation made, where index 0 is a colour like any other and another index the background."""
    black = [int(index) for index in used if index and not palette[index].any()]
    if used[0] == 0 and 0 not in hidden and np.ptp(palette[0]) and (black or hidden):
        other = f"index {hidden[0]} is transparent" if hidden else f"index {black[0]} is black"
        raise InputError(
            f"{path} is indexed, and index 0, which means background, is the colour {tuple(palette[0].tolist())}, while {other}: "
            f"it was reduced to a palette by colours; expected index 0 for the background and the ids as indices"
        )


def _from_grey(path: Path, values: NDArray[np.generic]) -> NDArray[np.int32]:
    if values.dtype == np.bool_:
        return values.astype(np.int32)
    used = np.unique(values)
    if int(used[0]) < 0 or int(used[-1]) > 65535:
        raise InputError(f"{path} has values {used[0]} to {used[-1]}: expected ids of 0 to 65535")
    top = 255 if values.dtype == np.uint8 else 65535
    if int(used[-1]) == top and (len(used) == 1 or (len(used) == 2 and used[0] == 0)):
        return np.asarray(values != 0, np.int32)
    labels = values.astype(np.uint16)
    # Where full white is used, anything between it and black is an edge that was smoothed.
    _refuse_soft(path, labels, labels, 1 if int(used[-1]) == top else _TRANSITIONS)
    return labels.astype(np.int32)


def _from_colours(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    alpha = pixels[:, :, 3]
    if ((alpha > 0) & (alpha < 255)).any():
        _refuse(path, "values of transparency", alpha, "so it is soft")
    rgb = np.where(alpha[:, :, None] > 0, pixels[:, :, :3], 0).astype(np.uint8)
    if (rgb == rgb[:, :, :1]).all():
        return _from_grey(path, rgb[:, :, 0])
    ids, missing = painted_ids(rgb)
    if missing:
        _refuse(path, "colours", pack(rgb), f"and {missing} of them are not in the DAVIS palette")
    return ids


def _refuse_soft(path: Path, labels: NDArray[np.generic], brightness: NDArray[np.uint16], limit: int) -> None:
    """Refuse maps whose values are not regions but steps between regions.

    A value of a label map fills areas. One that nowhere fills 3 x 3 pixels, and mostly lies between a darker and a brighter
    neighbour, comes from anti-aliasing, blur or lossy compression. Smooth gradients fill areas, too, but nearly all of their steps
    are of 1 or 2.
    """
    used, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(used) < 3:
        return
    kernel = np.ones((3, 3), np.uint8)
    compact = places.reshape(labels.shape).astype(np.uint16)
    filled = np.zeros(len(used), bool)
    flat = cv2.erode(compact, kernel) == cv2.dilate(compact, kernel)
    filled[np.unique(compact[flat])] = True
    between = (brightness > cv2.erode(brightness, kernel)) & (brightness < cv2.dilate(brightness, kernel))
    share = np.bincount(compact[between], minlength=len(used)) / counts
    transitions = int((~filled & (share >= 0.5)).sum())
    # Of many tiny objects some lie between two others. Of soft values most do, or many, or there is hardly any flat area.
    if transitions >= limit and (limit == 1 or transitions >= min(len(used) / 2, _MANY_TRANSITIONS) or flat.mean() < 0.3):
        _refuse(
            path,
            "values",
            labels,
            f"and {transitions} of them only occur as thin transitions, as in soft or anti-aliased images",
        )
    if len(used) >= 16 and _small_steps(brightness.astype(np.int32)) > 0.8:
        _refuse(path, "values", labels, "and nearly all of them border on the next one, as in a gradient")


def _small_steps(values: NDArray[np.int32]) -> float:
    steps = np.abs(np.concatenate([np.diff(values, axis=0).ravel(), np.diff(values, axis=1).ravel()]))
    return float((steps[steps > 0] <= 2).mean()) if steps.any() else 0.0


def _refuse(path: Path, kind: str, values: NDArray[np.generic], why: str) -> NoReturn:
    used, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:6]
    shown = ", ".join(f"{_show(int(used[at]), kind)} on {counts[at]} pixels" for at in order)
    more = ", ..." if len(used) > len(order) else ""
    raise InputError(f"{path} is no label map: it holds {len(used)} {kind} ({shown}{more}), {why}; {_EXPECTED}")


def _show(value: int, kind: str) -> str:
    return str((value >> 16, value >> 8 & 255, value & 255)) if kind == "colours" else str(value)


def _read_array(path: Path) -> LabelMap:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no .npy array that can be read: {error}") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "biu":
        found = f"shape {np.shape(values)}, dtype {getattr(values, 'dtype', type(values).__name__)}"
        raise InputError(f"{path} is no label map ({found}): expected whole numbers of shape [H,W]")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > np.iinfo(np.int32).max:
        raise InputError(f"{path} has ids {low} to {high}: expected 0 to {np.iinfo(np.int32).max}")
    return LabelMap(values.astype(np.int32))


def _read_object_folder(folder: Path) -> LabelMap:
    files: dict[int, Path] = {}
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    for path in sorted(paths, key=lambda path: natural_key(path.name)):
        match = re.fullmatch(r"(?:.*[_\-. ])?0*([1-9][0-9]{0,9})", path.stem)
        if match is None:
            raise InputError(
                f"{path}: expected the name of a mask of one object to be its id or to end in it, like 3.png or dog_3.png"
            )
        number = int(match.group(1))
        if number in files:
            raise InputError(f"{folder} has two masks of object {number}: {files[number].name} and {path.name}")
        if number > np.iinfo(np.int32).max:
            raise InputError(f"{path}: the id {number} is too large; expected at most {np.iinfo(np.int32).max}")
        files[number] = path
    if not files:
        raise InputError(f"{folder} has no masks in it: expected one image per object, like 3.png or dog_3.png")
    return _merge(folder, files)


def _merge(folder: Path, files: dict[int, Path]) -> LabelMap:
    labels = np.zeros((0, 0), np.int32)
    overlapping = 0
    for number in sorted(files):
        mask = read_labels(files[number], allow_empty=True)
        if len(mask.ids) > 1:
            raise InputError(
                f"{files[number]} holds several ids {mask.ids[:6]}: expected the mask of one object, of two values"
            )
        if not labels.size:
            labels = np.zeros_like(mask.labels)
        if labels.shape != mask.labels.shape:
            raise InputError(f"{files[number]} has shape {mask.labels.shape}, the other masks of {folder} {labels.shape}")
        own = mask.labels > 0
        overlapping += int((own & (labels > 0)).sum())
        labels[own & (labels == 0)] = number
    notes = (f"masks overlap on {overlapping} pixels: the lowest id was taken",) if overlapping else ()
    return LabelMap(labels, None, notes)
