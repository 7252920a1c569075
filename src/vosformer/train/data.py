"""From the data part of a recipe to a stream of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vosformer.data.augmentation import pipelines as augment
from vosformer.data.datasets.find import find_layout, read_stills, read_videos
from vosformer.data.datasets.picture import Still
from vosformer.data.datasets.video import Curriculum, Video
from vosformer.data.mixture import Mixture
from vosformer.data.sampling import GapSampling, PairSampling, Sampling, SpreadSampling
from vosformer.data.streams import Selection, StillClips, VideoClips, VideoSource
from vosformer.data.synthetic.assets import Assets, split_assets
from vosformer.data.synthetic.compose import (
    ComposeConfig,
    ComposedDataset,
    clips_of_crowds,
    clips_of_groups,
    clips_of_stills,
    clips_of_videos,
)
from vosformer.data.types import Clip, ClipDataset
from vosformer.errors import DataError, InputError
from vosformer.io.notes import Notes
from vosformer.train.recipe import Data, DataSource, Recipe

PROCEDURAL = "composed"
"""As `--data`: composed video out of textures and shapes alone, which needs no file."""

_VIDEO: dict[str, augment.VideoAugment] = {
    "aot": augment.AOT_VIDEO,
    "deaot": augment.DEAOT_VIDEO,
    "onevos": augment.ONEVOS_VIDEO,
    "simvos": augment.SIMVOS_VIDEO,
    "jointformer": augment.JOINTFORMER_VIDEO,
    "jointformer-bl30k": augment.JOINTFORMER_BL30K,
}
_STILL: dict[str, augment.StillAugment] = {
    "aot": augment.AOT_STILL,
    "deaot": augment.DEAOT_STILL,
    "onevos": augment.ONEVOS_STILL,
    "jointformer": augment.JOINTFORMER_STILL,
}


class Stages(ClipDataset):
    """One stream until clip `change`, another one from there on."""

    def __init__(self, before: ClipDataset, after: ClipDataset, change: int) -> None:
        super().__init__(before.seed)
        self.before, self.after, self.change = before, after, change

    def draw(self, rng: np.random.Generator, index: int) -> Clip:
        """Clip `index` of the stream whose turn it is."""
        return (self.before if index < self.change else self.after)[index]


def training_clips(recipe: Recipe, roots: Sequence[str], notes: Notes | None = None) -> ClipDataset:
    """Return the clips that a recipe trains on.

    Args:
        recipe: its `data` part says which sets and how clips are cut.
        roots: folders that hold the sets, or `PROCEDURAL`.
        notes: gets lines on where each set was found, and which videos have a single labeled frame.

    Raises:
        DataError: a set is missing or broken; the message says which and where it was looked for.
        InputError: settings that do not go together.
    """
    data = recipe.data
    if list(roots) == [PROCEDURAL]:
        return _composed(recipe, DataSource("composed", gap_max=5), Assets())
    if PROCEDURAL in roots:
        raise InputError(
            f"--data {' '.join(roots)}: {PROCEDURAL!r} is composed video that needs no files, and cannot be joined"
        )
    folders = [Path(root) for root in roots]
    kinds = [source.kind for source in data.sources]
    if all(kind in _COMPOSED for kind in kinds):
        # What `vosformer data compose` makes evaluation clips of is kept out.
        assets = split_assets(folders)[0]
        parts = [(_composed(recipe, s, assets, i), float(s.repeat)) for i, s in enumerate(data.sources)]
        return parts[0][0] if len(parts) == 1 else Mixture(parts, recipe.run.seed)
    mixed = [kind for kind in kinds if kind in _COMPOSED]
    if mixed:
        raise InputError(f"data.sources: {', '.join(mixed)} cannot be joined with {', '.join(set(kinds) - set(mixed))}")
    if data.width is not None:
        raise InputError(f"data.width={data.width} is for composed clips; clips of {', '.join(kinds)} are square (data.crop)")
    forms = {find_layout(kind).kind for kind in kinds}
    if len(forms) > 1:
        raise InputError(
            f"data.sources: sets of videos and of pictures cannot be joined in one recipe, found {', '.join(kinds)}"
        )
    notes = Notes() if notes is None else notes
    for kind in kinds:
        notes.add(f"data set {kind}: {find_layout(kind).locate(_locate(kind, folders))}")
    return _still_clips(recipe, folders) if forms == {"still"} else _video_clips(recipe, folders, notes)


def _locate(kind: str, folders: Sequence[Path]) -> Path:
    """Return the folder that holds a set.

    Raises:
        DataError: none does.
    """
    layout = find_layout(kind)
    found = [folder for folder in folders if layout.locate(folder) is not None]
    if not found:
        looked = ", ".join(map(str, folders))
        raise DataError(f"the recipe needs the data set {kind!r}, which is not in {looked}; expected there: {layout.expected}")
    return found[0]


def _video_clips(recipe: Recipe, folders: Sequence[Path], notes: Notes) -> ClipDataset:
    data = recipe.data
    sources = []
    for source in data.sources:
        videos: tuple[Video, ...] = read_videos(source.kind, _locate(source.kind, folders))
        for video in videos:
            if len(video) == 1:
                notes.add("videos with a single labeled frame, which teach no motion (training repeats it)", video.name)
        sources.append(VideoSource(source.kind, videos, _curriculum(recipe, source), source.repeat))
    if data.pipeline not in _VIDEO:
        raise InputError(f"data.pipeline={data.pipeline} is not for videos of data sets; choose one of {', '.join(_VIDEO)}")
    return _switched(
        recipe, lambda augmentation: VideoClips(sources, _sampling(data), augmentation, _selection(data), recipe.run.seed)
    )


def _switched(recipe: Recipe, make: Callable[[Any], ClipDataset]) -> ClipDataset:
    """Clips under the recipe's augmentation, and from `plain_from` on without rotation and shear."""
    data = recipe.data
    first = make(replace(_VIDEO[data.pipeline], crop=data.crop))  # type: ignore[type-var]
    if data.plain_from is None:
        return first
    if data.pipeline != "jointformer":
        raise InputError(f"data.plain_from belongs to data.pipeline=jointformer, not {data.pipeline}")
    return Stages(first, make(replace(augment.JOINTFORMER_FINETUNE, crop=data.crop)), data.plain_from * recipe.run.batch)


