"""Looking through a data set: what it holds, and every file that is bad, by name."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vosformer.data.datasets.find import expectations, recognize
from vosformer.data.datasets.layout import Layout, Problem
from vosformer.data.datasets.media import verify_image
from vosformer.data.datasets.picture import MaskedPicture, Still
from vosformer.data.datasets.video import Video
from vosformer.data.types import IGNORE
from vosformer.errors import DataError, InputError

_TINY_PX = 10


@dataclass(frozen=True)
class FolderReport:
    """What one data set holds.

    Attributes:
        layout: its name, e.g. "davis2017".
        kind: "video" or "still".
        folder: where it is.
        clips: videos, or pictures.
        frames: labeled frames.
        objects: objects, counted once a video.
        problems: everything that is wrong with it.
    """

    layout: str
    kind: str
    folder: Path
    clips: int
    frames: int
    objects: int
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that training would stop at."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


@dataclass(frozen=True)
class _Part:
    objects: int
    problems: tuple[Problem, ...]


def check(root: Path, jobs: int = 4) -> tuple[FolderReport, ...]:
    """Recognize the data sets in a folder and read every file of theirs to its end.

    Args:
        root: folder of one or several data sets.
        jobs: threads that read.

    Raises:
        DataError: the folder is missing, or nothing in it is recognized.
        InputError: fewer than one thread.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, expected at least 1")
    sets = recognize(root)
    if not sets:
        raise DataError(
            f"{root}: no data set was recognized; expected for example {expectations()} (docs/data.md lists all layouts)"
        )
    return tuple(check_set(layout, folder, jobs) for layout, folder in sets)


def check_set(layout: Layout, folder: Path, jobs: int = 4) -> FolderReport:
    """Read every file of one data set."""
    found = layout.read(folder, None)
    with ThreadPoolExecutor(jobs) as pool:
        parts = list(pool.map(_check_video, found.videos)) + list(pool.map(_check_still, found.stills))
    problems = [*found.problems, *(problem for part in parts for problem in part.problems)]
    if not parts and not problems:
        problems.append(Problem(folder, f"nothing in it; expected {layout.expected}"))
    frames = sum(len(video) for video in found.videos) + len(found.stills)
    return FolderReport(
        layout.name, layout.kind, folder, len(parts), frames, sum(part.objects for part in parts), tuple(problems)
    )


def _check_video(video: Video) -> _Part:
    problems: list[Problem] = []
    sizes: list[tuple[int, int]] = []
    areas: list[dict[int, int]] = []
    ignored = 0
    for index, (frame, mask) in enumerate(zip(video.frames, video.masks, strict=True)):
        size = _picture_size(frame, problems)
        try:
            labels = video.labels(index)
        except DataError as error:
            problems.append(_problem(mask, error))
            continue
        if size is not None:
            problems += _size_mismatch(frame, size, mask, (labels.shape[0], labels.shape[1]))
            sizes.append(size)
        counts = np.bincount(labels.ravel(), minlength=256)
        ignored += int(counts[IGNORE])
        areas.append({int(i): int(counts[i]) for i in np.flatnonzero(counts) if i not in (0, IGNORE)})
    if len(set(sizes)) > 1:
        text = (
            f"the frames of this video have {len(set(sizes))} sizes (height, width): {sorted(set(sizes))}; one size is expected"
        )
        problems.append(Problem(video.frames[0].parent, text))
    if len(video) == 1:
        text = "this video has a single labeled frame, which teaches no motion (training repeats it): label more of its frames"
        problems.append(Problem(video.masks[0], text, "warning"))
    if len(areas) == len(video):
        problems += _check_ids(video, areas, ignored > 0)
    return _Part(len({i for frame in areas for i in frame}), tuple(problems))


def _check_ids(video: Video, areas: list[dict[int, int]], ignored: bool) -> Iterable[Problem]:
    """Ids that training cannot learn from, or that come from a mask that was resampled."""
    if not any(areas):
        why = ": they hold only 0 and 255, and 255 is for pixels that do not count; objects are 1, 2, ..." if ignored else ""
        yield Problem(video.masks[0].parent, f"no mask of this video has an object{why}")
        return
    if not areas[0]:
        yield Problem(video.masks[0], "the first mask is empty", "warning")
    for number in sorted(areas[0]):
        if len(areas) > 1 and not any(number in later for later in areas[1:]):
            yield Problem(video.masks[1], f"id {number} vanishes: it is in the first mask and in none after it", "warning")
    for number in sorted({i for frame in areas for i in frame}):
        most = max(frame.get(number, 0) for frame in areas)
        if most < _TINY_PX:
            text = f"id {number} never has more than {most} pixels; was the mask resampled with antialiasing?"
            first = next(i for i, frame in enumerate(areas) if number in frame)
            yield Problem(video.masks[first], text, "warning")


def _check_still(still: Still) -> _Part:
    problems: list[Problem] = []
    path = getattr(still, "image", Path(still.name))
    if isinstance(still, MaskedPicture) and _picture_size(still.image, problems) is None:
        return _Part(0, tuple(problems))
    try:
        labels = still.load()[1]
    except DataError as error:
        return _Part(0, (_problem(path, error),))
    ids = np.setdiff1d(np.unique(labels), [0, IGNORE])
    if not len(ids):
        problems.append(Problem(getattr(still, "mask", path), "the mask is empty", "warning"))
    return _Part(len(ids), tuple(problems))


def _picture_size(path: Path, problems: list[Problem]) -> tuple[int, int] | None:
    try:
        return verify_image(path)
    except DataError as error:
        problems.append(_problem(path, error))
        return None


def _size_mismatch(frame: Path, size: tuple[int, int], mask: Path, mask_size: tuple[int, int]) -> list[Problem]:
    if size == mask_size:
        return []
    text = f"the mask is {mask_size[0]} x {mask_size[1]} pixels, its frame {frame.name} is {size[0]} x {size[1]}"
    return [Problem(mask, text)]


def _problem(path: Path, error: DataError) -> Problem:
    """Return the error without the path that it starts with."""
    return Problem(path, str(error).removeprefix(f"{path}: "))
