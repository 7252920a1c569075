"""Objects and frames that count by files of the data set: LVOS's valid_meta.json, MOSEv2's meta.json, VIPOSeg's given masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vosformer.errors import DataError
from vosformer.evaluation.layout import first_of, mask_files
from vosformer.evaluation.masks import labels_present, read_labels
from vosformer.evaluation.rules import Rules

_LVOS_STEP = 5  # every fifth frame has a true mask


@dataclass(frozen=True)
class Counted:
    """The frames that count for one object.

    Attributes:
        frames: positions in the list of the sequence's true masks.
        zeros: frames that count besides and always score 0 (see `_lvos`).
    """

    frames: tuple[int, ...]
    zeros: int = 0


def listed(rules: Rules, root: Path, sequence: str, frames: Sequence[str]) -> dict[int, Counted]:
    """Read which objects of a sequence count, and on which frames.

    Args:
        rules: with ``objects="listed"``.
        root: the true masks, or the data set's root.
        sequence: its name.
        frames: names of its true masks, in order.

    Returns:
        id -> its frames, in the order of the file.

    Raises:
        DataError: the file is missing, cannot be read, or names frames that are not there.
    """
    if rules.numbers == "lvos":
        return _lvos(rules, root, sequence, frames)
    return _mosev2(root, sequence, frames) if rules.numbers == "mosev2" else _viposeg(root, sequence, frames)


def find_beside(root: Path, names: Sequence[str]) -> Path | None:
    """Find a file of one of these names in the folder or up to three levels above it, the nearest first."""
    for folder in (root, root / "valid", root / "test", *list(root.resolve().parents)[:3]):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def read_json(root: Path, names: Sequence[str], why: str) -> Any:
    """Read the JSON file of one of these names beside the true masks.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = find_beside(root, names)
    if path is None:
        raise DataError(f"{root} has no {' or '.join(names)} in it or above it, {why}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error


LVOS_META = ("valid_meta.json", "val_meta.json", "test_meta.json", "meta.json")


def _objects_of(meta: Any, sequence: str, what: str) -> Any:
    try:
        return meta["videos"][sequence]
    except (KeyError, TypeError) as error:
        raise DataError(f"{what} does not name the video {sequence}") from error


def _lvos(rules: Rules, root: Path, sequence: str, frames: Sequence[str]) -> dict[int, Counted]:
    """Take LVOS's ranges: numbers start, start + 5, ... below end.

    The code of today leaves out the first and the frame number ``frame_nums - 1``; the one of 2022 has them in a list of
    ``frame_nums`` zeros, whose last position stays 0 where `end` is the last frame itself.
    """
    video = _objects_of(read_json(root, LVOS_META, "which says on what frames each object counts"), sequence, LVOS_META[0])
    positions = {int(name): position for position, name in enumerate(frames) if name.isdigit()}
    found: dict[int, Counted] = {}
    try:
        for number, one in video["objects"].items():
            limits = one["frame_range"]
            inside = range(int(limits["start"]), int(limits["end"]), _LVOS_STEP)
            total = int(limits["frame_nums"])
            chosen, length = (inside[:total], total) if rules.given else (inside[1 : max(total - 1, 1)], max(total - 2, 0))
            absent = [f"{frame:08d}" for frame in chosen if frame not in positions]
            if absent:
                raise DataError(
                    f"the true masks of {sequence} lack {len(absent)} frames of object {number}'s range: {first_of(absent)}"
                )
            found[int(number)] = Counted(tuple(positions[frame] for frame in chosen), length - len(chosen))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"LVOS's meta file is not in its form at the video {sequence}: expected objects -> ID -> frame_range -> start, end, "
            f"frame_nums ({error!r})"
        ) from error
    return found


def _mosev2(root: Path, sequence: str, frames: Sequence[str]) -> dict[int, Counted]:
    video = _objects_of(read_json(root, ("meta.json",), "which names MOSEv2's objects"), sequence, "meta.json")
    try:
        length, ids = int(video["length"]), [int(number) for number in video["objects"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"meta.json is not in MOSEv2's form at {sequence}: expected length and objects ({error!r})") from error
    if length > len(frames):
        raise DataError(f"{sequence} has {len(frames)} true masks, meta.json says {length}")
    return {number: Counted(tuple(range(1, length - 1))) for number in ids}


def _viposeg(root: Path, sequence: str, frames: Sequence[str]) -> dict[int, Counted]:
    """Take each object from the frame after the one of its mask in ``Annotations`` on."""
    given = next(
        (f / "Annotations" / sequence for f in (root, root.parent, root / "valid") if (f / "Annotations").is_dir()), None
    )
    if given is None or not given.is_dir():
        raise DataError(f"{root} has no Annotations/{sequence}: the masks that are given, which say from where objects count")
    positions: Mapping[str, int] = {name: position for position, name in enumerate(frames)}
    found: dict[int, Counted] = {}
    for name, path in mask_files(given).items():
        if name not in positions:
            raise DataError(f"{path} belongs to no frame of the true masks of {sequence}")
        for number in sorted(labels_present(read_labels(path))):
            found.setdefault(number, Counted(tuple(range(positions[name] + 1, len(frames)))))
    return found
