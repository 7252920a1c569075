"""Masks of several frames: a folder whose names match the frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.frames import Source
from vosformer.io.labels import SUFFIXES, LabelMap, check_size, color_ids, read_labels
from vosformer.io.legend import ColorIds
from vosformer.io.order import natural_key

_SHOWN_NOTES = 10  # of the masks of a folder


class MaskFolder(Mapping[int, LabelMap]):
    """Frame number -> label map, read when asked for, so that masks of a whole video need no memory.

    Args:
        paths: frame number -> file, or folder with one image per object.
        source: the frames, for their size.
        notes: what a user should know about how the folder was read.
        empty: numbers of frames whose mask is there, but shows no object.
        colors: how colors become ids.

    Attributes:
        kept: what must not go away as long as the masks are used, e.g. a temporary folder.
    """

    kept: object = None

    def __init__(
        self,
        paths: Mapping[int, Path],
        source: Source,
        notes: tuple[str, ...] = (),
        empty: tuple[int, ...] = (),
        colors: ColorIds | None = None,
    ) -> None:
        self.empty = empty
        self._source, self._colors = source, colors
        self._paths = dict(sorted(paths.items()))
        self._size = (source.height, source.width)
        self.notes = notes

    def __getitem__(self, number: int) -> LabelMap:
        """Return the label map of that frame.

        Raises:
            InputError: the file is no label map, is empty, or has another size than the frames.
            KeyError: there is no mask for this frame.
        """
        path = self._paths[number]
        mask = read_labels(path, colors=self._colors)
        check_size(mask.labels, *self._size, path)
        return mask

    def __iter__(self) -> Iterator[int]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def labels(self) -> Mapping[int, NDArray[np.int32]]:
        """Frame number -> integers [H,W], read when asked for."""
        return _LabelsOf(self)

    def path(self, number: int) -> Path:
        """Return where the mask of that frame comes from."""
        return self._paths[number]

    def amended(self, number: int, mask: LabelMap) -> MaskFolder:
        """Return the same with another mask for one frame."""
        return _Amended(self, number, mask)


class _Amended(MaskFolder):
    """Masks of which one is another."""

    def __init__(self, masks: MaskFolder, number: int, mask: LabelMap) -> None:
        super().__init__({}, masks._source, (*masks.notes, *mask.notes), tuple(n for n in masks.empty if n != number))
        self._masks, self._number, self._mask = masks, number, mask

    def __getitem__(self, number: int) -> LabelMap:
        return self._mask if number == self._number else self._masks[number]

    def __iter__(self) -> Iterator[int]:
        return iter(sorted({*self._masks, self._number}))

    def __len__(self) -> int:
        return len({*self._masks, self._number})

    def path(self, number: int) -> Path:
        return self._masks.path(number)


class _LabelsOf(Mapping[int, NDArray[np.int32]]):
    """The label arrays of a `MaskFolder`."""

    def __init__(self, masks: MaskFolder) -> None:
        self._masks = masks

    def __getitem__(self, number: int) -> NDArray[np.int32]:
        return self._masks[number].labels

    def __iter__(self) -> Iterator[int]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)


def read_masks(path: Path | str, source: Source, *, frame: int = 0, legend: Path | None = None) -> MaskFolder:
    """Return the masks that a user gives, by frame number.

    A file is the mask of `frame`. A folder holds one mask per frame if the name of any of its files or sub-folders is the name of a
    frame (see `read_mask_folder`); else it holds one mask per object, all of `frame`.

    Args:
        path: of the file or folder.
        source: the frames.
        frame: that a lone mask belongs to.
        legend: file that tells which color stands for which object.

    Raises:
        InputError: see `read_labels` and `read_mask_folder`; or the source has no such frame.
    """
    path = Path(path)
    if path.is_dir() and any(
        source.find(entry.stem if entry.is_file() else entry.name) is not None for entry in _entries(path)
    ):
        return read_mask_folder(path, source, legend)
    if frame < 0 or (source.count is not None and frame >= source.count):
        raise InputError(f"{path} was given for frame {frame}, but {source.name} has {source.count} frames, from 0 on")
    if path.is_dir():
        _check_names(path, source)
    colors = color_ids([path], legend)
    notes = MaskFolder({frame: path}, source, colors=colors)[frame].notes
    return MaskFolder({frame: path}, source, notes, colors=colors)


def read_mask_folder(folder: Path | str, source: Source, legend: Path | None = None) -> MaskFolder:
    """Return the masks of a folder by frame number. All are read once, so that a bad one is known before any work is done.

    Each file, or sub-folder with one image per object, is named like its frame: by the stem of the image for folders of images, by
    the number with five digits for videos ("00042.png"). Masks without any object are passed over with a note. Colors that neither
    a legend nor the DAVIS palette has are numbered, the same in all masks.

    Raises:
        InputError: no name matches a frame, two match the same one, a name matches none, none has an object, or one is no label map.
    """
    folder = Path(folder)
    paths: dict[int, Path] = {}
    strangers: list[str] = []
    for entry in _entries(folder):
        number = source.find(entry.stem if entry.is_file() else entry.name)
        if number is None:
            strangers.append(entry.name)
        elif number in paths:
            raise InputError(f"{folder} has two masks of frame {number}: {paths[number].name} and {entry.name}")
        else:
            paths[number] = entry
    if not paths or strangers:
        raise InputError(
            f"{folder} has {len(strangers)} masks that no frame of {source.name} is named like "
            f"({', '.join(strangers[:3]) or 'the folder is empty'}): expected names like {_example(source)}.png"
        )
    empty, lone = [], 0
    notes: list[str] = []
    colors = color_ids([path for _, path in sorted(paths.items())], legend)
    for number, path in sorted(paths.items()):
        mask = read_labels(path, allow_empty=True, colors=colors)
        check_size(mask.labels, source.height, source.width, path)
        if not mask.labels.any():
            empty.append(number)
        lone += len(mask.ids) == 1
        notes += mask.notes[: max(0, _SHOWN_NOTES - len(notes))]
    for number in empty:
        del paths[number]
    if not paths:
        raise InputError(f"{folder} has no object in any of its {len(empty)} masks: all of their pixels are 0")
    if empty:
        text = "(with --exact they say that nothing is there)"
        notes.append(f"{len(empty)} masks without any object were passed over {text}, the first is of frame {empty[0]}")
    if _like_objects(paths, lone):
        notes.append(
            f"{', '.join(path.name for path in list(paths.values())[:3])}: taken as masks of the frames of these names; masks of "
            f"one object each would be named otherwise, like object_1.png"
        )
    return MaskFolder(paths, source, tuple(dict.fromkeys(notes)), tuple(empty), colors)


def _check_names(folder: Path, source: Source) -> None:
    """Refuse names that look like those of frames but are none, where each mask would be taken for an object."""
    for entry in _entries(folder):
        if re.fullmatch(r"(.*\D)?0\d{2,}", entry.stem):
            raise InputError(
                f"{entry}: the mask of a frame, or of an object? No frame of {source.name} has that name (they are called like "
                f"{_example(source)}.png), and masks of one object each are called like 4.png or dog_4.png"
            )


def _like_objects(paths: Mapping[int, Path], lone: int) -> bool:
    """Tell whether these might as well be masks of one object each, `lone` of them being of one object."""
    return len(paths) > 1 and lone == len(paths) and all(path.stem == str(at) for at, path in enumerate(paths.values(), 1))


def _entries(folder: Path) -> list[Path]:
    entries = (
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and (entry.is_dir() or entry.suffix.lower() in SUFFIXES)
    )
    return sorted(entries, key=lambda entry: natural_key(entry.name))


def _example(source: Source) -> str:
    return next((frame.name for frame in source.frames(0, 1)), "00000") if not source.live else "00000"
