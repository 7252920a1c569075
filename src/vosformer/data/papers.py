"""The training streams of the papers: data sets by name, with a paper's sampling and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vosformer.data.assets import Still
from vosformer.data.augment import (
    AOT_STILL,
    AOT_VIDEO,
    DEAOT_STILL,
    DEAOT_VIDEO,
    JOINTFORMER_FINETUNE,
    JOINTFORMER_STILL,
    JOINTFORMER_VIDEO,
    ONEVOS_STILL,
    ONEVOS_VIDEO,
    SIMVOS_VIDEO,
    MovedStill,
    ScaledCrop,
    SharedCrop,
    WarpedStill,
)
from vosformer.data.layouts import find_layout, parts_of, read_stills, read_videos
from vosformer.data.sampling import GapSampling, PairSampling, Sampling, SpreadSampling
from vosformer.data.streams import Selection, StillClips, VideoClips, VideoSource
from vosformer.data.types import Clip, ClipDataset
from vosformer.data.video import Curriculum
from vosformer.errors import DataError

Pipeline = Literal["aot", "deaot", "simvos", "jointformer", "onevos"]

_VIDEO: dict[str, ScaledCrop | SharedCrop] = {
    "aot": AOT_VIDEO,
    "deaot": DEAOT_VIDEO,
    "simvos": SIMVOS_VIDEO,
    "jointformer": JOINTFORMER_VIDEO,
    "onevos": ONEVOS_VIDEO,
}
_STILL: dict[str, MovedStill | WarpedStill] = {
    "aot": AOT_STILL,
    "deaot": DEAOT_STILL,
    "jointformer": JOINTFORMER_STILL,
    "onevos": ONEVOS_STILL,
}
_NEXT = Curriculum(((0, 1),))
# An object of AOT, DeAOT and OneVOS must have more pixels than this in the reference frame.
_MIN_PIXELS = {"aot": 100, "deaot": 100, "onevos": 100, "simvos": 0, "jointformer": 0}


@dataclass(frozen=True)
class PaperSet:
    """One data set of a training stage.

    Attributes:
        name: e.g. "davis2017"; see `vosformer.data.catalogue`.
        repeat: how often each of its videos or pictures counts in an epoch.
        max_gap: largest gap between sampled frames, in labelled frames, by item index (videos only).
    """

    name: str
    repeat: int = 1
    max_gap: Curriculum = _NEXT


@dataclass(frozen=True)
class ClipShape:
    """What clips of a stage are like.

    Attributes:
        frames: T.
        crop: side of the square, pixels.
        reverse: probability that time runs backwards (videos only).
        merge: probability that a second clip's objects are pasted on top.
        max_objects: objects kept in a clip.
    """

    frames: int
    crop: int
    reverse: float = 0.5
    merge: float = 0.0
    max_objects: int = 10


class Switch(ClipDataset):
    """One stream up to an item, another from it on (JointFormer's last steps are without rotation and shear).

    Args:
        before: the stream of items below `at`.
        after: the stream of the others.
        at: item index.
    """

    def __init__(self, before: ClipDataset, after: ClipDataset, at: int) -> None:
        super().__init__(before.seed)
        self.before, self.after, self.at = before, after, at

    def draw(self, rng: np.random.Generator, index: int) -> Clip:
        """Item `index` of the stream that holds there."""
        return (self.before if index < self.at else self.after)[index]


def paper_clips(
    pipeline: Pipeline,
    sets: Sequence[PaperSet],
    roots: Sequence[Path],
    shape: ClipShape,
    seed: int = 0,
    plain_from: int | None = None,
) -> ClipDataset:
    """The stream of one training stage of a paper.

    Args:
        pipeline: whose sampling and augmentation.
        sets: what it is trained on: videos only, or pictures only.
        roots: folders in which the sets are looked for, in order.
        shape: of the clips.
        seed: of the stream.
        plain_from: item from which frames are no longer rotated and sheared (JointFormer's videos only).

    Raises:
        DataError: a set is unknown, missing or incomplete, videos and pictures are mixed, or the pipeline has no way for pictures.
    """
    kinds = {find_layout(part).kind for entry in sets for part in parts_of(entry.name)}
    if len(kinds) != 1:
        raise DataError(
            f"one stage trains on videos or on pictures; {', '.join(s.name for s in sets) or 'nothing'} was asked for"
        )
    selection = Selection(shape.max_objects, _MIN_PIXELS[pipeline], shape.merge)
    if kinds == {"still"}:
        return _still_stream(pipeline, sets, roots, shape, selection, seed)
    sources = [VideoSource(s.name, read_videos(s.name, _root(s.name, roots)), s.max_gap, s.repeat) for s in sets]
    sampling = _sampling(pipeline, shape)
    stream = VideoClips(sources, sampling, replace(_VIDEO[pipeline], crop=shape.crop), selection, seed)
    if plain_from is None:
        return stream
    if pipeline != "jointformer":
        raise DataError(f"plain_from is JointFormer's; the pipeline {pipeline!r} has no steps without rotation")
    plain = VideoClips(sources, sampling, replace(JOINTFORMER_FINETUNE, crop=shape.crop), selection, seed)
    return Switch(stream, plain, plain_from)


def _still_stream(
    pipeline: Pipeline, sets: Sequence[PaperSet], roots: Sequence[Path], shape: ClipShape, selection: Selection, seed: int
) -> ClipDataset:
    if pipeline not in _STILL:
        raise DataError(f"{pipeline!r} is not trained on pictures; the pipelines {', '.join(_STILL)} are")
    stills: list[Still] = []
    for entry in sets:
        stills += [*read_stills(entry.name, _root(parts_of(entry.name)[0], roots))] * entry.repeat
    return StillClips(stills, replace(_STILL[pipeline], crop=shape.crop), selection, shape.frames, seed)


def _sampling(pipeline: Pipeline, shape: ClipShape) -> Sampling:
    if pipeline == "simvos":
        if shape.frames != 2:
            raise DataError(f"SimVOS's sampling makes clips of 2 frames, but {shape.frames} were asked for")
        return PairSampling(shape.reverse)
    if pipeline == "jointformer":
        return SpreadSampling(shape.frames, shape.reverse)
    return GapSampling(shape.frames, shape.reverse)


def _root(name: str, roots: Sequence[Path]) -> Path:
    """The first root that holds the set; with none, an error that tells what was expected."""
    layout = find_layout(name)
    for root in roots:
        if layout.locate(root) is not None:
            return root
    places = ", ".join(str(root) for root in roots) or "no folder at all"
    raise DataError(f"{places}: data set {name!r} is not there; expected {layout.expected}")
