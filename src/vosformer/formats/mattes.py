"""Mattes for video editors, read back as masks: where half or more of a pixel is the object, it is the object's.

Sinks write them: `vosformer.io.mattes`, `vosformer.io.cryptomatte`, `vosformer.io.overlay`; see `vosformer.formats.outputs`.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from vosformer.errors import InputError
from vosformer.formats.folders import frame_numbers
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo
from vosformer.formats.registry import Content, Format, ReadOptions, reading
from vosformer.io import VideoFile
from vosformer.io.cryptomatte import package
from vosformer.io.order import natural_key

_HALF = 128
_FILM = re.compile(r"(.+)_(\d{1,10})_matte")
_HELD = frozenset({"ids", "overlap", "empty"})


def read_matte_pictures(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read `<id>/<video>.<frame>.png`, gray.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    files = {file: int(file.parent.name) for file in path.glob("*/*.png") if file.parent.name.isdecimal()}
    with reading(path, "folder of mattes"):
        names = sorted({_frame_of(file) for file in files}, key=natural_key)
        numbers, numbered = frame_numbers(names)
        masks: dict[str, dict[int, Mask]] = {name: {} for name in names}
        size = None
        for file, i in files.items():
            with Pillow.open(file) as image:
                pixels = np.asarray(image.convert("L")) >= _HALF
            size = pixels.shape
            if pixels.any():
                masks[_frame_of(file)][i] = Mask.of(pixels)
        frames = [LabeledFrame(number, name, masks[name]) for number, name in zip(numbers, names, strict=True)]
        objects = [ObjectInfo(i) for i in sorted(set(files.values()))]
        return LabeledVideo.of(path.resolve().name, frames, objects, size, numbered=numbered)


def _frame_of(file: Path) -> str:
    return file.stem.rpartition(".")[2]


def read_matte_films(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read `<video>_<id>_matte.mov` or `.mkv`, one film an object.

    Raises:
        InputError: there is none, one cannot be read, or there are those of several videos.
    """
    found = {file: match for file in sorted(path.iterdir()) if (match := _FILM.fullmatch(file.stem))}
    stems = sorted({match[1] for match in found.values()})
    if len(stems) != 1 and options.video not in stems:
        raise InputError(f"{path} holds mattes of {', '.join(stems[:5]) or 'no video'}: say which one by its name")
    stem = stems[0] if len(stems) == 1 else options.video
    masks: dict[int, dict[int, Mask]] = {}
    size, fps = None, None
    with reading(path, "folder of mattes"):
        films = {int(match[2]): file for file, match in found.items() if match[1] == stem}
        for i, file in films.items():
            source = VideoFile(file)
            fps = source.fps
            for frame in source:
                shown = masks.setdefault(frame.number, {})
                if frame.image is not None:
                    inside = _cropped(frame.image[:, :, 0] >= _HALF, options.size)
                    size = inside.shape
                    if inside.any():
                        shown[i] = Mask.of(inside)
        frames = [LabeledFrame(number, f"{number:05d}", shown) for number, shown in masks.items()]
        return LabeledVideo.of(str(stem), frames, [ObjectInfo(i) for i in films], size, fps=fps)