def _still_clips(recipe: Recipe, folders: Sequence[Path]) -> ClipDataset:
    data = recipe.data
    stills: list[Still] = []
    for source in data.sources:
        stills += list(read_stills(source.kind, _locate(source.kind, folders))) * source.repeat
    if data.pipeline not in _STILL:
        raise InputError(f"data.pipeline={data.pipeline} is not for pictures of data sets; choose one of {', '.join(_STILL)}")
    augmentation: Any = replace(_STILL[data.pipeline], crop=data.crop)  # type: ignore[type-var]
    return StillClips(stills, augmentation, _selection(data), data.frames, recipe.run.seed)


def _sampling(data: Data) -> Sampling:
    if data.pipeline == "simvos":
        return PairSampling(data.reverse)
    if data.pipeline.startswith("jointformer"):
        return SpreadSampling(data.frames, data.reverse)
    return GapSampling(data.frames, data.reverse)


def _selection(data: Data) -> Selection:
    # The per-object systems take any object, however small.
    pixels = 0 if data.pipeline.startswith(("simvos", "jointformer")) else 100
    return Selection(data.max_objects, pixels, data.merge, data.ignored, vanishing=data.pipeline == "jointformer-bl30k")


def _curriculum(recipe: Recipe, source: DataSource) -> Curriculum:
    """Largest gaps by clip number."""
    steps = recipe.data.gap_curriculum or ((0, source.gap_max),)
    return Curriculum(tuple((step * recipe.run.batch, max(1, gap // source.gap_divisor)) for step, gap in steps))


_COMPOSED: dict[str, Callable[[Assets, ComposeConfig, int], ComposedDataset]] = {
    "composed": ComposedDataset,
    "videos": clips_of_videos,
    "stills": clips_of_stills,
    "groups": clips_of_groups,
    "crowds": clips_of_crowds,
}


def _composed(recipe: Recipe, source: DataSource, assets: Assets, number: int = 0) -> ClipDataset:
    data = recipe.data
    config = ComposeConfig(
        data.size, data.frames, _curriculum(recipe, source), window=data.window, max_objects=data.max_objects
    )
    return _COMPOSED[source.kind](assets, config, recipe.run.seed + number)
