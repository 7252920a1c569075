"""Masks out of a project, in every format there is, and into it."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vosformer.annotate.project import MOST_IDS, Project
from vosformer.annotate.records import GivenFrame, TrackedObject, distinct_color, measure
from vosformer.errors import InputError
from vosformer.io import (
    CocoRLE,
    CutOuts,
    CutOutVideo,
    LabelImages,
    ObjectImages,
    OverlayVideo,
    Scores,
    Sink,
    read_masks,
)
from vosformer.io.files import make_folder, remove
from vosformer.io.palette import DAVIS_PALETTE

Told = Callable[[int, int], None]

_SINKS: dict[str, tuple[str, str, Callable[[Path, Project], Sink]]] = {
    "coco-rle": ("COCO run lengths", "rle.json", lambda path, _: CocoRLE(path)),
    "masks": ("indexed PNG a frame", "masks", lambda path, _: LabelImages(path)),
    "masks16": ("16-bit PNG a frame, ids above 255", "masks16", lambda path, _: LabelImages(path, bits=16)),
    "objects": ("black and white PNG an object", "objects", lambda path, _: ObjectImages(path)),
    "rgba": ("cut-outs as RGBA PNG", "rgba", lambda path, _: CutOuts(path)),
    "overlay": ("video with the masks on it", "overlay.mp4", lambda path, p: OverlayVideo(path, p.source.fps, palette_of(p))),
    "cutout": ("ProRes 4444 video with transparency", "cutout.mov", lambda path, p: CutOutVideo(path, p.source.fps)),
    "scores": ("presence scores", "scores.csv", lambda path, _: Scores(path)),
}
_PICTURES = {"rgba", "overlay", "cutout"}  # are written with the frames themselves


def export_formats() -> dict[str, str]:
    """Name -> what it is, of all formats that `export` writes."""
    return {name: summary for name, (summary, _, _) in _SINKS.items()}


def export(project: Project, form: str, told: Told | None = None) -> Path:
    """Write the masks of all frames that have some; return the file, a zip where the format is a folder.

    Raises:
        InputError: there is no such format, or no mask.
        OutputError: a file cannot be written, or an id does not fit.
    """
    if form not in _SINKS:
        raise InputError(f"there is no format {form!r}; there are {', '.join(_SINKS)}")
    frames = np.flatnonzero(project.masked()).tolist()
    if not frames:
        raise InputError("there are no masks to export: mark an object and propagate first")
    folder = project.folder / ".history" / "exports" / form
    remove(folder)
    make_folder(folder)
    _, place, make = _SINKS[form]
    with make(folder / place, project) as sink:
        sink.check_ids(project.objects)
        _write_all(project, sink, frames, form in _PICTURES, told)
    return _packed(folder / place)


def _write_all(project: Project, sink: Sink, frames: list[int], pictures: bool, told: Told | None) -> None:
    wanted = set(frames)
    numbers = project.source.frames(frames[0], frames[-1] + 1) if pictures else None
    for at, n in enumerate(frames, 1):
        frame = next(f for f in numbers if f.number in wanted) if numbers is not None else project.empty_frame(n)
        labels = project.labels(n)
        scores = {i: row[0] for i, row in project.measures.at(n).items()}
        sink.write(frame, labels, scores, lambda i, labels=labels: (labels == i).astype(np.float32))  # type: ignore[misc]
        if told is not None:
            told(at, len(frames))


def _packed(path: Path) -> Path:
    """The path itself, or a zip of the folder."""
    if path.is_file():
        return path
    packed = path.with_suffix(".zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:
        for item in sorted(path.rglob("*")):
            if item.is_file():
                file.write(item, item.relative_to(path.parent))
    shutil.rmtree(path)
    return packed


def import_masks(project: Project, path: Path, given: bool, frame: int = 0) -> int:
    """Take masks over from a file or folder (see `vosformer.io.read_masks`); return how many frames have some.

    Args:
        project: that takes them over.
        path: of the masks.
        given: they count as given by the user; else as tracked, with the score 1.
        frame: the frame that a single mask belongs to.

    Raises:
        InputError: the masks cannot be read or do not fit the frames.
    """
    masks = read_masks(path, project.source, frame=frame)
    with project.begin(f"import of {path.name}") as action:
        for n, labels in masks.labels.items():
            ids = [int(i) for i in np.unique(labels) if i]
            if max(ids) > MOST_IDS:
                raise InputError(f"{path} has the id {max(ids)} on frame {n}: expected at most {MOST_IDS}")
            for i in ids:
                if i not in project.objects:
                    action.set_object(TrackedObject(i, f"object {i}", color=distinct_color(i)))
            if given:
                action.set_given(n, labels, GivenFrame(tuple(ids)))
            action.set_mask(n, labels, measure(labels, dict.fromkeys(ids, 1.0)))
    return len(masks)


def palette_of(project: Project) -> NDArray[np.uint8]:
    """The colors of the objects as a palette, uint8 RGB [256,3]."""
    palette = DAVIS_PALETTE.copy()
    for i, thing in project.objects.items():
        if i < 256:
            palette[i] = [int(thing.color[at : at + 2], 16) for at in (1, 3, 5)]
    return palette
