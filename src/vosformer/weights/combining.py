"""New weights out of finished ones: the mean of several trainings, and a deeper stack of layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vosformer.errors import InputError, WeightsError
from vosformer.registry import new_model
from vosformer.weights.files import read_weights
from vosformer.weights.loading import build, file_overrides, load_weights
from vosformer.weights.saving import save_weights, variant_of

_LAYER = re.compile(r"(LSTT\.layers\.)(\d+)(\..+)")


def average(
    sources: Sequence[str | Path], target: str | Path, variant: str | None = None, *, dtype: torch.dtype = torch.float32
) -> str:
    """Write the mean of several files' weights, tensor by tensor ("model soup").

    Trainings that branch off the same weights and end at a low rate tend to be better in the mean than each alone.

    Args:
        sources: two or more files, ours or official; one that is named twice counts twice.
        target: the file to write, safetensors.
        variant: what the mean is; None = what the first file says, or the one variant that its tensors fit. Files of a variant with
            fewer layers are deepened first (see `deepened`; fresh values from a fixed seed).
        dtype: see `save_weights`.

    Returns:
        The name of the variant.

    Raises:
        InputError: fewer than two files, or no such variant.
        WeightsError: a file cannot be read or does not fit.
        OutputError: the target could not be written.
    """
    if len(sources) < 2:
        raise InputError(f"a mean needs two weights files or more, found {len(sources)}")
    first = read_weights(sources[0])
    name = variant or variant_of(first)
    options = file_overrides(first)
    states = [_state(source, name, options) for source in sources]
    model = new_model(name, **options)
    model.load_state_dict({key: _mean([state[key] for state in states]) for key in states[0]})
    about = {"mean_of": [Path(source).name for source in sources]}
    save_weights(model, name, target, about, dtype=dtype)
    return name


def _state(source: str | Path, variant: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a file's tensors, for the variant: deepened if the file says that it is another one."""
    if read_weights(source).metadata.get("variant", variant) == variant:
        model = build(variant, source, **options)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = new_model(variant, **options)
        load_deepened(model, source, variant)
    state: dict[str, Tensor] = model.state_dict()
    return state


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack([tensor.double() for tensor in tensors]).mean(0).to(tensors[0].dtype)


def load_deepened(model: nn.Module, path: str | Path, variant: str) -> None:
    """Load the weights of a variant with as many layers or fewer: see `deepened`.

    Args:
        model: with fresh weights, loaded in place.
        path: the file, ours or official.
        variant: the model's name.

    Raises:
        WeightsError: the file cannot be read, fits no variant or several, or differs in more than the number of layers.
    """
    held = variant_of(read_weights(path))
    if held == variant:
        load_weights(model, path)
        return
    shallow = build(held, path).state_dict()
    try:
        whole = deepened(shallow, model)
    except WeightsError as error:
        raise WeightsError(f"{path} holds {held!r}, not {variant!r}: {error}") from None
    model.load_state_dict(whole)


def deepened(held: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a shallower DeAOT for a deeper one that begins as the same function.

    Each further layer is a copy of the last one that is there, with outputs of zero: its streams pass unchanged until training makes
    something of it. What only a further layer has keeps its fresh values; where its values see the ID stream and the identities, the
    weights of the identities are the copied ones.

    Args:
        held: of the shallower variant.
        model: the deeper one, with fresh weights.

    Raises:
        WeightsError: the two differ in more than the number of layers.
    """
    fresh = model.state_dict()
    odd = [name for name, tensor in held.items() if name not in fresh or fresh[name].shape != tensor.shape]
    layers = [int(found[2]) for name in held if (found := _LAYER.fullmatch(name))]
    missing = [name for name in fresh if name not in held]
    if odd or not layers or not all(_LAYER.fullmatch(name) for name in missing):
        culprits = odd or [name for name in missing if not _LAYER.fullmatch(name)]
        raise WeightsError(
            f"weights can be deepened only if nothing but the number of layers differs; these differ: {', '.join(culprits[:3])}"
        )
    whole = dict(held)
    for name in missing:
        whole[name] = _further(name, fresh[name], held.get(_LAYER.sub(rf"\g<1>{max(layers)}\g<3>", name)))
    return whole


def _further(name: str, fresh: Tensor, above: Tensor | None) -> Tensor:
    """Return a tensor of a further layer, from its fresh value and the one of the layer before."""
    if ".projection." in name:
        return torch.zeros_like(fresh)
    if above is None:
        return fresh
    if above.shape == fresh.shape:
        return above.clone()
    value = fresh.clone()
    value[:, -above.shape[1] :] = above
    return value
