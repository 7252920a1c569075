"""Label maps in: every way in which people keep masks, and a clear refusal of what is no label map."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.images import open_picture
from vosformer.io.label_arrays import read_label_array
from vosformer.io.label_png import RawLabels, read_raw_labels
from vosformer.io.legend import Color, ColorIds, find_legend, read_legend
from vosformer.io.order import natural_key
from vosformer.io.palette import DAVIS_PALETTE, VOID, pack, painted_ids

_ENDINGS = """
.png .npy .npz .bmp .dib .tif .tiff .webp .gif .pgm .pbm .ppm .pnm .tga .pcx .sgi .jp2 .jpg .jpeg .jfif
"""
SUFFIXES = frozenset(_ENDINGS.split())

_KINDS = (
    "expected a label map: an indexed PNG, a gray image whose values are ids, black and white for one object, a cut-out by alpha, or "
    "colors with a legend (--legend FILE, or legend.json beside it). Save it without anti-aliasing or smoothing; ids that are meant "
    "as they are can be given as .npy"
)

# This many values that only occur as thin transitions cannot be thin objects by chance.
_TRANSITIONS = 3
_MANY_TRANSITIONS = 24

# A picture that is cut out has at least so many colors, a label map that is numbered by its colors at most so many.
_FEW_IDS = 64
_PHOTO_COLORS = 65
_LABEL_COLORS = 64


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


def read_labels(path: Path | str, *, allow_empty: bool = False, colors: ColorIds | None = None) -> LabelMap:
    """Read the label map of one frame.

    - Indexed images: the indices are the ids, and the palette is kept.
    - Gray images of 1, 8 or 16 bits: the values are the ids. A lone 255 (65535 in 16 bits) besides 0 means object 1.
    - 255 beside other ids (but 254) is void, as in VOC: background, and a note says so.
    - Color images: a legend beside them tells the ids (see `vosformer.io.legend`); else all of their colors must be colors of the
      DAVIS palette. Color images without any color are read as gray.
    - Cut-outs, which are photographs with transparent pixels: what is not transparent is object 1.
    - Pixels of alpha 0, and indices that the palette hides, are background; other alpha than 0 and full is refused as soft, but in
      cut-outs.
    - JPEG and lossy WebP are refused: they do not keep values.
    - `.npy` and `.npz`: an integer or bool array [H,W], taken as it is; in an .npz also masks [N,H,W] of the objects 1 to N.
    - A folder: one black and white image per object, named by its id ("3.png", or anything that ends in "_3.png"). Where objects
      overlap the lowest id wins, and a note says so.

    Args:
        path: of the file or folder.
        allow_empty: accept a map without any object.
        colors: how colors become ids; None: colors that neither a legend nor the DAVIS palette has are refused. A legend that is
            given counts for the colors of indexed and gray images, too.

    Raises:
        InputError: the file is missing or broken, is no label map (the message shows the values found), has negative ids or ids
            beyond 2^31 - 1, or is empty.
    """
    path, colors = Path(path), colors or ColorIds()
    if path.is_dir():
        found = _read_object_folder(path)
    elif not path.exists():
        raise InputError(f"{path}: there is no such mask")
    elif path.suffix.lower() in (".npy", ".npz"):
        labels, notes = read_label_array(path)
        found = LabelMap(labels, None, notes)
    else:
        found = _read_image(path, colors)
    if not allow_empty and not found.labels.any():
        why = "".join(f"; {note}" for note in found.notes)
        raise InputError(f"{path} has no object in it: all of its {found.labels.size} pixels are 0 (background){why}")
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


def color_ids(paths: Sequence[Path], legend: Path | None = None) -> ColorIds:
    """Decide how the colors of all masks of a video become ids: if one picture has a color that nothing tells, all are numbered.

    Args:
        paths: of the masks; only pictures of colors are read.
        legend: that the user gives, or None.
    """
    if legend is not None:
        return ColorIds(legend)
    for path in paths:
        if path.is_file() and path.suffix.lower() not in (".npy", ".npz") and _mode(path) in ("RGB", "RGBA"):
            if find_legend(path) is not None:
                return ColorIds()
            pixels = _seen(np.asarray(read_raw_labels(path).values, np.uint8))
            if (pixels != pixels[:, :, :1]).any() and painted_ids(pixels)[1]:
                return ColorIds(number="unknown" if len(paths) == 1 else "all")
    return ColorIds()


def _mode(path: Path) -> str:
    try:
        with open_picture(path) as image:
            return str(image.mode)
    except InputError:  # said when it is read
        return ""


def _seen(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(pixels[:, :, 3:] > 0, pixels[:, :, :3], 0).astype(np.uint8)


def _read_image(path: Path, colors: ColorIds) -> LabelMap:
    try:
        raw = read_raw_labels(path)
    except InputError as error:
        raise InputError(f"{path} is no image that can be read: {str(error).removeprefix(f'{path} ')}; {_KINDS}") from error
    if raw.lossy:
        raise InputError(f"{path} is compressed as lossy {raw.form}, which changes values, so ids are lost: {_KINDS}")
    if colors.legend is not None and not raw.colored and raw.values.dtype in (np.uint8, np.bool_):
        shown = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1) if raw.palette is None else raw.palette
        values = np.asarray(raw.values, np.uint8) * np.uint8(255 if raw.values.dtype == np.bool_ else 1)
        alpha = np.where(np.isin(values, raw.hidden), 0, 255).astype(np.uint8)
        return _from_colors(path, np.dstack([shown[values], alpha]), colors)
    if raw.palette is not None:
        return _from_indices(path, raw, raw.palette)
    if raw.mode in ("LA", "RGB", "RGBA"):
        return _from_colors(path, np.asarray(raw.values, np.uint8), colors)
    if raw.colored or raw.mode == "F":
        raise InputError(f"{path} is an image of mode {raw.mode}, which cannot hold ids: {_KINDS}")
    if raw.values_are_ids:
        return LabelMap(raw.values.astype(np.int32))
    return _from_gray(path, raw.values)


def _from_indices(path: Path, raw: RawLabels, palette: NDArray[np.uint8]) -> LabelMap:
    given, hidden = np.asarray(raw.values), list(raw.hidden)
    indices = np.where(np.isin(given, hidden), np.uint8(0), given).astype(np.uint8)
    used = np.unique(indices)
    notes = () if used[0] == 0 else ("no pixel of it is background (index 0)",)
    if not np.array_equal(palette[used], DAVIS_PALETTE[used]):
        if list(used) == [0, 255] or list(used) == [255]:
            return LabelMap((indices > 0).astype(np.int32), palette, notes)
        brightness = palette.astype(np.int64) @ np.array([299, 587, 114]) // 4  # fits 16 bits
        _refuse_soft(path, indices, brightness.astype(np.uint16)[indices], _TRANSITIONS)
        _check_background(path, palette, np.unique(given), hidden)
    found = LabelMap(indices.astype(np.int32), palette, notes)
    return found if raw.values_are_ids else _without_void(path, found)


def _without_void(path: Path, found: LabelMap) -> LabelMap:
    """Make 255 background where it stands beside other ids: in VOC and its kin it marks pixels that do not count."""
    ids = found.ids
    if VOID not in ids or len(ids) < 2 or VOID - 1 in ids or ids[-1] > VOID:
        return found
    count = int((found.labels == VOID).sum())
    others = ", ".join(map(str, ids[:-1][:5])) + (", ..." if len(ids) > 6 else "")
    note = (
        f"{path}: 255 on {count} pixels, beside the {'id' if len(ids) == 2 else 'ids'} {others}, was taken for void (pixels that do "
        f"not count, as in VOC) and left out; as .npy it would be an object"
    )
    return LabelMap(np.where(found.labels == VOID, 0, found.labels).astype(np.int32), found.palette, (*found.notes, note))


def _check_background(path: Path, palette: NDArray[np.uint8], used: NDArray[np.generic], hidden: list[int]) -> None:
    """Refuse images that quantization made, where index 0 is a color like any other and another index the background."""
    black = [int(index) for index in used if index and not palette[index].any()]
    if used[0] == 0 and 0 not in hidden and np.ptp(palette[0]) and (black or hidden):
        other = f"index {hidden[0]} is transparent" if hidden else f"index {black[0]} is black"
        raise InputError(
            f"{path} is indexed, and index 0, which means background, is the color {tuple(palette[0].tolist())}, while {other}: "
            f"it was reduced to a palette by colors; expected index 0 for the background and the ids as indices"
        )


def _from_gray(path: Path, values: NDArray[np.generic]) -> LabelMap:
    if values.dtype == np.bool_:
        return LabelMap(values.astype(np.int32))
    used = np.unique(values)
    if int(used[0]) < 0 or int(used[-1]) > 65535:
        raise InputError(f"{path} has values {used[0]} to {used[-1]}: expected ids of 0 to 65535")
    top = 255 if values.dtype == np.uint8 else 65535
    if int(used[-1]) == top and (len(used) == 1 or (len(used) == 2 and used[0] == 0)):
        return LabelMap(np.asarray(values != 0, np.int32))
    labels = values.astype(np.uint16)
    if top == VOID == int(used[-1]) and int(used[-2]) <= _FEW_IDS:
        # Small ids and a border of void between them; an edge that was smoothed would have all values in between.
        without = np.where(labels == VOID, np.uint16(0), labels)
        _refuse_soft(path, without, without, _TRANSITIONS)
    else:
        # Where full white is used, anything between it and black is an edge that was smoothed.
        _refuse_soft(path, labels, labels, 1 if int(used[-1]) == top else _TRANSITIONS)
    return _without_void(path, LabelMap(labels.astype(np.int32)))


def _from_colors(path: Path, pixels: NDArray[np.uint8], colors: ColorIds) -> LabelMap:
    alpha, seen = pixels[:, :, 3], _seen(pixels)
    packed = pack(seen)
    used = np.unique(packed)
    if len(used) >= _PHOTO_COLORS and alpha.min() < 128 <= alpha.max():
        soft = int(((alpha > 0) & (alpha < 255)).sum())
        edge = f"; its soft edge of {soft} pixels was cut at half" if soft else ""
        note = f"{path} is a cut-out of {len(used)} colors: what is not transparent is object 1{edge}"
        return LabelMap((alpha >= 128).astype(np.int32), None, (note,))
    if ((alpha > 0) & (alpha < 255)).any():
        _refuse(path, "values of transparency", alpha, "so it is soft")
    legend = colors.legend or find_legend(path)
    if legend is not None:
        return LabelMap(_by_legend(path, packed, legend), None, (f"{path}: its colors were read with {legend}",))
    if (seen == seen[:, :, :1]).all():
        return _from_gray(path, seen[:, :, 0])
    ids, missing = painted_ids(seen)
    if not missing and colors.number != "all":
        return _without_void(path, LabelMap(ids))
    if colors.number == "none" or len(used) > _LABEL_COLORS:
        _refuse(path, "colors", packed, f"and {missing} of them are not in the DAVIS palette")
    found = _numbered(path, seen, packed, colors)
    if not (alpha == 0).any() or not found.notes:
        return found
    said = f"{found.notes[0]}; what is transparent (alpha 0) is background. A cut-out of one object needs its alpha as a mask"
    return LabelMap(found.labels, None, (said,))


def _by_legend(path: Path, packed: NDArray[np.int32], legend: Path) -> NDArray[np.int32]:
    known: Mapping[Color, int] = {(0, 0, 0): 0, **read_legend(legend)}
    labels = np.full(packed.shape, -1, np.int32)
    for (red, green, blue), number in known.items():
        labels[packed == (red << 16 | green << 8 | blue)] = number
    if (labels < 0).any():
        _refuse(path, "colors", packed[labels < 0], f"which are not in {legend}")
    return labels


def _numbered(path: Path, seen: NDArray[np.uint8], packed: NDArray[np.int32], colors: ColorIds) -> LabelMap:
    """Assign numbers to colors, from 1 in their order from the top; black, or else the border's color, has none."""
    brightness = (seen.astype(np.int64) @ np.array([299, 587, 114]) // 4).astype(np.uint16)
    _refuse_soft(path, packed, brightness, 1)
    if colors.ground is None:
        border = np.concatenate([packed[0], packed[-1], packed[:, 0], packed[:, -1]])
        values, counts = np.unique(border, return_counts=True)
        colors.ground = 0 if (packed == 0).any() else int(values[counts.argmax()])
    found = [int(color) for color in dict.fromkeys(packed.ravel().tolist()) if color not in (0, colors.ground)]
    new = [color for color in found if color not in colors.numbers]
    for color in new:
        colors.numbers[color] = len(colors.numbers) + 1
    labels = np.zeros(packed.shape, np.int32)
    for color in found:
        labels[packed == color] = colors.numbers[color]
    if not new:
        return LabelMap(labels)
    shown = ", ".join(f"{colors.numbers[color]} = {_show(color, 'colors')}" for color in new)
    ground = _show(colors.ground, "colors")
    note = f"{path}: its colors were numbered: {shown}, background = {ground}; --legend or legend.json beside it says otherwise"
    return LabelMap(labels, None, (note,))


def _refuse_soft(path: Path, labels: NDArray[np.generic], brightness: NDArray[np.uint16], limit: int) -> None:
    """Refuse maps whose values are not regions but steps between regions.

    A value of a label map fills areas. One that nowhere fills 3 x 3 pixels, and mostly lies between a darker and a brighter
    neighbor, comes from anti-aliasing, blur or lossy compression. Smooth gradients fill areas, too, but nearly all of their steps
    are of 1 or 2.
    """
    used, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(used) < 3:
        return
    kernel = np.ones((3, 3), np.uint8)
    compact = inverse.reshape(labels.shape).astype(np.uint16)
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
    raise InputError(f"{path} is no label map: it holds {len(used)} {kind} ({shown}{more}), {why}; {_KINDS}")


def _show(value: int, kind: str) -> str:
    return str((value >> 16, value >> 8 & 255, value & 255)) if kind == "colors" else str(value)


def _read_object_folder(folder: Path) -> LabelMap:
    files: dict[int, Path] = {}
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    for path in sorted(paths, key=lambda path: natural_key(path.name)):
        match = re.fullmatch(r"(?:.*[_\-. ])?([0-9]{1,10})", path.stem)
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
    notes: tuple[str, ...] = ()
    if 0 in files:  # as automatic mask generators number them; 0 is the background
        files = {number + 1: path for number, path in files.items()}
        notes = (f"the masks of {folder} are numbered from 0, which means background: {files[1].name} is object 1, and so on",)
    return _merge(folder, files, notes)


def _merge(folder: Path, files: dict[int, Path], notes: tuple[str, ...]) -> LabelMap:
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
    if overlapping:
        notes = (*notes, f"masks overlap on {overlapping} pixels: the lowest id was taken")
    return LabelMap(labels, None, notes)
