"""Folders of masks: which sequences they hold, and which frames each sequence has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vosformer.data.datasets.folders import ClipFolders, clip_folders, files_by_stem, read_meta, read_names, subfolders
from vosformer.errors import DataError

# Where a data set or a result keeps its folders of masks, the more particular first.
_INSIDE = ("Annotations/480p", "Annotations", "valid/Annotations", "480p", "masks", ".")


@dataclass(frozen=True)
class MaskFolders:
    """The sequences of one folder.

    Attributes:
        root: the folder that the user named.
        sequences: name -> folder of its masks, in natural order.
        single: the root is itself one sequence.
        objects: each folder has the masks of one object, and is named VIDEO/OBJECT (SA-V).
    """

    root: Path
    sequences: dict[str, Path]
    single: bool = False
    objects: bool = False

    @property
    def videos(self) -> dict[str, list[str]]:
        """The sequences of each video: itself, or its objects."""
        found: dict[str, list[str]] = {}
        for name in self.sequences:
            found.setdefault(name.rsplit("/", 1)[0] if self.objects else name, []).append(name)
        return found


def find_masks(root: Path, first: Sequence[str] = ()) -> MaskFolders:
    """Find the sequences of a data set, a result folder or a single sequence.

    A sequence is a folder of PNG files. The root may be one, hold them, or be laid out like DAVIS (``Annotations/480p/NAME``),
    YouTube-VOS and MOSE (``[valid/]Annotations/NAME``), one run of `vosformer track` (``masks/``) or several (``NAME/masks/``), or
    like SA-V (``VIDEO/OBJECT/*.png``).

    Args:
        root: the folder.
        first: folders in it to look in before these.

    Raises:
        DataError: it does not exist, or no PNG is where one could be expected.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one with a folder of PNG masks for each sequence")
    for inside in (*first, *_INSIDE):
        folder = root / inside
        if not folder.is_dir():
            continue
        if _has_masks(folder):
            return MaskFolders(root, {root.resolve().name: folder}, single=True)
        sequences = _sequences(folder)
        if sequences:
            return MaskFolders(root, sequences)
        if objects := _object_folders(folder):
            return MaskFolders(root, objects, objects=True)
        resolutions = [child for child in subfolders(folder) if _sequences(child)] if inside in ("Annotations", ".") else []
        if len(resolutions) == 1:
            return MaskFolders(root, _sequences(resolutions[0]))
        if resolutions:
            names = ", ".join(child.name for child in resolutions)
            raise DataError(f"{folder} holds several sets of masks ({names}); name one of these folders instead of {root}")
    raise DataError(
        f"{root} holds no PNG masks: expected NAME/*.png, NAME/masks/*.png, Annotations/NAME/*.png or Annotations/480p/NAME/*.png"
        " in it"
    )


def mask_files(folder: Path) -> dict[str, Path]:
    """Frame name -> PNG file of one sequence, in natural order; hidden files are passed over."""
    return files_by_stem(folder, (".png",))


def select(truth: MaskFolders, results: MaskFolders, split: str | Path | Sequence[str] | None) -> tuple[list[str], str | None]:
    """Choose the videos to score, and say which list they come from.

    Args:
        truth: the true masks.
        results: the result masks.
        split: names; or a list's name in ImageSets ("val", "2017/val") or its file; or None: the list in ImageSets that
            names exactly the videos of the results, else every video with true masks.

    Raises:
        DataError: there is no such list, or it names videos without true masks.
    """
    true, found = truth.videos, results.videos
    if truth.single:
        return list(true), None
    if results.single and split is None:
        name = next(iter(found))
        if name not in true:
            raise DataError(f"{truth.root} has no sequence {name!r}, which is the name of the result folder {results.root}")
        return [name], None
    if split is None:
        lists = {name: names for name, names in _lists(truth.root).items() if set(names) == set(found)}
        for name, names in lists.items():
            if set(names) <= set(true):
                return names, name
        return list(true), None
    names = [*split] if isinstance(split, Sequence) and not isinstance(split, str) else read_split(truth.root, split)
    absent = [name for name in names if name not in true]
    if absent:
        raise DataError(f"{truth.root} has no true masks for {first_of(absent)}, which the list {_name_of(split)} names")
    if not names:
        raise DataError(f"the list {_name_of(split)} names no sequence")
    return names, _name_of(split)


def read_split(root: Path, split: str | Path) -> list[str]:
    """Return the names in one of a data set's lists.

    Args:
        root: the data set, or a folder up to three levels inside of it.
        split: a file, or the name of a list in ImageSets, with its folder if that is needed to tell it from others ("2017/val").

    Raises:
        DataError: there is no such list, or several.
    """
    path = Path(split)
    if path.suffix == ".txt" and path.is_file():
        return read_names(path)
    lists = _lists(root)
    found = [name for name in lists if name == str(split) or name.endswith(f"/{split}")]
    if len(found) != 1:
        what = f"several lists {str(split)!r} ({', '.join(found)})" if found else f"no list {str(split)!r}"
        known = f"ImageSets has {', '.join(lists)}" if lists else "there is no ImageSets folder with lists (*.txt)"
        raise DataError(f"{root} has {what}; {known}")
    return lists[found[0]]


def find_meta(root: Path) -> dict[str, Any] | None:
    """Return the ``meta.json`` of YouTube-VOS that lies in the folder or up to two levels above, or None.

    Raises:
        DataError: it cannot be read, or has no "videos".
    """
    for folder in (root, root / "valid", *list(root.resolve().parents)[:2]):
        path = folder / "meta.json"
        if path.is_file():
            return read_meta(path)
    return None


def first_of(names: Iterable[str], limit: int = 3) -> str:
    """Return the first few names in words, with the count of the rest."""
    listed = list(names)
    shown = ", ".join(listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"


def _lists(root: Path) -> dict[str, list[str]]:
    """Return the lists in ImageSets, or sav_*.txt (SA-V), of the folder or up to three levels above it."""
    for folder in (root, *list(root.resolve().parents)[:3]):
        sets = folder / "ImageSets"
        if files := sorted(sets.rglob("*.txt") if sets.is_dir() else folder.glob("sav_*.txt")):
            base = sets if sets.is_dir() else folder
            return {path.relative_to(base).with_suffix("").as_posix(): read_names(path) for path in files}
    return {}


def _name_of(split: str | Path | Sequence[str]) -> str:
    return str(split) if isinstance(split, str | Path) else "given"


def _has_masks(folder: Path) -> bool:
    return any(path.suffix.lower() == ".png" and not path.name.startswith(".") for path in folder.iterdir())


def own_clips(folder: Path) -> dict[str, ClipFolders]:
    """Find the clips in a folder that have their masks in a folder ``masks`` of their own, and at least one in it."""
    return {name: clip for name, clip in clip_folders(folder).items() if _has_masks(clip.masks)}


def _object_folders(folder: Path) -> dict[str, Path]:
    """VIDEO/OBJECT -> folder, where all folders of all videos are numbers with masks in them (000, 001, ...)."""
    inside = {f"{video.name}/{one.name}": one for video in subfolders(folder) for one in subfolders(video)}
    numbered = all(path.name.isdigit() and len(path.name) == 3 for path in inside.values())
    return inside if numbered and any(_has_masks(path) for path in inside.values()) else {}


def _sequences(folder: Path) -> dict[str, Path]:
    children = subfolders(folder)
    if clips := own_clips(folder):
        return {name: clip.masks for name, clip in clips.items()}
    # Folders without masks belong to the sequences, too, if others have some: their frames are missing.
    return {path.name: path for path in children} if any(_has_masks(path) for path in children) else {}
