"""Folders of pictures: label maps, 16-bit label maps, one folder an object (also SA-V's), cut-outs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from vosformer.errors import InputError
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo
from vosformer.formats.names import palette_of
from vosformer.formats.registry import Content, Format, ReadOptions, reading
from vosformer.io import DAVIS_PALETTE, CutOuts, Frame, LabelImages, Source, read_labels
from vosformer.io.files import make_folder
from vosformer.io.labels import color_ids
from vosformer.io.order import natural_key
from vosformer.io.sinks import png

_MASKS = frozenset({".png", ".npy", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm"})
_SHOWN_NOTES = 10


def read_label_folder(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read a folder of label maps, one a frame, in the natural order of their names; or a single label map.

    Colors are those of the palette, where it is not the DAVIS palette.

    Raises:
        InputError: there is none, or one is no label map; see `read_labels`.
    """
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no masks in it: expected label maps, e.g. 00000.png")
    numbers, numbered = frame_numbers([file.stem for file in files])
    frames, palette, size = [], None, None
    colors, notes = color_ids(files, options.legend), list[str]()
    with reading(path, "folder of label maps"):
        for number, file in zip(numbers, files, strict=True):
            found = read_labels(file, allow_empty=True, colors=colors)
            notes += found.notes
            palette = found.palette if palette is None else palette
            size = size or found.labels.shape
            if found.labels.shape != size:
                raise ValueError(f"{file.name} is {_size(found.labels)} pixels, others {size[1]} x {size[0]}")
            frames.append(LabeledFrame.of_labels(number, file.stem, found.labels))
        ids = sorted({number for frame in frames for number in frame.masks})
        objects = [ObjectInfo(number, color=_own_color(palette, number)) for number in ids]
        return LabeledVideo.of(path.resolve().stem, frames, objects, size, numbered=numbered, notes=tuple(notes[:_SHOWN_NOTES]))


def _size(values: NDArray[np.generic]) -> str:
    return f"{values.shape[1]} x {values.shape[0]}"


def _own_color(palette: NDArray[np.uint8] | None, number: int) -> tuple[int, int, int] | None:
    if palette is None or number > 255 or np.array_equal(palette[number], DAVIS_PALETTE[number]):
        return None
    red, green, blue = palette[number].tolist()
    return red, green, blue


