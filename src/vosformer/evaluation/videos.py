"""The videos of a benchmark: what a model sees of each, and which masks it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from vosformer.data.datasets.folders import ClipFolders, clip_folders, files_by_stem, subfolders
from vosformer.errors import DataError
from vosformer.evaluation.layout import find_masks, find_meta, first_of, mask_files, own_clips, read_split
from vosformer.evaluation.masks import labels_present, read_labels
from vosformer.evaluation.protocols import Protocol
from vosformer.evaluation.ranges import listed
from vosformer.io.images import SUFFIXES
from vosformer.io.order import natural_key
from vosformer.io.palette import VOID

FirstMask = tuple[str, "Path | Mapping[str, Any]"]  # the frame, and a file or COCO's compressed run lengths

_SAV_STEP = 4  # SA-V's masks are at 6 frames a second, its frames at 24


@dataclass(frozen=True)
class LabelMaps:
    """Masks that are given as label maps.

    Attributes:
        files: frame name -> label map, as far as there are any.
        later: objects that enter later are given when they do.
        binary: every label is object 1.
        void: label 255 is no object.
    """

    files: Mapping[str, Path]
    later: bool
    binary: bool
    void: bool

    def given(self, frames: Sequence[str]) -> Iterator[NDArray[np.int32] | None]:
        """Yield for each frame the labels int32 [H,W] that the model is given: the objects that are new on it, else 0; or None.

        Raises:
            DataError: a mask cannot be read.
        """
        known: set[int] = set()
        for frame in frames:
            mask = self.files.get(frame) if self.later or not known else None
            yield None if mask is None else self._newcomers(mask, known)

    def _newcomers(self, mask: Path, known: set[int]) -> NDArray[np.int32] | None:
        labels = read_labels(mask).astype(np.int32)
        if self.binary:
            labels = (labels != 0).astype(np.int32)
        elif self.void:
            labels[labels == VOID] = 0
        new = labels_present(labels) - known
        if not new:
            return None
        known |= new
        return np.where(np.isin(labels, list(new)), labels, 0).astype(np.int32)


@dataclass(frozen=True)
class ObjectLayer:
    """Objects that do not overlap where they are given, each in a folder of its own.

    Attributes:
        objects: name of the object's folder -> its first mask.
    """

    objects: Mapping[str, FirstMask]

    def given(self, frames: Sequence[str]) -> Iterator[NDArray[np.int32] | None]:
        """Yield for each frame the labels int32 [H,W] of the objects that are new on it, else 0; or None.

        The n-th object, from 1, has the label n.

        Raises:
            DataError: a mask cannot be read.
        """
        for frame in frames:
            labels: NDArray[np.int32] | None = None
            for number, (first, source) in enumerate(self.objects.values(), 1):
                if first == frame:
                    mask = _mask(source)
                    labels = np.zeros(mask.shape, np.int32) if labels is None else labels
                    labels[mask] = number
            yield labels


@dataclass(frozen=True)
class BenchmarkVideo:
    """One video of a benchmark.

    Attributes:
        name: of the video.
        images: the frames that the model sees, in order, from the first one with a mask on.
        scored: names of the frames whose masks are handed in.
        passes: the masks that are given; each of them is followed on its own.
        labeled: names of the frames that have a mask on disk.
        larger: frames are larger than masks, in whose size the model is given and answers.
    """

    name: str
    images: tuple[Path, ...]
    scored: frozenset[str]
    passes: tuple[LabelMaps | ObjectLayer, ...]
    labeled: frozenset[str]
    larger: bool = False


def find_videos(protocol: Protocol, root: Path, split: str | Path | None = None) -> list[BenchmarkVideo]:
    """Find the videos of a benchmark, checked as far as that goes without decoding them.

    Args:
        protocol: of the benchmark.
        root: the data set.
        split: another list of videos than the protocol's: its name in ImageSets, or its file.

    Raises:
        DataError: folders, lists, frames or first masks are missing.
    """
    if protocol.clips and root.is_dir() and (own := own_clips(root)):
        names = list(own) if split is None else read_split(root, split)
        clips = clip_folders(root)
        return [_video(protocol, name, *_clip(clips.get(name), root / name), None, None) for name in names]
    images, masks = _folder(root, protocol.images, "frames", protocol), _folder(root, protocol.masks, "masks", protocol)
    chosen = split if split is not None else protocol.split
    names = read_split(root, chosen) if chosen is not None else [path.name for path in subfolders(masks)]
    if not names:
        raise DataError(f"{masks} has no videos: expected one folder of masks for each")
    for kind, folder in (("frames", images), ("masks", masks)):
        absent = [name for name in names if not (folder / name).is_dir()]
        if absent:
            raise DataError(f"{folder} lacks the {kind} of {len(absent)} of {len(names)} videos: {first_of(absent)}")
    if protocol.object_folders:
        return [_object_video(name, images / name, masks) for name in names]
    meta = find_meta(masks) if protocol.meta_frames else None
    if protocol.meta_frames and meta is None:
        raise DataError(f"{masks.parent} has no meta.json, which says what frames {protocol.name} asks for")
    fewer = _folder(root, protocol.scored_frames, "frames", protocol) if protocol.scored_frames else None
    return [_video(protocol, name, images / name, masks / name, meta, fewer and fewer / name) for name in names]


def scorable(protocol: Protocol, root: Path, videos: list[BenchmarkVideo]) -> list[str]:
    """Name the videos that can be scored with what is on disk; of sets whose true masks are not public, all or none.

    Raises:
        DataError: a file that the scorer needs is missing: better before the run than after it.
    """
    names = [video.name for video in videos]
    rules = protocol.scoring
    if protocol.truth:
        truth = next((root / name for name in protocol.truth if (root / name).is_dir()), None)
        chosen = [name for name in names if truth is not None and (truth / name).is_dir()]
    elif not protocol.public_truth:
        chosen = names if all(video.scored <= video.labeled for video in videos) else []
    else:
        least = 2 if rules.last else 3  # the first mask is given, and some rules leave out the last
        chosen = [video.name for video in videos if len(video.labeled) >= least]
    if chosen and rules.objects == "listed":
        true = find_masks(truth_folder(protocol, root), rules.mask_folders)
        for name in chosen:
            listed(rules, true.root, name, tuple(mask_files(true.sequences[name])))
    return chosen


def truth_folder(protocol: Protocol, root: Path) -> Path:
    """Find where the data set keeps its true masks, as `evaluate` takes them."""
    if protocol.clips and own_clips(root):
        return root
    return _folder(root, protocol.truth or protocol.masks, "masks", protocol)


def _clip(clip: ClipFolders | None, folder: Path) -> ClipFolders:
    if clip is None or not clip.frames.is_dir():
        missing = folder / ("masks" if clip is None else "frames")
        raise DataError(f"{missing} is missing: a clip has its frames in frames/ (or images/) and its masks in masks/")
    return clip


def _folder(root: Path, names: tuple[str, ...], what: str, protocol: Protocol) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"{root} has no {what} of {protocol.name}: expected {' or '.join(names)} with a folder for each video")


def _frames(images: Path, labeled: Mapping[str, Path] | frozenset[str], masks: Path) -> dict[str, Path]:
    """Frame name -> file in natural order; every mask must have one."""
    files = files_by_stem(images, SUFFIXES)
    strangers = [frame for frame in labeled if frame not in files]
    if strangers:
        raise DataError(f"{images} lacks {len(strangers)} frames that {masks} has masks of: {first_of(strangers)}")
    return files


def _video(
    protocol: Protocol, name: str, images: Path, masks: Path, meta: dict[str, Any] | None, fewer: Path | None
) -> BenchmarkVideo:
    labeled = mask_files(masks)
    files = _frames(images, labeled, masks)
    start, ids = _first_given(labeled, masks)
    frames = list(files)[list(files).index(start) :]
    scored = frozenset(frames)
    if fewer is not None:
        scored &= {path.stem for path in fewer.iterdir()} if fewer.is_dir() else labeled.keys()
    if meta is not None:
        scored = _named_frames(meta, name, images, files) & scored
        if not scored:
            raise DataError(f"meta.json names no frame of the video {name} from {start} on, where its first mask is")
        last = max((frame for frame in frames if frame in scored), key=frames.index)
        frames = frames[: frames.index(last) + 1]
    rules = protocol.scoring
    given = LabelMaps(
        labeled,
        later=rules.objects == "every" or protocol.gives_later,
        binary=rules.merged or ids == {VOID},
        void=rules.void != "object",
    )
    return BenchmarkVideo(name, tuple(files[frame] for frame in frames), scored, (given,), frozenset(labeled), protocol.larger)


def _object_video(name: str, images: Path, masks: Path) -> BenchmarkVideo:
    """Make the video of SA-V: objects that overlap where they are given are followed in passes of their own."""
    objects = {path.name: mask_files(path) for path in sorted((masks / name).iterdir()) if path.is_dir()}
    labeled = frozenset(frame for files in objects.values() for frame in files)
    frames = _frames(images, labeled, masks / name)
    first: dict[str, tuple[str, Path]] = {}
    for number, files in objects.items():
        found = next(((frame, path) for frame, path in files.items() if labels_present(read_labels(path))), None)
        if found is None:
            raise DataError(f"{masks / name / number} has no mask with an object")
        first[number] = found
    if not first:
        raise DataError(f"{masks / name} has no folders of masks, one for each object")
    names = list(frames)
    start = min(names.index(frame) for frame, _ in first.values())
    shown = tuple(frames[frame] for frame in names[start:])
    scored = (labeled | set(names[::_SAV_STEP])) & set(names[start:])
    return BenchmarkVideo(name, shown, scored, object_layers(first), labeled)


def object_layers(first: Mapping[str, FirstMask]) -> tuple[ObjectLayer, ...]:
    """Put each object into the first layer where its mask meets no other one on the same frame."""
    found: list[dict[str, FirstMask]] = []
    taken: list[dict[str, NDArray[np.bool_]]] = []  # of each layer: the pixels that are given on a frame
    for number, (frame, source) in first.items():
        mask = _mask(source)
        at = next((i for i, used in enumerate(taken) if frame not in used or not (used[frame] & mask).any()), len(found))
        if at == len(found):
            found.append({})
            taken.append({})
        found[at][number] = (frame, source)
        taken[at][frame] = taken[at][frame] | mask if frame in taken[at] else mask
    return tuple(map(ObjectLayer, found))


def _mask(source: Path | Mapping[str, Any]) -> NDArray[np.bool_]:
    """Read a mask of one object: bool [H,W]."""
    if isinstance(source, Path):
        return np.asarray(read_labels(source) != 0)
    return np.asarray(coco.decode(dict(source)), np.bool_)


def _first_given(labeled: Mapping[str, Path], folder: Path) -> tuple[str, frozenset[int]]:
    """Find the first frame with an object, and its ids."""
    for frame, path in labeled.items():
        ids = labels_present(read_labels(path))
        if ids:
            return frame, ids
    raise DataError(f"{folder} has no object in any of its {len(labeled)} masks")


def _named_frames(meta: dict[str, Any], name: str, images: Path, files: Mapping[str, Path]) -> frozenset[str]:
    try:
        objects = meta["videos"][name]["objects"].values()
        named = frozenset(str(frame) for one in objects for frame in one["frames"])
    except (KeyError, TypeError) as error:
        raise DataError(f"meta.json does not name the frames of the video {name}: {error} is missing") from error
    absent = sorted(named - files.keys(), key=natural_key)
    if absent:
        raise DataError(f"{images} lacks {len(absent)} of the {len(named)} frames that meta.json names: {first_of(absent)}")
    return named