def read_cut_out_film(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read a film with transparency: what is not transparent is object 1.

    Raises:
        InputError: it cannot be read, or has no transparency.
    """
    with reading(path, "film with transparency"):
        source, size = VideoFile(path), None
        frames = []
        for number, alpha in enumerate(_alphas(source)):
            inside = _cropped(alpha >= _HALF, options.size)
            size = inside.shape
            frames.append(LabeledFrame(number, f"{number:05d}", {1: Mask.of(inside)} if inside.any() else {}))
        notes = (f"{path}: what is not transparent is object 1",)
        return LabeledVideo.of(path.stem, frames, [ObjectInfo(1)], size, fps=source.fps, notes=notes)


def _alphas(source: VideoFile) -> Iterator[NDArray[np.uint8]]:
    for frame in source.decoded():
        if frame is not None and not any(part.is_alpha for part in frame.format.components):
            raise InputError(f"{source.name} has no transparency, so it holds no masks")
        rgba = np.zeros((source.height, source.width, 4), np.uint8) if frame is None else frame.to_ndarray(format="rgba")
        yield rgba[:, :, 3]


def read_cryptomatte(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read EXR pictures with Cryptomatte, a file or a folder; names of objects that end in a number ("object 7") have it as id.

    Raises:
        InputError: one cannot be read, or has no Cryptomatte.
        OutputError: OpenEXR is not installed.
    """
    files = sorted(path.glob("*.exr"), key=lambda file: natural_key(file.name)) if path.is_dir() else [path]
    numbers, numbered = frame_numbers([_frame_of(file) for file in files])
    ids: dict[str, int] = {}
    frames, size = [], None
    with reading(path, "Cryptomatte"):
        for number, file in zip(numbers, files, strict=True):
            masks, size = _picked(file, ids)
            frames.append(LabeledFrame(number, _frame_of(file), masks))
        stem = files[0].stem.rpartition(".")[0] or files[0].stem
        objects = [ObjectInfo(i, "" if name == f"object {i}" else name) for name, i in ids.items()]
        return LabeledVideo.of(stem, frames, objects, size, numbered=numbered)


def _picked(file: Path, ids: dict[str, int]) -> tuple[dict[int, Mask], tuple[int, int]]:
    """Return the masks of a picture; new names get ids."""
    exr = package("OpenEXR")
    try:
        with exr.File(str(file)) as opened:
            header, channels = opened.header(), opened.channels()
            manifest = json.loads(next((value for key, value in header.items() if key.endswith("/manifest")), "{}"))
            layer = next((value for key, value in header.items() if re.fullmatch(r"cryptomatte/\w+/name", key)), "")
            pixels = {name: channel.pixels for name, channel in channels.items() if name.startswith(layer)}
    except RuntimeError as error:
        raise InputError(f"{file} is no EXR picture that can be read: {error}") from None
    pairs = _pairs(pixels, layer)
    if not manifest or not pairs:
        raise InputError(f"{file} has no Cryptomatte in it: expected a manifest and the layer CryptoObject00")
    size = next(iter(pairs))[0].shape
    masks: dict[int, Mask] = {}
    for name, code in manifest.items():
        layer_id = struct.unpack("<f", struct.pack("<I", int(code, 16)))[0]
        coverage = sum(np.where(layer_ids == np.float32(layer_id), values, 0) for layer_ids, values in pairs)
        i = ids.setdefault(name, _free_id(name, set(ids.values())))
        if (inside := np.asarray(coverage) >= 0.5).any():
            masks[i] = Mask.of(inside)
    return masks, (int(size[0]), int(size[1]))


def _pairs(pixels: dict[str, Any], layer: str) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return (ids, coverage) of every rank; OpenEXR gives channels R, G, B, A of a layer as one array."""
    found: list[tuple[Any, Any]] = []
    for rank in range(32):
        whole = pixels.get(f"{layer}{rank:02d}")
        parts = [pixels.get(f"{layer}{rank:02d}.{letter}") for letter in "RGBA"]
        if whole is not None and whole.ndim == 3:
            parts = [whole[:, :, at] for at in range(whole.shape[2])]
        found += [(parts[at], parts[at + 1]) for at in (0, 2) if len(parts) > at + 1 and parts[at] is not None]
    return found


def _free_id(name: str, taken: set[int]) -> int:
    match = re.search(r"(?:^|\s)([1-9]\d{0,8})$", name)
    if match and int(match[1]) not in taken:
        return int(match[1])
    return next(i for i in range(1, len(taken) + 2) if i not in taken)


def _cropped(pixels: NDArray[np.bool_], size: tuple[int, int] | None) -> NDArray[np.bool_]:
    """Take off the row or column by which codecs make sides even, where the size of the frames is known."""
    if size is not None and all(0 <= side - true <= 1 for side, true in zip(pixels.shape, size, strict=True)):
        return pixels[: size[0], : size[1]]
    return pixels


def _is_matte_pictures(path: Path, content: Content) -> bool:
    first = next(iter(path.glob("*/*.png")), None) if path.is_dir() else None
    return first is not None and first.parent.name.isdecimal() and "." in first.stem and not first.stem.isdecimal()


def _is_films(path: Path, content: Content) -> bool:
    return path.is_dir() and any(_FILM.fullmatch(file.stem) for file in path.iterdir())


def _is_cut_out(path: Path, content: Content) -> bool:
    return path.is_file() and path.suffix.lower() == ".mov"


def _is_exr(path: Path, content: Content) -> bool:
    return path.suffix.lower() == ".exr" or (path.is_dir() and any(path.glob("*.exr")))


MATTE = Format(
    "matte", "gray film an object, for video editors", read_matte_films, None, _is_films, "matte", True,
    holds=_HELD | {"rate"}, library="PyAV", checked="ffprobe",
)  # fmt: skip
MATTE_PNG = Format(
    "matte-png", "gray PNG an object and frame, for video editors", read_matte_pictures, None, _is_matte_pictures, "matte-png", True,
    holds=_HELD | {"shapes"}, library="Pillow", checked="",
)  # fmt: skip
CUTOUT = Format(
    "cutout", "film of all objects with transparency", read_cut_out_film, None, _is_cut_out, "cutout.mov",
    holds=frozenset({"rate", "empty"}), library="PyAV", checked="ffprobe",
)  # fmt: skip
EXR = Format(
    "exr", "EXR with Cryptomatte of all objects", read_cryptomatte, None, _is_exr, "exr", True,
    holds=_HELD | {"names", "shapes"}, library="OpenEXR, mmh3", checked="Blender",
)  # fmt: skip