def read_object_folders(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read `<id>/<frame>.png`: black and white, 0 and 1, or cut-outs by their alpha (half or more is the object).

    Of SA-V's `<video>/<object>/<frame>.png` the folder of the video; its object 000 becomes the highest id plus one, since 0 means
    background, and a note says so.

    Raises:
        InputError: there is none, or one is no mask.
    """
    folders = {int(entry.name): entry for entry in path.iterdir() if entry.is_dir() and entry.name.isdecimal()}
    if not folders:
        raise InputError(f"{path} has no folders of objects in it: expected e.g. 1/00000.png")
    notes: tuple[str, ...] = ()
    if 0 in folders:
        new = max(folders) + 1
        folders[new] = folders.pop(0)
        notes = (f"object 0 became {new}, since 0 means background",)
    stems = sorted({file.stem for folder in folders.values() for file in _files(folder)}, key=natural_key)
    numbers, numbered = frame_numbers(stems)
    masks: dict[str, dict[int, Mask]] = {stem: {} for stem in stems}
    size: tuple[int, int] | None = None
    with reading(path, "folder of objects"):
        for number, folder in sorted(folders.items()):
            for file in _files(folder):
                pixels = _one_object(file)
                size = size or pixels.shape
                if pixels.shape != size:
                    raise ValueError(f"{file} is {_size(pixels)} pixels, others {size[1]} x {size[0]}")
                if pixels.any():
                    masks[file.stem][number] = Mask.of(pixels)
        frames = [LabeledFrame(number, stem, masks[stem]) for number, stem in zip(numbers, stems, strict=True)]
        objects = [ObjectInfo(number) for number in folders]
        return LabeledVideo.of(path.resolve().name, frames, objects, size, numbered=numbered, notes=notes)


def _one_object(path: Path) -> NDArray[np.bool_]:
    """Return the pixels of the only object of a file."""
    try:
        with Pillow.open(path) as image:
            soft = image.mode in ("RGBA", "LA")
            alpha = np.asarray(image.getchannel("A")) if soft else None
    except Exception as error:  # Pillow's readers raise nearly every kind of exception on broken files.
        raise InputError(f"{path} is no image that can be read: {error}") from error
    if alpha is not None:
        return np.asarray(alpha >= 128)
    found = read_labels(path, allow_empty=True)
    if len(found.ids) > 1:
        raise InputError(f"{path} holds several ids {found.ids[:6]}: expected the mask of one object, of two values")
    return np.asarray(found.labels > 0)


def frame_numbers(stems: list[str]) -> tuple[list[int], bool]:
    """Frame numbers of names in natural order: of "00042" the number itself, else their places; and whether names say them."""
    if all(stem.isascii() and stem.isdecimal() and len(stem) >= 5 for stem in stems):
        return [int(stem) for stem in stems], True
    return list(range(len(stems))), False


def _files(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in _MASKS and not file.name.startswith(".")]
    return sorted(files, key=lambda file: natural_key(file.name))


def frames_for_sinks(video: LabeledVideo, pictures: Source | None) -> Iterator[tuple[Frame, NDArray[np.int32], LabeledFrame]]:
    """Yield (frame with its picture if there are any, label map, labeled frame) of every annotated frame, for sinks."""
    for labeled in video.frames:
        frame = Frame(labeled.number, labeled.name, None, labeled.time)
        if pictures is not None:
            found = pictures.find(labeled.name)
            frame = frame._replace(image=pictures.read(labeled.number if found is None else found).image)
        yield frame, labeled.labels(video.height, video.width), labeled


def _write_labels(video: LabeledVideo, path: Path, bits: int) -> None:
    sink = LabelImages(path, palette_of(video.objects), bits)
    sink.check_ids(video.ids)
    for frame, labels, labeled in frames_for_sinks(video, None):
        sink.write(frame, labels, labeled.scores, lambda number: np.zeros((0, 0), np.float32))


def write_masks(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write one indexed PNG a frame."""
    _write_labels(video, path, 8)


def write_masks16(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write one 16-bit gray PNG a frame."""
    _write_labels(video, path, 16)


def _write_object_folders(video: LabeledVideo, path: Path, digits: int) -> None:
    make_folder(path)
    for number in video.ids:
        make_folder(path / f"{number:0{digits}d}")
    empty = np.zeros((video.height, video.width), np.uint8)
    for frame in video.frames:
        for number in video.ids:
            mask = frame.masks.get(number)
            pixels = empty if mask is None else mask.pixels().astype(np.uint8) * np.uint8(255)
            (path / f"{number:0{digits}d}" / f"{frame.name}.png").write_bytes(png(pixels))


def write_objects(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write `<id>/<frame>.png`, 0 and 255."""
    _write_object_folders(video, path, 1)


def write_sav(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write SA-V's `<id of three digits>/<frame>.png`, 0 and 255; the folder is that of the video."""
    _write_object_folders(video, path, 3)


def write_rgba(video: LabeledVideo, path: Path, pictures: Source | None = None) -> list[str]:
    """Write cut-outs `<id>/<frame>.png`; black where there are no pictures."""
    sink = CutOuts(path)
    for frame, labels, labeled in frames_for_sinks(video, pictures):
        masks = {number: mask.pixels().astype(np.float32) for number, mask in labeled.masks.items()}
        none = np.zeros(labels.shape, np.float32)
        sink.write(frame, labels, dict.fromkeys(video.ids, 1.0), lambda i, masks=masks, none=none: masks.get(i, none))  # type: ignore[misc]
    return (
        [] if pictures is not None else ["rgba without the video's pictures: the cut-outs are black; give them with --frames"]
    )


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return a JPEG file, quality 95, of uint8 RGB [H,W,3]."""
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_pictures(video: LabeledVideo, pictures: Source, folder: Path) -> list[str]:
    """Write the pictures of the annotated frames as JPEG or as what their names say; say which do not decode."""
    make_folder(folder)
    missing = []
    for labeled in video.frames:
        found = pictures.find(labeled.name)
        image = pictures.read(labeled.number if found is None else found).image
        if image is None:
            missing.append(labeled.number)
            continue
        path = folder / labeled.picture
        if path.suffix.lower() in (".jpg", ".jpeg"):
            path.write_bytes(jpeg(image))
        else:
            Pillow.fromarray(image).save(path)
    return [f"{len(missing)} frames do not decode and have no picture, the first is {missing[0]}"] if missing else []


def _is_objects(path: Path, content: Content) -> bool:
    if not path.is_dir():
        return False
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    inner = [entry for entry in entries if entry.is_dir()]
    return bool(inner) and all(entry.name.isdecimal() and any(_files(entry)) for entry in inner)


def _is_masks(path: Path, content: Content) -> bool:
    return bool(_files(path)) if path.is_dir() else path.suffix.lower() in _MASKS


def _never(path: Path, content: Content) -> bool:
    return False


_FLAT = frozenset({"ids", "empty", "shapes"})

MASKS = Format(
    "masks", "indexed PNG a frame, ids to 255", read_label_folder, write_masks, _is_masks, "masks", True,
    holds=_FLAT | {"colors"}, library="Pillow", checked="trackeval (DAVIS)",
)  # fmt: skip
MASKS16 = Format(
    "masks16", "16-bit PNG a frame, ids to 65535", read_label_folder, write_masks16, _never, "masks16", True,
    holds=_FLAT, library="Pillow", checked="",
)  # fmt: skip
OBJECTS = Format(
    "objects", "black and white PNG an object and frame", read_object_folders, write_objects, _is_objects, "objects", True,
    holds=_FLAT | {"overlap"}, library="OpenCV", checked="",
)  # fmt: skip
SAV = Format(
    "sav", "SA-V: VIDEO/001/00000.png", read_object_folders, write_sav, _never, "sav", True,
    holds=_FLAT | {"overlap"}, library="OpenCV", checked="",
)  # fmt: skip
RGBA = Format(
    "rgba", "cut-outs: RGBA PNG an object and frame", read_object_folders, write_rgba, _never, "rgba", True,
    holds=_FLAT | {"overlap"}, library="OpenCV, Pillow", checked="", pictures="needed",
)  # fmt: skip
