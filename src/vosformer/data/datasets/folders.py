"""Folders of frames, masks and lists, as data sets and users keep them: one finder for training, benchmarks and scores."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from vosformer.errors import DataError
from vosformer.io.order import natural_key


class ClipFolders(NamedTuple):
    """A clip that is a folder of its own.

    Attributes:
        frames: CLIP/frames, or CLIP/images where there is no such folder; may be missing.
        masks: CLIP/masks.
    """

    frames: Path
    masks: Path


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder, in natural order, without hidden ones."""
    return sorted((p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."), key=lambda p: natural_key(p.name))


def files_by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """Map the stems of a folder's files with these suffixes to the files, in natural order; empty if the folder is missing.

    Hidden files are no data.
    """
    if not folder.is_dir():
        return {}
    files = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.name[0] != "."]
    return {p.stem: p for p in sorted(files, key=lambda p: natural_key(p.name))}


def clip_folders(folder: Path) -> dict[str, ClipFolders]:
    """Find the clips in a folder that have their masks in a folder `masks` of their own: name -> where frames and masks are."""
    clips = [clip for clip in subfolders(folder) if (clip / "masks").is_dir()]
    return {c.name: ClipFolders(c / ("frames" if (c / "frames").is_dir() else "images"), c / "masks") for c in clips}


def read_names(path: Path) -> list[str]:
    """Read a list of videos: their names, one a line, each once.

    Raises:
        DataError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {path} cannot be read: {error}") from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def read_meta(path: Path) -> dict[str, Any]:
    """Read a `meta.json` in YouTube-VOS's form: {"videos": {NAME: {"objects": {ID: {"category": ..., "frames": [...]}}}}}.

    Raises:
        DataError: it cannot be read, or has another form.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    videos = meta.get("videos") if isinstance(meta, dict) else None
    if not isinstance(videos, dict) or not all(
        isinstance(v, dict)
        and isinstance(v.get("objects"), dict)
        and all(isinstance(one, dict) for one in v["objects"].values())
        for v in videos.values()
    ):
        raise DataError(
            f'{path} is not in the form of YouTube-VOS: expected {{"videos": {{NAME: {{"objects": {{ID: ...}}}}}}}}'
        )
    return dict(meta)
