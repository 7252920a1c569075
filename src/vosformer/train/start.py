"""What a run begins with: a fresh model, a pretrained encoder, or the weights of an earlier stage."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vosformer.convert.encoders import from_pretrained
from vosformer.errors import WeightsError
from vosformer.registry import new_model
from vosformer.train.recipe import Recipe


def fresh_model(recipe: Recipe) -> nn.Module:
    """The recipe's model, initialised from its seed, with the pretrained encoder if the recipe names a file.

    Raises:
        InputError: there is no such variant.
        WeightsError: the encoder file cannot be read, or belongs to another encoder.
    """
    torch.manual_seed(recipe.run.seed)
    model = new_model(recipe.model.variant, **dict(recipe.model.options))
    if recipe.model.encoder is not None:
        path = Path(recipe.model.encoder)
        state = {name: t.float() for name, t in from_pretrained(read_tensors(path), model).items()}
        take(model, state, path, whole=False)
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Begin with saved weights: a safetensors file of ours, a run's folder or one of its checkpoints (the average is taken).

    Raises:
        WeightsError: it cannot be read or does not fit the model.
    """
    if path.is_dir():
        path = _in_run(path)
    take(model, {name: t.float() if t.is_floating_point() else t for name, t in read_tensors(path).items()}, path, whole=True)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        WeightsError: it is missing or broken.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error


def take(model: nn.Module, state: dict[str, Tensor], path: Path, whole: bool) -> None:
    """Put tensors into a model.

    Args:
        model: where they go.
        state: tensors by name.
        path: where they come from, for messages.
        whole: every tensor of the model must be there.

    Raises:
        WeightsError: names or shapes do not fit.
    """
    own = model.state_dict()
    shared = [name for name in state if name in own]
    faults = {
        "unknown": [name for name in state if name not in own],
        "missing": [name for name in own if name not in state] if whole else [],
        "of another shape": [name for name in shared if state[name].shape != own[name].shape],
    }
    told = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' * (len(names) > 3)})" for what, names in faults.items() if names
    ]
    if told:
        raise WeightsError(f"{path} does not fit {type(model).__name__}: tensors {'; '.join(told)}")
    model.load_state_dict(state, strict=False)


def _in_run(folder: Path) -> Path:
    """The weights file inside a run's folder or a checkpoint's."""
    inside = sorted((folder / "checkpoints").glob("step-*"))
    for place in (folder, *reversed(inside)):
        for name in ("weights.safetensors", "average.safetensors", "model.safetensors"):
            if (place / name).is_file():
                return place / name
    raise WeightsError(f"{folder}: no weights.safetensors and no checkpoint with unsharded weights in it")
