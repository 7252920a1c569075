"""What can be learned: following objects through video, or turning clicks into a mask. The trainer is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from vosformer.data.datasets.video import Curriculum
from vosformer.data.mixture import Mixture
from vosformer.data.object_crops import ObjectCrops, from_clips, from_stills, from_videos
from vosformer.data.synthetic.assets import Assets, split_assets
from vosformer.data.synthetic.compose import ComposeConfig, ComposedDataset
from vosformer.data.types import ClipDataset
from vosformer.errors import InputError
from vosformer.prompts.network import STRIDE, ClickNetwork
from vosformer.prompts.weights import load_encoder, load_network, save_network
from vosformer.protocol import VOSModel
from vosformer.train.clicks import ClickTraining
from vosformer.train.data import PROCEDURAL, training_clips
from vosformer.train.recipe import Recipe
from vosformer.train.rollout import ClipRollout
from vosformer.train.start import fitted, resolved, starting_model, weights_in
from vosformer.weights.saving import save_weights


@dataclass(frozen=True)
class Task:
    """The parts of a training that depend on what is learned.

    Attributes:
        resolve: (recipe, file or folder to begin with or None) -> (recipe with all names settled, weights file or None).
        build: (recipe, weights file or None) -> the network to begin with.
        fit: (recipe, network) -> the recipe with crops that the network takes.
        data: (recipe, folders) -> the training samples.
        engine: (network, recipe) -> a module whose `forward` is one batch, see `Rolled`; its `TERMS` name what it reports.
        save: (network, recipe, path, metadata) -> writes a weights file.
    """

    resolve: Callable[[Recipe, Path | None], tuple[Recipe, Path | None]]
    build: Callable[[Recipe, Path | None], nn.Module]
    fit: Callable[[Recipe, nn.Module], Recipe]
    data: Callable[[Recipe, Sequence[str]], ClipDataset]
    engine: Callable[[nn.Module, Recipe], nn.Module]
    save: Callable[[nn.Module, Recipe, Path, dict[str, Any]], Path]


def task_of(recipe: Recipe) -> Task:
    """Return what a recipe trains."""
    return _TASKS[recipe.task]


def _fit_video(recipe: Recipe, model: nn.Module) -> Recipe:
    return fitted(recipe, cast(VOSModel, model))


def _save_video(model: nn.Module, recipe: Recipe, path: Path, about: dict[str, Any]) -> Path:
    return save_weights(model, recipe.model.variant, path, about, dtype=torch.float32)


def _resolve_clicks(recipe: Recipe, start: Path | None) -> tuple[Recipe, Path | None]:
    if recipe.model.variant != "clicks":
        raise InputError(f"recipe {recipe.name!r} trains the click network; there is no variant {recipe.model.variant!r} of it")
    if recipe.run.compile:
        raise InputError("run.compile=true is for video; the click network is not compiled")
    return recipe, None if start is None else weights_in(start)


def _build_clicks(recipe: Recipe, start: Path | None) -> nn.Module:
    torch.manual_seed(recipe.run.seed)
    options = dict(recipe.model.options)
    try:
        network = ClickNetwork(**options) if start is None else load_network(start, **options)
    except TypeError as error:
        raise InputError(f"model.options: the click network cannot be built with {options}: {error}") from error
    if start is None and recipe.model.encoder is not None:
        load_encoder(network, recipe.model.encoder)
    return network.train()


def _fit_clicks(recipe: Recipe, _: nn.Module) -> Recipe:
    side = STRIDE * max(1, round(recipe.data.crop / STRIDE))
    return replace(recipe, data=replace(recipe.data, crop=side, width=None))


def _click_crops(recipe: Recipe, roots: Sequence[str]) -> ClipDataset:
    """Single objects of pictures, of frames and of composed scenes (whose edges are exact).

    Raises:
        DataError: a source finds nothing in the folders.
        InputError: a source that is none of these.
    """
    data, seed = recipe.data, recipe.run.seed
    procedural = list(roots) == [PROCEDURAL]
    # What `vosformer data compose` makes evaluation clips of is kept out.
    assets = Assets() if procedural else split_assets([Path(root) for root in roots])[0]
    scenes = ComposeConfig((data.crop * 5 // 4,) * 2, 1, Curriculum(((0, 1),)))
    sources = {
        "stills": lambda number: from_stills(assets.stills, seed + number),
        "videos": lambda number: from_videos(assets.videos),
        "composed": lambda number: from_clips(ComposedDataset(assets, scenes, seed + number)),
    }
    chosen = [source for source in data.sources if source.kind == PROCEDURAL or not procedural]
    strange = [source.kind for source in chosen if source.kind not in sources]
    if strange:
        raise InputError(f"data.sources: {', '.join(strange)} cannot be clicked on; choose among {', '.join(sources)}")
    parts: list[tuple[ClipDataset, float]] = [
        (ObjectCrops(sources[source.kind](number), data.crop, seed + number), float(source.repeat))
        for number, source in enumerate(chosen)
    ]
    return parts[0][0] if len(parts) == 1 else Mixture(parts, seed)


def _click_engine(network: nn.Module, recipe: Recipe) -> nn.Module:
    return ClickTraining(cast(ClickNetwork, network), recipe)


def _save_clicks(network: nn.Module, recipe: Recipe, path: Path, about: dict[str, Any]) -> Path:
    return save_network(cast(ClickNetwork, network), path, about, dtype=torch.float32)


_TASKS = {
    "video": Task(resolved, starting_model, _fit_video, training_clips, ClipRollout, _save_video),
    "clicks": Task(_resolve_clicks, _build_clicks, _fit_clicks, _click_crops, _click_engine, _save_clicks),
}
