"""Masks out of a project, in every format there is, and into it."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vosformer.annotate.label_files import MOST_IDS
from vosformer.annotate.project import Project
from vosformer.annotate.records import GivenFrame, TrackedObject, distinct_color, measure
from vosformer.errors import InputError
from vosformer.formats import AnnotatedMasks, ObjectInfo, read_masks
from vosformer.formats.outputs import Setting, make_sinks, needs_pictures, output_names, place_of, summary_of
from vosformer.io import Sink
from vosformer.io.files import make_folder, remove

OnProgress = Callable[[int, int], None]


def export_formats() -> dict[str, str]:
    """Name -> what it is, of all formats that `export` writes; the one that most tools read comes first."""
    names = sorted(output_names(), key=lambda name: name != "coco")
    return {name: summary_of(name) for name in names}


def export(project: Project, form: str, on_progress: OnProgress | None = None) -> tuple[Path, tuple[str, ...]]:
    """Write the masks of all frames that have some.

    Args:
        project: whose masks are written.
        form: the format's name.
        on_progress: is called with (frames done, frames in all).

    Returns:
        The file, a zip where the format is a folder; what a user should know, e.g. what the format has no place for.

    Raises:
        InputError: there is no such format, or no mask.
        OutputError: a file cannot be written, or an id does not fit.
    """
    if form not in output_names():
        raise InputError(f"there is no format {form!r}; there are {', '.join(output_names())}")
    frames = np.flatnonzero(project.masked()).tolist()
    if not frames:
        raise InputError("there are no masks to export: mark an object and propagate first")
    folder = project.folder / ".history" / "exports" / form
    remove(folder)
    make_folder(folder)
    name = Path(project.source.name).stem
    setting = Setting(project.source, name, objects=_infos(project), pictures=needs_pictures(form))
    (sink,) = make_sinks([form], folder, setting)
    with sink:
        sink.check_ids(project.objects)
        _write_all(project, sink, frames, needs_pictures(form), on_progress)
    return _packed(folder / place_of(form)), sink.notes


def _infos(project: Project) -> dict[int, ObjectInfo]:
    def rgb(color: str) -> tuple[int, int, int]:
        return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)

    return {i: ObjectInfo(i, thing.name, thing.category, rgb(thing.color)) for i, thing in project.objects.items()}


def _write_all(project: Project, sink: Sink, frames: list[int], pictures: bool, on_progress: OnProgress | None) -> None:
    chosen = set(frames)
    numbers = project.source.frames(frames[0], frames[-1] + 1) if pictures else None
    for at, n in enumerate(frames, 1):
        frame = next(f for f in numbers if f.number in chosen) if numbers is not None else project.empty_frame(n)
        labels = project.labels(n)
        scores = {i: row.score for i, row in project.measures.at(n).items()}
        sink.write(frame, labels, scores, lambda i, labels=labels: (labels == i).astype(np.float32))  # type: ignore[misc]
        if on_progress is not None:
            on_progress(at, len(frames))


def _packed(path: Path) -> Path:
    """Return the path itself, or a zip of the folder."""
    if path.is_file():
        return path
    packed = path.with_suffix(".zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:
        for item in sorted(path.rglob("*")):
            if item.is_file():
                file.write(item, item.relative_to(path.parent))
    shutil.rmtree(path)
    return packed


def import_masks(project: Project, path: Path, given: bool, frame: int = 0) -> tuple[int, tuple[str, ...]]:
    """Take masks over from a file or folder of any format (see `vosformer.formats.read_masks`), or from a zip of one.

    Args:
        project: that takes them over.
        path: of the masks.
        given: they count as given by the user; else as tracked, with the score 1.
        frame: the frame that a single mask belongs to.

    Returns:
        How many frames have masks; what a user should know about how they were read.

    Raises:
        InputError: the masks cannot be read or do not fit the frames.
    """
    masks = read_masks(path, project.source, frame=frame)
    infos = masks.objects if isinstance(masks, AnnotatedMasks) else {}
    with project.begin(f"import of {path.name}") as action:
        for n, labels in masks.labels.items():
            ids = [int(i) for i in np.unique(labels) if i]
            if max(ids, default=0) > MOST_IDS:
                raise InputError(f"{path} has the id {max(ids)} on frame {n}: expected at most {MOST_IDS}")
            for i in ids:
                if i not in project.objects:
                    action.set_object(_new_object(i, infos.get(i, ObjectInfo(i))))
            if given:
                action.set_given(n, labels, GivenFrame(tuple(ids)))
            action.set_mask(n, labels, measure(labels, dict.fromkeys(ids, 1.0)))
    return len(masks), masks.notes


def _new_object(i: int, info: ObjectInfo) -> TrackedObject:
    color = distinct_color(i) if info.color is None else "#{:02x}{:02x}{:02x}".format(*info.color)
    return TrackedObject(i, info.name or f"object {i}", info.category or "object", color)
