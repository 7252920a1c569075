"""What a run begins with: a fresh model, a pretrained encoder, or the weights of an earlier stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from vosformer.errors import InputError, WeightsError
from vosformer.protocol import VOSModel
from vosformer.registry import new_model, variants
from vosformer.train.recipe import Recipe
from vosformer.weights.combining import load_deepened
from vosformer.weights.files import read_weights
from vosformer.weights.loading import file_overrides, load_weights, packaged
from vosformer.weights.pretrained import load_pretrained_encoder
from vosformer.weights.saving import variant_of


def resolved(recipe: Recipe, start: Path | None) -> tuple[Recipe, Path | None]:
    """Return the recipe with the name of a real variant, and the weights file to begin with.

    A variant "default" (fine-tuning) is the one of the weights file, or that of the packaged weights if no file is given.

    Raises:
        InputError: no weights are there to tell the variant.
        WeightsError: the file cannot be read, or it fits no variant or several.
    """
    file = None if start is None else weights_in(start)
    name = recipe.model.variant
    if name in {variant.name for variant in variants()}:
        return recipe, file
    if file is None:
        file = packaged().get(name)
    if file is None:
        raise InputError(
            f"recipe {recipe.name!r} begins with finished weights: give them with --from, or a variant with --variant"
        )
    held = read_weights(file)
    options = tuple({**file_overrides(held), **dict(recipe.model.options)}.items())
    return replace(recipe, model=replace(recipe.model, variant=variant_of(held), options=options)), file


def starting_model(recipe: Recipe, start: Path | None) -> VOSModel:
    """Return the recipe's model: initialized from its seed, with the pretrained encoder if there is a file of it, or with
    whole weights.

    Args:
        recipe: with a real variant, see `resolved`.
        start: a weights file, ours or official, or None.

    Raises:
        InputError: there is no such variant, or it does not take the options.
        WeightsError: a file cannot be read or does not fit.
    """
    torch.manual_seed(recipe.run.seed)
    options = dict(recipe.model.options)
    try:
        model = new_model(recipe.model.variant, **options).train()
    except TypeError as error:
        raise InputError(f"model.options: {recipe.model.variant!r} cannot be built with {options}: {error}") from error
    if start is not None and recipe.model.deepen:
        load_deepened(model, start, recipe.model.variant)
    elif start is not None:
        load_weights(model, start, allow_missing=recipe.model.may_miss)
    elif recipe.model.encoder is not None:
        load_pretrained_encoder(model, recipe.model.encoder)
    return model.train()


def fitted(recipe: Recipe, model: VOSModel) -> Recipe:
    """Return the recipe with crops that the model's geometry takes: 16k+1 pixels a side, or 16k (Swin encoders,
    transformers).
    """
    geometry = model.geometry
    corner, stride = int(geometry.align_corners), geometry.stride

    def fit(side: int) -> int:
        return corner + stride * max(1, round((side - corner) / stride))

    data = recipe.data
    return replace(recipe, data=replace(data, crop=fit(data.crop), width=None if data.width is None else fit(data.width)))


def weights_in(path: Path) -> Path:
    """Return a weights file: `path` itself, or the best one in the folder of a run or of a checkpoint.

    Raises:
        WeightsError: there is none.
    """
    if not path.is_dir():
        return path
    checkpoints = sorted((path / "checkpoints").glob("step-*"), reverse=True)
    for folder in (path, *checkpoints):
        for name in ("weights.safetensors", "average.safetensors", "model.safetensors"):
            if (folder / name).is_file():
                return folder / name
    raise WeightsError(
        f"{path}: expected weights.safetensors or checkpoints/step-*/ with unsharded weights in it, found neither"
    )
