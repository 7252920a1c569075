"""MOTS: 16-bit PNG whose values are class * 1000 + instance, and the same as lines of text.

Ids are the instances (1 to 999); classes are the categories in order, named in `labels.txt` beside the pictures. The text has no
place for their names. 10000 marks pixels that are not scored; they are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from vosformer.errors import InputError, OutputError
from vosformer.formats.folders import frame_numbers, write_pictures
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo, categories
from vosformer.formats.registry import Content, Format, ReadOptions, reading
from vosformer.io import Source
from vosformer.io.files import make_folder
from vosformer.io.order import natural_key
from vosformer.io.sinks import png

_IGNORE = 10_000
_CLASS = 1000


def read_mots_png(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read `instances/<frame>.png`, or the folder of the pictures itself.

    Raises:
        InputError: there is none, or one is no 16-bit picture.
    """
    folder = path / "instances" if (path / "instances").is_dir() else path
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    if inner and not list(folder.glob("*.png")):
        names = [entry.name for entry in inner]
        if options.video not in names and len(names) > 1:
            raise InputError(f"{path} holds {len(names)} videos ({', '.join(names[:8])}): say which one by its name")
        folder = folder / (options.video if options.video in names else names[0])
    files = sorted(folder.glob("*.png"), key=lambda file: natural_key(file.name))
    if not files:
        raise InputError(f"{path} has no MOTS pictures in it: expected instances/000000.png")
    listed = folder / "labels.txt"
    kinds = listed.read_text(encoding="utf-8").split("\n") if listed.exists() else []
    numbers, numbered = frame_numbers([file.stem for file in files])
    with reading(path, "MOTS folder"):
        frames, size = [], None
        for number, file in zip(numbers, files, strict=True):
            values = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
            if values is None or values.ndim != 2 or values.dtype != np.uint16:
                raise InputError(f"{file} is no MOTS picture: expected a gray PNG of 16 bits")
            size = size or values.shape
            masks = {int(i): Mask.of(values == i) for i in np.unique(values) if i and i != _IGNORE}
            frames.append(LabeledFrame(number, file.stem, masks))
        return _video(path.resolve().name, frames, [kind.strip() for kind in kinds], size, numbered)


def read_mots_txt(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read lines `time_frame id class_id height width rle`.

    Raises:
        InputError: a line is not of this kind.
    """
    masks: dict[int, dict[int, Mask]] = {}
    size = None
    with reading(path, "MOTS text"):
        for at, line in enumerate(path.read_text(encoding="ascii").splitlines(), 1):
            if not line.strip():
                continue
            fields = line.split()
            if len(fields) != 6:
                raise ValueError(f"line {at} has {len(fields)} fields, expected time_frame id class_id height width rle")
            frame, number, _, height, width = (int(field) for field in fields[:5])
            size = size or (height, width)
            if number != _IGNORE:
                masks.setdefault(frame, {})[number] = Mask.of_rle({"size": [height, width], "counts": fields[5]})
        frames = [LabeledFrame(number, f"{number:05d}", found) for number, found in masks.items()]
        return _video(path.stem, frames, [], size, True)


def _video(
    name: str, frames: list[LabeledFrame], kinds: list[str], size: tuple[int, int] | None, numbered: bool
) -> LabeledVideo:
    """Turn MOTS numbers into ids: the instance, unless two classes have the same one; then the whole number."""
    values = {value for frame in frames for value in frame.masks}
    instances = {value % _CLASS for value in values}
    plain = len(instances) == len(values) and 0 not in instances
    ids = {value: value % _CLASS if plain else value for value in values}
    objects = []
    for value in values:
        kind = value // _CLASS
        known = kinds[kind - 1] if 0 < kind <= len(kinds) else f"class {kind}"
        objects.append(ObjectInfo(ids[value], "", "" if known in ("object", "class 0", "class 1") and not kinds else known))
    objects = [item._replace(category="" if item.category == "object" else item.category) for item in objects]
    frames = [frame_with(frame, {ids[value]: mask for value, mask in frame.masks.items()}) for frame in frames]
    note = "two classes have the same instance: ids are class * 1000 + instance"
    return LabeledVideo.of(name, frames, objects, size, numbered=numbered, notes=() if plain or not values else (note,))


def frame_with(frame: LabeledFrame, masks: dict[int, Mask]) -> LabeledFrame:
    """Return the frame with other masks."""
    return LabeledFrame(frame.number, frame.name, masks, file=frame.file)


def _values(video: LabeledVideo) -> dict[int, int]:
    """Id -> MOTS number."""
    kinds = categories(video)
    large = [number for number in video.ids if number >= _CLASS]
    if large:
        raise OutputError(f"MOTS numbers instances from 1 to 999: the id {large[0]} does not fit; choose COCO, which holds any")
    if len(kinds) > 9:
        raise OutputError(
            f"MOTS holds 9 classes (10 means to be ignored): {len(kinds)} do not fit; choose COCO, which holds any"
        )
    return {i: (kinds.index(video.object(i).category or "object") + 1) * _CLASS + i for i in video.ids}


def write_mots_png(video: LabeledVideo, path: Path, pictures: Source | None = None) -> list[str]:
    """Write `instances/<frame>.png` and `instances/labels.txt`, and with pictures `images/`."""
    values = _values(video)
    folder = make_folder(path / "instances")
    (folder / "labels.txt").write_text("\n".join(categories(video)) + "\n", encoding="utf-8")
    table = np.zeros(_CLASS, np.uint16)
    table[list(values)] = list(values.values())
    for frame in video.frames:
        (folder / f"{frame.name}.png").write_bytes(png(table[frame.labels(video.height, video.width)]))
    return [] if pictures is None else write_pictures(video, pictures, path / "images")


def write_mots_txt(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write lines `time_frame id class_id height width rle`; frames count from 0, as in KITTI."""
    values = _values(video)
    path.write_text("".join(_lines(video, values)), encoding="ascii")


def _lines(video: LabeledVideo, values: dict[int, int]) -> Iterable[str]:
    for frame in video.frames:
        overlap = frame.overlap()
        labels = frame.labels(video.height, video.width) if overlap else None
        for number, mask in sorted(frame.masks.items()):
            own = mask if labels is None else Mask.of(labels == number)
            if own.area:
                value = values[number]
                yield f"{frame.number} {value} {value // _CLASS} {video.height} {video.width} {own.counts}\n"


def _is_mots_png(path: Path, content: Content) -> bool:
    return path.is_dir() and (path / "instances").is_dir()


def _is_mots_txt(path: Path, content: Content) -> bool:
    fields = content.head.split("\n", 1)[0].split()
    return path.suffix.lower() == ".txt" and len(fields) == 6 and all(field.isdecimal() for field in fields[:5])


MOTS_PNG = Format(
    "mots-png", "MOTS: 16-bit PNG, class * 1000 + id", read_mots_png, write_mots_png, _is_mots_png, "mots", True,
    holds=frozenset({"ids", "categories", "empty", "shapes"}), library="OpenCV", checked="datumaro", pictures="can",
)  # fmt: skip
MOTS_TXT = Format(
    "mots-txt", "MOTS: one line a mask", read_mots_txt, write_mots_txt, _is_mots_txt, "mots.txt",
    holds=frozenset({"ids", "shapes"}), library="pycocotools", checked="trackeval",
)  # fmt: skip
