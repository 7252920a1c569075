"""How each benchmark is run: which frames a model sees, which masks it is given, and what is handed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import DataError, InputError
from vosformer.evaluation.layout import first_of, mask_files, own_clips, read_meta, read_split
from vosformer.evaluation.masks import labels_present, read_labels
from vosformer.evaluation.ranges import listed
from vosformer.evaluation.rules import RULES, VOID, Rules
from vosformer.io.images import SUFFIXES
from vosformer.io.order import natural_key


@dataclass(frozen=True)
class Protocol:
    """The protocol of one benchmark.

    Attributes:
        name: what users type.
        summary: one line for the help.
        images: where the frames may be, below the data set's root: folders of one folder a video.
        masks: where the masks may be.
        clips: the root may also hold a folder for each video, with its frames and masks in ``frames`` and ``masks``.
        rules: of its scorer, see `RULES`.
        split: list of videos in ImageSets; None = every video that has masks.
        meta_frames: only the frames that meta.json names are asked for (YouTube-VOS: 6 a second).
        public_truth: all true masks come with the data set, so it can be scored here.
        gives_later: masks of objects that enter later are given, even if the scorer does not look at these.
        zip_prefix: folder inside the zip file that its server takes.
    """

    name: str
    summary: str
    images: tuple[str, ...]
    masks: tuple[str, ...]
    rules: str
    split: str | None = None
    meta_frames: bool = False
    public_truth: bool = True
    gives_later: bool = False
    zip_prefix: str = ""
    clips: bool = False

    @property
    def scoring(self) -> Rules:
        """The rules of its scorer."""
        return RULES[self.rules]


_DAVIS = (("JPEGImages/480p",), ("Annotations/480p",))
_VALID = (("valid/JPEGImages", "JPEGImages"), ("valid/Annotations", "Annotations"))
_ALL_FRAMES = (("valid_all_frames/JPEGImages", "../valid_all_frames/JPEGImages"), _VALID[1])
_FLAT = (("JPEGImages", "images"), ("Annotations", "masks"))
_OWN = (("JPEGImages", "images", "frames"), _FLAT[1])


def _youtube(year: int) -> tuple[Protocol, Protocol]:
    name = f"youtube{year}-val"
    common: dict[str, Any] = {"rules": "youtube", "meta_frames": True, "public_truth": False, "zip_prefix": "Annotations/"}
    return (
        Protocol(name, f"YouTube-VOS {year} validation, 6 frames a second", *_VALID, **common),
        Protocol(
            f"{name}-all-frames", f"YouTube-VOS {year} validation, all frames seen, 6 a second scored", *_ALL_FRAMES, **common
        ),
    )


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("davis2016-val", "DAVIS-2016 validation, one object", *_DAVIS, rules="davis2016", split="2016/val"),
        Protocol("davis2017-val", "DAVIS-2017 validation", *_DAVIS, rules="davis", split="2017/val"),
        Protocol(
            "davis2017-test-dev", "DAVIS-2017 test-dev", *_DAVIS, rules="davis", split="2017/test-dev", public_truth=False
        ),
        *_youtube(2018),
        *_youtube(2019),
        Protocol("mose-val", "MOSE validation", *_VALID, rules="mose", public_truth=False),
        Protocol("lvos-val", "LVOS validation, objects may enter later", *_VALID, rules="lvos", gives_later=True),
        Protocol("vost-val", "VOST validation", *_FLAT, rules="vost", split="val"),
        Protocol(
            "folder",
            "own clips: CLIP/frames and CLIP/masks, or JPEGImages/CLIP and Annotations/CLIP",
            *_OWN,
            rules="plain",
            clips=True,
        ),
    )
}


def named_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"there is no benchmark {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Video:
    """One video of a benchmark.

    Attributes:
        name: of the video.
        images: the frames that the model sees, in order, from the first one with a mask on.
        wanted: names of the frames whose masks are handed in.
        masks: frame name -> file of its mask, as far as there are any.
        later: objects that enter later are given when they do.
        binary: every label is object 1.
        void: label 255 is no object.
    """

    name: str
    images: tuple[Path, ...]
    wanted: frozenset[str]
    masks: Mapping[str, Path]
    later: bool
    binary: bool
    void: bool

    def given(self) -> Iterator[NDArray[np.int32] | None]:
        """For each frame the labels int32 [H,W] that the model is given: the objects that are new on it, else 0; or None.

        Raises:
            DataError: a mask cannot be read.
        """
        known: set[int] = set()
        for path in self.images:
            mask = self.masks.get(path.stem) if self.later or not known else None
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


def find_videos(protocol: Protocol, root: Path, split: str | Path | None = None) -> list[Video]:
    """The videos of a benchmark, checked as far as that goes without decoding them.

    Args:
        protocol: of the benchmark.
        root: the data set.
        split: another list of videos than the protocol's: its name in ImageSets, or its file.

    Raises:
        DataError: folders, lists, frames or first masks are missing.
    """
    if protocol.clips and root.is_dir() and (own := own_clips(root)):
        names = list(own) if split is None else read_split(root, split)
        return [_video(protocol, name, _there(root / name / "frames"), _there(root / name / "masks"), None) for name in names]
    images, masks = _folder(root, protocol.images, "frames", protocol), _folder(root, protocol.masks, "masks", protocol)
    chosen = split if split is not None else protocol.split
    if chosen is not None:
        names = read_split(root, chosen)
    else:
        names = sorted((path.name for path in masks.iterdir() if path.is_dir() and path.name[0] != "."), key=natural_key)
    if not names:
        raise DataError(f"{masks} has no videos: expected one folder of masks for each")
    for kind, folder in (("frames", images), ("masks", masks)):
        absent = [name for name in names if not (folder / name).is_dir()]
        if absent:
            raise DataError(f"{folder} lacks the {kind} of {len(absent)} of {len(names)} videos: {first_of(absent)}")
    meta = read_meta(masks) if protocol.meta_frames else None
    if protocol.meta_frames and meta is None:
        raise DataError(f"{masks.parent} has no meta.json, which says what frames {protocol.name} asks for")
    return [_video(protocol, name, images / name, masks / name, meta) for name in names]


def scorable(protocol: Protocol, videos: list[Video]) -> list[str]:
    """The videos that can be scored with what is on disk; of sets whose true masks are not public, all or none."""
    names = [video.name for video in videos]
    if not protocol.public_truth:
        return names if all(video.wanted <= video.masks.keys() for video in videos) else []
    least = 2 if protocol.scoring.last else 3  # the first mask is given, and some rules leave out the last
    chosen = [video for video in videos if len(video.masks) >= least]
    for video in chosen:
        if protocol.scoring.objects == "listed":  # better to fail before the run than after it
            listed(protocol.scoring, next(iter(video.masks.values())).parent.parent, video.name, tuple(video.masks))
    return [video.name for video in chosen]


def masks_folder(protocol: Protocol, root: Path) -> Path:
    """Where the data set keeps its masks."""
    if protocol.clips and own_clips(root):
        return root
    return _folder(root, protocol.masks, "masks", protocol)


def _there(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: a clip has its frames in frames/ and its masks in masks/")
    return folder


def _folder(root: Path, places: tuple[str, ...], what: str, protocol: Protocol) -> Path:
    for place in places:
        if (root / place).is_dir():
            return root / place
    raise DataError(f"{root} has no {what} of {protocol.name}: expected {' or '.join(places)} with a folder for each video")


def _video(protocol: Protocol, name: str, images: Path, masks: Path, meta: dict[str, Any] | None) -> Video:
    files = {path.stem: path for path in images.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."}
    frames = sorted(files, key=natural_key)
    labelled = mask_files(masks)
    strangers = [frame for frame in labelled if frame not in files]
    if strangers:
        raise DataError(f"{images} lacks {len(strangers)} frames that {masks} has masks of: {first_of(strangers)}")
    start, ids = _first_given(labelled, masks)
    frames = frames[frames.index(start) :]
    wanted = frozenset(frames)
    if meta is not None:
        wanted = _named_frames(meta, name, images, files) & wanted
        if not wanted:
            raise DataError(f"meta.json names no frame of the video {name} from {start} on, where its first mask is")
        last = max((frame for frame in frames if frame in wanted), key=frames.index)
        frames = frames[: frames.index(last) + 1]
    rules = protocol.scoring
    return Video(
        name,
        tuple(files[frame] for frame in frames),
        wanted,
        labelled,
        later=rules.objects == "every" or protocol.gives_later,
        binary=rules.merged or ids == {VOID},
        void=rules.void != "object",
    )


def _first_given(labelled: Mapping[str, Path], folder: Path) -> tuple[str, frozenset[int]]:
    """The first frame with an object, and its ids."""
    for frame, path in labelled.items():
        ids = labels_present(read_labels(path))
        if ids:
            return frame, ids
    raise DataError(f"{folder} has no object in any of its {len(labelled)} masks")


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
