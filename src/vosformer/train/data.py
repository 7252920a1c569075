"""From the data part of a recipe to a stream of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vosformer.data.assets import Assets, find_assets
from vosformer.data.compose import ComposeConfig, ComposedDataset, clips_of_stills, clips_of_videos
from vosformer.data.mixture import Mixture
from vosformer.data.types import ClipDataset
from vosformer.data.video import Curriculum
from vosformer.errors import DataError
from vosformer.train.recipe import Recipe, Source

PROCEDURAL = "composed"
"""As `--data`: composed video out of textures and shapes alone, which needs no file."""


def training_clips(recipe: Recipe, roots: Sequence[str]) -> ClipDataset:
    """The clips that a recipe trains on.

    Args:
        recipe: its `data` part says which sets and how clips are cut.
        roots: folders that hold the sets, or `PROCEDURAL`.

    Raises:
        DataError: a set is missing or broken; the message says which and where it was looked for.
    """
    if list(roots) == [PROCEDURAL]:
        return _composed(recipe, Source("composed", PROCEDURAL, gap_max=5), Assets(), 0)
    assets = _assets(roots)
    parts = []
    for number, source in enumerate(recipe.data.sources):
        make = _MAKERS.get(source.kind)
        if make is None:
            raise DataError(f"data.sources: there is no kind {source.kind!r}; known: {', '.join(_MAKERS)}")
        parts.append((make(recipe, source, assets, number), float(source.repeat)))
    return parts[0][0] if len(parts) == 1 else Mixture(parts, recipe.run.seed)


def _assets(roots: Sequence[str]) -> Assets:
    # What `vosformer data compose` makes evaluation clips of is kept out.
    found = [find_assets(Path(root)).split()[0] for root in roots if root != PROCEDURAL]
    return Assets(
        *(tuple(item for assets in found for item in getattr(assets, name)) for name in ("videos", "stills", "sprites"))
    )


def _curriculum(recipe: Recipe, source: Source) -> Curriculum:
    """Largest gaps by clip number."""
    batch = recipe.run.batch
    steps = recipe.data.gap_curriculum or ((0, source.gap_max),)
    return Curriculum(tuple((step * batch, gap) for step, gap in steps))


def _composed(recipe: Recipe, source: Source, assets: Assets, number: int) -> ClipDataset:
    data = recipe.data
    config = ComposeConfig(size=(data.crop, data.crop), frames=data.frames, max_gap=_curriculum(recipe, source))
    return ComposedDataset(assets, replace(config, max_objects=data.max_objects), recipe.run.seed + number)


def _videos(recipe: Recipe, source: Source, assets: Assets, number: int) -> ClipDataset:
    data = recipe.data
    return clips_of_videos(assets, (data.crop, data.crop), data.frames, _curriculum(recipe, source), recipe.run.seed + number)


def _stills(recipe: Recipe, source: Source, assets: Assets, number: int) -> ClipDataset:
    data = recipe.data
    return clips_of_stills(assets, (data.crop, data.crop), data.frames, _curriculum(recipe, source), recipe.run.seed + number)


_Maker = Callable[[Recipe, Source, Assets, int], ClipDataset]
_MAKERS: dict[str, _Maker] = {"composed": _composed, "videos": _videos, "stills": _stills}
