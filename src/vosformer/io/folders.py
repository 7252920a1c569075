"""Folders, lists and patterns of images: which files are frames, in which order, and what is left out."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from vosformer.errors import InputError
from vosformer.io.images import SUFFIXES, image_size, open_picture
from vosformer.io.levels import Levels
from vosformer.io.notes import Notes
from vosformer.io.order import in_order
from vosformer.io.stills import ImageFiles

# Files that systems and synchronization leave in folders; they are left out without a note.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
_SHOWN = 3
_VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".mxf"}


def image_folder(folder: Path, fps: Fraction | None = None, levels: Levels | None = None) -> ImageFiles:
    """Open the images of a folder in the order of the numbers in their names.

    Files with the ending of a picture are frames, and so are others in which Pillow finds one. Links that lead nowhere are frames
    without an image. What is left out is noted: other files, and pictures that have both another size and another kind of name.

    Raises:
        InputError: the folder has no images; see also `ImageFiles`.
    """
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    notes = Notes()
    files = [path for path in entries if not path.is_dir() and path.name.lower() not in _SYSTEM_FILES]
    images = [path for path in files if path.suffix.lower() in SUFFIXES or _is_picture(path)]
    if not images:
        found = ", ".join(path.name for path in entries[:_SHOWN]) + (", ..." if len(entries) > _SHOWN else "")
        if any(path.suffix.lower() in _VIDEOS for path in files):
            raise InputError(
                f"{folder} holds videos (found: {found}), and one is read at a time: give one of them, or follow all with "
                f"vosformer batch {folder} -o OUT"
            )
        raise InputError(
            f"{folder} has no images (found: {found or 'no files'}): expected files of the kinds {' '.join(sorted(SUFFIXES))}"
        )
    for path in entries:
        if path not in images and path.name.lower() not in _SYSTEM_FILES:
            notes.add(f"{folder} holds files and folders that are no frames and were not used", path.name + "/" * path.is_dir())
    images = _of_one_kind(folder, images, notes)
    source = ImageFiles(in_order(images, notes), str(folder), fps, levels)
    source.notes.restore(notes.state())
    return source


def image_list(path: Path, fps: Fraction | None = None, levels: Levels | None = None) -> ImageFiles | None:
    """Open the images that a text file lists, one path a line, from its own folder on; None if it is no such list.

    Empty lines and those that begin with # are passed over.

    Raises:
        InputError: the first line is the path of an image that is there, but that of another line is not.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    names = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        paths = [path.parent / name for name in names]
        if not paths or paths[0].suffix.lower() not in SUFFIXES or not paths[0].is_file():
            return None
    except (OSError, ValueError):  # no names that a file could have
        return None
    missing = next((image for image in paths if not image.is_file()), None)
    if missing is not None:
        raise InputError(f"{path} lists {missing}, but there is no such file")
    return ImageFiles(paths, str(path), fps, levels)


def image_pattern(text: str, fps: Fraction | None = None, levels: Levels | None = None) -> ImageFiles | None:
    """Open the images that a pattern names: `*`, `?`, `[0-9]`, or a number as `%05d`; None if it is no pattern.

    Raises:
        InputError: no file has such a name.
    """
    counted = re.search(r"%(0(\d+))?d", Path(text).name)
    if counted is None and not glob.has_magic(text):
        return None
    notes = Notes()
    if counted is not None:
        parts = re.split(r"%0?\d*d", Path(text).name, maxsplit=1)
        digits = rf"\d{{{counted[2]},}}" if counted[2] else r"\d+"
        name = re.compile(re.escape(parts[0].replace("%%", "%")) + digits + re.escape(parts[1].replace("%%", "%")))
        folder = Path(text).parent
        paths = [path for path in folder.iterdir() if name.fullmatch(path.name)] if folder.is_dir() else []
    else:
        paths = [path for path in map(Path, glob.glob(text, recursive=True)) if path.is_file()]
    if not paths:
        raise InputError(f"{text}: no file has a name of this pattern")
    source = ImageFiles(in_order(paths, notes), text, fps, levels)
    source.notes.restore(notes.state())
    return source


def _is_picture(path: Path) -> bool:
    try:
        with open_picture(path):
            return True
    except InputError:
        return False


def _of_one_kind(folder: Path, images: Sequence[Path], notes: Notes) -> list[Path]:
    """Leave out pictures that differ from most others in size and in the kind of their names: covers, contact sheets, masks."""
    sizes = {path: image_size(path) for path in images}
    known = Counter(size for size in sizes.values() if size is not None)
    if len(known) < 2:
        return list(images)
    size, count = known.most_common(1)[0]
    names = Counter(_kind_of_name(path) for path in images if sizes[path] == size)
    strangers = [path for path in images if sizes[path] not in (size, None) and _kind_of_name(path) not in names]
    if 2 * count <= len(images):
        return list(images)
    for path in strangers:
        notes.add(f"{folder} holds pictures of other names and another size than its frames, which were not used", path.name)
    return [path for path in images if path not in strangers]


def _kind_of_name(path: Path) -> str:
    return re.sub(r"[0-9]+", "#", path.stem.casefold())
