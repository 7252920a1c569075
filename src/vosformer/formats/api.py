"""`read`, `write` and `convert`: the doors to all formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vosformer.errors import InputError, OutputError
from vosformer.formats.archives import Unpacked
from vosformer.formats.burst import BURST
from vosformer.formats.coco import COCO, COCO_POLYGONS
from vosformer.formats.cvat import CVAT_IMAGES, CVAT_VIDEO
from vosformer.formats.datumaro import DATUMARO
from vosformer.formats.folders import MASKS, MASKS16, OBJECTS, RGBA, SAV
from vosformer.formats.labeled import LabeledVideo, ObjectInfo
from vosformer.formats.labelme import LABELME, XANYLABELING
from vosformer.formats.labelstudio import LABEL_STUDIO
from vosformer.formats.mattes import CUTOUT, EXR, MATTE, MATTE_PNG
from vosformer.formats.mots import MOTS_PNG, MOTS_TXT
from vosformer.formats.registry import FORMATS, ReadOptions, find_format, losses, recognize, register
from vosformer.formats.sav import SAV_JSON
from vosformer.formats.yolo import YOLO
from vosformer.formats.ytvis import YTVIS
from vosformer.io import Source
from vosformer.io.files import make_folder, replacing, replacing_folder

# In the order in which they are tried on a file: those that are recognized by few signs come last.
register(
    COCO, COCO_POLYGONS, YTVIS, BURST, DATUMARO, LABEL_STUDIO, LABELME, XANYLABELING, CVAT_IMAGES, CVAT_VIDEO, MOTS_PNG, MOTS_TXT,
    YOLO, SAV_JSON, MATTE, MATTE_PNG, CUTOUT, EXR, SAV, OBJECTS, RGBA, MASKS, MASKS16,
)  # fmt: skip


def read(
    path: Path | str,
    *,
    format: str | None = None,
    video: str | None = None,
    size: tuple[int, int] | None = None,
    legend: Path | None = None,
) -> LabeledVideo:
    """Read an annotation file or folder.

    Args:
        path: of the file or folder, or of a zip of one.
        format: its name in `FORMATS`; None: recognized by what lies there.
        video: name of the one to read of a file with several.
        size: (height, width) of the frames, for formats that do not say (YOLO without pictures).
        legend: file that tells which color of label pictures stands for which object.

    Raises:
        InputError: it is of no format that is known, or cannot be read; the message names the file and the field.
    """
    path = Path(path)
    if path.suffix.lower() == ".zip" and path.is_file():
        unpacked = Unpacked(path)
        found = read(unpacked.path, format=format, video=video, size=size, legend=legend)
        return replace(found, name=path.stem) if found.name == unpacked.path.name else found
    form = recognize(path) if format is None else find_format(format)
    if form is None or form.read is None:
        raise InputError(f"{path} is of no annotation format that is known: {describe_formats()}")
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    return form.read(path, ReadOptions(video, size, legend))


def describe_formats() -> str:
    """Return what can be read, for messages."""
    return "read are label images, .npy and " + ", ".join(name for name, form in FORMATS.items() if form.read is not None)


def write(
    video: LabeledVideo, path: Path | str, format: str, *, pictures: Source | None = None, overwrite: bool = False
) -> list[str]:
    """Write a labeled video: the whole file or folder, or nothing.

    Args:
        video: what to write.
        path: of the file, or of the folder.
        format: its name in `FORMATS`.
        pictures: the frames, for formats that hold pictures.
        overwrite: replace what is there; else a folder that holds something, or a file, is refused.

    Returns:
        What a user should know, e.g. what the format has no place for.

    Raises:
        InputError: there is no such format.
        OutputError: something is there already, an id does not fit, or it cannot be written.
    """
    path, form = Path(path), find_format(format)
    if form.write is None:
        raise InputError(f"{form.name} is only read")
    there = any(path.iterdir()) if path.is_dir() else path.exists()
    if there and not overwrite:
        raise OutputError(f"{path} is there already: choose another place, or allow to overwrite it")
    make_folder(path.parent)
    notes = losses(video, form)
    if "empty" not in form.holds:
        video = replace(video, frames=[frame for frame in video.frames if frame.masks])
    with replacing_folder(path) if form.folder else replacing(path) as temporary:
        notes += form.write(video, temporary, pictures) or []
    return notes


def convert(
    source: Path | str,
    path: Path | str,
    to: str,
    *,
    format: str | None = None,
    video: str | None = None,
    names: Mapping[int, ObjectInfo] | None = None,
    frames: Source | None = None,
    pictures: bool = False,
    overwrite: bool = False,
    legend: Path | None = None,
) -> tuple[LabeledVideo, list[str]]:
    """Read one format and write another.

    Args:
        source: file or folder to read.
        path: file or folder to write.
        to: name of the format to write.
        format: name of the format to read; None: recognized by what lies there.
        video: name of the one to read of a file with several.
        names: id -> name, category and color, which replace those that were read.
        frames: the video that the masks belong to, for what a format does not hold: size, rate, length.
        pictures: write the pictures of `frames`, too, where the format has a place for them.
        overwrite: see `write`.
        legend: see `read`.

    Returns:
        What was read, and what a user should know.

    Raises:
        InputError: see `read`.
        OutputError: see `write`.
    """
    form = find_format(to)
    if pictures and frames is None:
        raise InputError("the pictures cannot be written without the frames: give the video, too")
    found = read_along(source, format=format, video=video, names=names, frames=frames, legend=legend)
    shown = frames if form.pictures == "needed" or (pictures and form.pictures == "can") else None
    return found, [*found.notes, *write(found, path, to, pictures=shown, overwrite=overwrite)]


def read_along(
    source: Path | str,
    *,
    format: str | None = None,
    video: str | None = None,
    names: Mapping[int, ObjectInfo] | None = None,
    frames: Source | None = None,
    legend: Path | None = None,
) -> LabeledVideo:
    """Read an annotation file or folder, completed by the video and by names; see `convert` for the arguments.

    Raises:
        InputError: see `read`; or the frames have another size than the masks.
    """
    size = None if frames is None else (frames.height, frames.width)
    found = read(source, format=format, video=video, size=size, legend=legend)
    if frames is not None:
        found = _along(found, frames)
    if names:
        found = replace(found, objects={number: names.get(number, item) for number, item in found.objects.items()})
    return found


def _along(video: LabeledVideo, frames: Source) -> LabeledVideo:
    """Take rate and length of the frames, where the format does not hold them.

    Raises:
        InputError: the frames have another size than the masks.
    """
    if (video.height, video.width) != (frames.height, frames.width):
        raise InputError(
            f"the masks of {video.name} are {video.width} x {video.height} pixels, but the frames of {frames.name} are "
            f"{frames.width} x {frames.height}"
        )
    length = video.length if frames.count is None else max(video.length, frames.count)
    return replace(video, fps=video.fps or frames.fps, length=length)
