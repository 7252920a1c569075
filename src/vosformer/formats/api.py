"""`read`, `write` and `convert`: the doors to all formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vosformer.errors import InputError, OutputError
from vosformer.formats.burst import BURST
from vosformer.formats.coco import COCO, COCO_POLYGONS
from vosformer.formats.cvat import CVAT_IMAGES, CVAT_VIDEO
from vosformer.formats.datumaro import DATUMARO
from vosformer.formats.folders import MASKS, MASKS16, OBJECTS, RGBA, SAV
from vosformer.formats.labelled import LabelledVideo, ObjectInfo
from vosformer.formats.labelme import LABELME, XANYLABELING
from vosformer.formats.labelstudio import LABEL_STUDIO
from vosformer.formats.mots import MOTS_PNG, MOTS_TXT
from vosformer.formats.registry import FORMATS, Format, ReadOptions, find_format, losses, recognize, register
from vosformer.formats.yolo import YOLO
from vosformer.formats.ytvis import YTVIS
from vosformer.io import Source
from vosformer.io.files import make_folder, replacing, replacing_folder

# In the order in which they are tried on a file: those that are recognized by few signs come last.
register(
    COCO, COCO_POLYGONS, YTVIS, BURST, DATUMARO, LABEL_STUDIO, LABELME, XANYLABELING, CVAT_IMAGES, CVAT_VIDEO, MOTS_PNG, MOTS_TXT,
    YOLO, SAV, OBJECTS, RGBA, MASKS, MASKS16,
)  # fmt: skip


def read(
    path: Path | str, *, format: str | None = None, video: str | None = None, size: tuple[int, int] | None = None
) -> LabelledVideo:
    """Read an annotation file or folder.

    Args:
        path: of the file or folder.
        format: its name in `FORMATS`; None: told by what lies there.
        video: name of the one to read of a file with several.
        size: (height, width) of the frames, for formats that do not say (YOLO without pictures).

    Raises:
        InputError: it is of no format that is known, or cannot be read; the message names the file and the field.
    """
    path = Path(path)
    form = recognize(path) if format is None else find_format(format)
    if form is None or form.read is None:
        raise InputError(f"{path} is of no annotation format that is known: {describe_formats()}")
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    return form.read(path, ReadOptions(video, size))


def describe_formats() -> str:
    """What can be read, for messages."""
    return "read are label images, .npy and " + ", ".join(name for name, form in FORMATS.items() if form.read is not None)


def write(
    video: LabelledVideo, path: Path | str, format: str, *, pictures: Source | None = None, overwrite: bool = False
) -> list[str]:
    """Write a labelled video: the whole file or folder, or nothing.

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
    names: dict[int, ObjectInfo] | None = None,
    pictures: Source | None = None,
    overwrite: bool = False,
) -> tuple[LabelledVideo, list[str]]:
    """Read one format and write another.

    Returns:
        What was read, and what a user should know.

    Raises:
        InputError: see `read`.
        OutputError: see `write`.
    """
    size = None if pictures is None else (pictures.height, pictures.width)
    found = read(source, format=format, video=video, size=size)
    if pictures is not None:
        found = _along(found, pictures)
    if names:
        found = replace(found, objects={number: names.get(number, item) for number, item in found.objects.items()})
    return found, [*found.notes, *write(found, path, to, pictures=pictures, overwrite=overwrite)]


def _along(video: LabelledVideo, pictures: Source) -> LabelledVideo:
    """Take rate and length of the frames, where the format does not hold them.

    Raises:
        InputError: the frames have another size than the masks.
    """
    if (video.height, video.width) != (pictures.height, pictures.width):
        raise InputError(
            f"the masks of {video.name} are {video.width} x {video.height} pixels, but the frames of {pictures.name} are "
            f"{pictures.width} x {pictures.height}"
        )
    length = video.length if pictures.count is None else max(video.length, pictures.count)
    return replace(video, fps=video.fps or pictures.fps, length=length)


