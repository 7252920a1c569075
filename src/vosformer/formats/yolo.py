"""YOLO-seg: `data.yaml`, and a text a frame with one polygon a line, in shares of the picture's sides.

Corners are the centers of the outermost pixels, as OpenCV's contours; a quarter of a pixel is added, so that readers that cut and
readers that round find the same pixel. A line is a class and one ring: holes and further parts are joined to it by bridges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vosformer.errors import InputError
from vosformer.formats.folders import frame_numbers, write_pictures
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo
from vosformer.formats.polygons import center_rings, fill_centers, one_ring
from vosformer.formats.registry import Content, Format, ReadOptions, link_by_order, reading
from vosformer.io import Source
from vosformer.io.files import make_folder
from vosformer.io.images import SUFFIXES, image_size
from vosformer.io.order import natural_key

_SPLITS = ("train", "val", "test")


def read_yolo(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read a folder with `data.yaml` and `labels/`, a folder of texts, or one text.

    The pictures' size is that of the pictures beside, or the `size` given.

    Raises:
        InputError: it cannot be read, or nothing says the size.
    """
    root = path if path.is_dir() else path.parent
    with reading(path, "YOLO data set"):
        files = [path] if path.suffix.lower() == ".txt" else _label_files(root)
        names = _class_names(root)
        size = options.size or _picture_size(root)
        if size is None:
            raise InputError(
                f"{path}: YOLO labels hold no size of the frames, and no pictures lie beside them: give the frames"
            )
        numbers, numbered = frame_numbers([file.stem for file in files])
        loose: dict[int, list[tuple[str, Mask]]] = {}
        boxes = 0
        for number, file in zip(numbers, files, strict=True):
            loose[number], bare = _lines(file, names, *size)
            boxes += bare
        masks, objects, notes = link_by_order(loose)
        if boxes:
            notes += (f"{boxes} lines with a box only were passed over",)
        frames = [LabeledFrame(number, file.stem, masks[number]) for number, file in zip(numbers, files, strict=True)]
        return LabeledVideo.of(root.resolve().name, frames, _named(objects), size, numbered=numbered, notes=notes)


def _named(objects: list[ObjectInfo]) -> list[ObjectInfo]:
    """Classes that were made of single objects ("object 7") are no categories."""
    return [item._replace(category="") if item.category.startswith("object") else item for item in objects]


def _label_files(root: Path) -> list[Path]:
    folder = root / "labels" if (root / "labels").is_dir() else root
    files = [file for file in folder.rglob("*.txt") if file.name != "classes.txt"]
    if not files:
        raise InputError(f"{root} has no YOLO labels in it: expected labels/NAME.txt")
    return sorted(files, key=lambda file: natural_key(file.name))


def _class_names(root: Path) -> dict[int, str]:
    for name in ("data.yaml", "dataset.yaml"):
        if (root / name).is_file():
            names = yaml.safe_load((root / name).read_text(encoding="utf-8"))["names"]
            pairs = enumerate(names) if isinstance(names, list) else names.items()
            return {int(key): str(value) for key, value in pairs}
    return {}


def _picture_size(root: Path) -> tuple[int, int] | None:
    for file in sorted((root / "images").rglob("*")):
        if file.suffix.lower() in SUFFIXES:
            return image_size(file)
    return None


def _lines(file: Path, names: dict[int, str], height: int, width: int) -> tuple[list[tuple[str, Mask]], int]:
    """Return (category, mask) of each line with a polygon, and the number of lines with a box."""
    found, boxes = [], 0
    for at, line in enumerate(file.read_text(encoding="ascii").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) == 5:
            boxes += 1
            continue
        if len(fields) < 7 or len(fields) % 2 == 0:
            raise ValueError(
                f"line {at} of {file.name} has {len(fields)} fields, expected a class and x, y of three corners or more"
            )
        corners = np.array([float(field) for field in fields[1:]]) * np.resize([width, height], len(fields) - 1)
        kind = int(fields[0])
        found.append((names.get(kind, f"class {kind}"), fill_centers([corners.tolist()], height, width)))
    return found, boxes


def write_yolo(video: LabeledVideo, path: Path, pictures: Source | None = None) -> list[str]:
    """Write `data.yaml`, `labels/train/<frame>.txt`, and with pictures `images/train/`.

    Classes are the categories; if no object has one, each object is a class of its own.
    """
    own = not any(item.category for item in video.objects.values())
    kinds = {number: item.label if own else item.category or "object" for number, item in video.objects.items()}
    names = list(dict.fromkeys(kinds.values()))
    labels = make_folder(path / "labels" / "train")
    joined = 0
    for frame in video.frames:
        lines = []
        for number, mask in frame.masks.items():
            outer, holes = center_rings(mask)
            if not outer:
                continue
            joined += len(outer) > 1 or bool(holes)
            ring = (one_ring(outer + holes) + 0.25) / np.array([video.width, video.height])
            if len(ring) < 3:  # a line needs three corners
                ring = np.concatenate([ring, np.repeat(ring[-1:], 3 - len(ring), 0)])
            lines.append(" ".join([str(names.index(kinds[number])), *(f"{value:.8g}" for value in ring.reshape(-1))]))
        (labels / f"{Path(frame.picture).stem}.txt").write_text("".join(line + "\n" for line in lines), encoding="ascii")
    data: dict[str, Any] = {"path": ".", "train": "images/train", "val": "images/train", "names": dict(enumerate(names))}
    (path / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    notes = [f"{joined} masks of several parts or with holes are joined by bridges of one pixel"] if joined else []
    if own:
        notes.append("no object has a category: each is a class of its own")
    return notes if pictures is None else notes + write_pictures(video, pictures, make_folder(path / "images") / "train")


def _is_yolo(path: Path, content: Content) -> bool:
    if path.is_dir():
        return (path / "data.yaml").is_file() or ((path / "labels").is_dir() and any((path / "labels").rglob("*.txt")))
    fields = content.head.split("\n", 1)[0].split()
    return path.suffix.lower() == ".txt" and len(fields) >= 5 and fields[0].isdecimal() and all(map(_share, fields[1:9]))


def _share(text: str) -> bool:
    try:
        return -1 <= float(text) <= 2
    except ValueError:
        return False


YOLO = Format(
    "yolo", "YOLO-seg: data.yaml, labels/", read_yolo, write_yolo, _is_yolo, "yolo", True,
    holds=frozenset({"overlap", "categories", "empty"}), library="OpenCV, PyYAML", checked="supervision", pictures="can",
)  # fmt: skip
