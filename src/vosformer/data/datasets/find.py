"""Finding data sets in folders, and reading them by name."""

from __future__ import annotations

from pathlib import Path

from vosformer.data.datasets.catalogue import LAYOUTS
from vosformer.data.datasets.layout import Found, Layout, folders_below
from vosformer.data.datasets.picture import Still
from vosformer.data.datasets.video import Video
from vosformer.errors import DataError


def read_videos(name: str, root: Path, split: str | None = "train") -> tuple[Video, ...]:
    """Return the labeled videos of a data set.

    Args:
        name: of the layout, e.g. "davis2017".
        root: the set's own folder, or the folder that holds it under a usual name.
        split: the list of sequences; None = all that are there.

    Raises:
        DataError: unknown name, set not found, or its files are incomplete.
    """
    return tuple(_read(name, root, split, "video").videos)


def read_stills(name: str, root: Path) -> tuple[Still, ...]:
    """Return the labeled pictures of a data set.

    Raises:
        DataError: unknown name, set not found, or its files are incomplete.
    """
    return tuple(_read(name, root, "train", "still").stills)


def find_layout(name: str) -> Layout:
    """Return the layout of that name.

    Raises:
        DataError: there is none.
    """
    if name not in LAYOUTS:
        raise DataError(f"there is no data set {name!r}; known are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def recognize(root: Path) -> list[tuple[Layout, Path]]:
    """Find the data sets in a folder, at any depth: those with a known name, and those whose layout tells what they are.

    What lies inside of a set is not looked at again.

    Raises:
        DataError: `root` is missing.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder of data")
    taken: dict[Path, Layout] = {}
    for folder in folders_below(root):
        if any(at == folder or at in folder.parents for at in taken):
            continue
        for candidate in LAYOUTS.values():
            at = candidate.at(folder)
            if at is not None and not any(_overlap(at, other) for other in taken):
                taken[at] = candidate
        distinct = next((x for x in LAYOUTS.values() if x.distinct and x.fits(folder)), None)
        if distinct is not None and not any(_overlap(folder, other) for other in taken):
            taken[folder] = distinct
    return [(layout, folder) for folder, layout in taken.items()]


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def expectations() -> str:
    """Return the most common layouts in words, for messages."""
    return "; ".join(LAYOUTS[name].expected for name in ("davis2017", "youtube2019", "folder", "folder-stills"))


def read_training(layout: Layout, folder: Path) -> Found:
    """Return the training part of a data set that lies in `folder`.

    Raises:
        DataError: its files are incomplete.
    """
    return _complete(layout.read(folder, "train"), folder)


def _read(name: str, root: Path, split: str | None, kind: str) -> Found:
    layout = find_layout(name)
    if layout.kind != kind:
        raise DataError(f"data set {name!r} holds {layout.kind}s, but {kind}s were asked for")
    folder = layout.locate(root)
    if folder is None:
        raise DataError(f"{root}: data set {name!r} is not there; expected {layout.expected}")
    found = _complete(layout.read(folder, split), root)
    if not (found.videos or found.stills):
        raise DataError(f"{folder}: data set {name!r} is empty; expected {layout.expected}")
    return found


def _complete(found: Found, root: Path) -> Found:
    """Return the same, if no file is missing."""
    wrong = [problem for problem in found.problems if problem.severity == "error"]
    if wrong:
        more = f"; {len(wrong) - 1} more problems: see `vosformer data check {root}`" if len(wrong) > 1 else ""
        raise DataError(f"{wrong[0].path}: {wrong[0].text}{more}")
    return found
