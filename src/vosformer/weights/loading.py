"""Building variants with weights."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vosformer import registry
from vosformer.convert import system_of
from vosformer.device import choose_device
from vosformer.errors import InputError, WeightsError
from vosformer.protocol import Presence, VOSModel
from vosformer.weights.files import WeightsFile, read_weights
from vosformer.weights.matching import compare, not_fitting


def build(
    name: str,
    weights: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    trust: bool = False,
    **overrides: Any,
) -> VOSModel:
    """Return a model, ready for inference (`eval` mode; call `train()` to train it).

    Args:
        name: a variant's name (see `vosformer.variants`), or that of a packaged weights file, e.g. "default": the file says which
            variant it is.
        weights: a weights file, ours or an official checkpoint; None = packaged weights if `name` says so, else fresh random ones.
        device: where the model goes; "auto" = CUDA, then MPS, then the CPU.
        trust: see `load_weights`.
        overrides: the variant's own options. Those that a file of ours was saved with are the defaults.

    Raises:
        InputError: no such variant.
        WeightsError: the file cannot be read, or does not fit.
        DeviceError: a device that this machine does not have.
    """
    on = choose_device(device)
    packed = packaged().get(name)
    if packed is None and name == "default":
        raise WeightsError("this installation holds no default weights; name a variant, and a weights file for it")
    source = packed if weights is None else Path(weights)
    file = None if source is None else read_weights(source, trust=trust)
    if packed is not None:
        name = _own_variant(file, packed)
    model = _build_model(name, file, overrides).eval()
    model.looks_closer = model.drops_islands = packed is not None
    if file is not None:
        model.presence = _presence(file)
        _load(model, file, registry.variant(name).system, name)
    return model.to(on)


def load_weights(
    model: nn.Module | str, path: str | Path, *, trust: bool = False, allow_missing: Sequence[str] = ()
) -> nn.Module:
    """Load a weights file into a model: ours, or an official checkpoint, plain or EMA, with or without `module.` prefixes.

    Args:
        model: loaded in place, whatever its dtype and device; or a variant's name, to build one (`build` does this, too).
        path: safetensors, or what `torch.save` wrote.
        trust: unpickle whatever a torch file holds, which runs code of the file's author. Without it only tensors are read.
        allow_missing: regular expressions of whole names that the file may lack (a training stage that adds parts to a model); these
            keep their values.

    Returns:
        The model.

    Raises:
        WeightsError: the file cannot be read or does not fit; the message names the tensors, and the variants that it does fit.
            The model is left as it was.
    """
    file = read_weights(path, trust=trust)
    if isinstance(model, str):
        name, system = model, registry.variant(model).system
        model = _build_model(name, file, {}).eval()
    else:
        name = system = system_of(model)
    _load(model, file, system, name, allow_missing)
    return model


def packaged() -> dict[str, Path]:
    """Return the weights that came with the package: name -> file."""
    folder = Path(str(files("vosformer"))) / "assets"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def file_overrides(file: WeightsFile) -> dict[str, Any]:
    """Return the options that the model of a file of ours was built with.

    Raises:
        WeightsError: the file's metadata is damaged.
    """
    text = file.metadata.get("overrides", "{}")
    with suppress(ValueError, RecursionError):
        return overrides_of(json.loads(text), f"{file.path}: its metadata 'overrides'")
    raise WeightsError(f"{file.path}: its metadata 'overrides' is no JSON object: {text!r}")


def overrides_of(values: Any, where: str) -> dict[str, Any]:
    """Return options of a variant that were written as JSON.

    Raises:
        WeightsError: they are no object; the message begins with `where`.
    """
    if not isinstance(values, dict):
        raise WeightsError(f"{where} is no JSON object: {values!r}")
    return {str(key): tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _presence(file: WeightsFile) -> Presence:
    """Return how the file says that presence scores are calibrated; as they come if it says nothing."""
    text = file.metadata.get("presence", "[1, 0]")
    with suppress(ValueError, RecursionError):
        return presence_of(json.loads(text), f"{file.path}: its metadata 'presence'")
    raise WeightsError(f"{file.path}: its metadata 'presence' is {text!r}, expected [scale above 0, bias]")


def presence_of(values: Any, where: str) -> Presence:
    """Return a calibration of presence scores that was written as JSON.

    Raises:
        WeightsError: it is none; the message begins with `where`.
    """
    try:
        scale, bias = map(float, values)
        if scale > 0 and math.isfinite(scale) and math.isfinite(bias):
            return Presence(scale, bias)
    except (ValueError, TypeError):
        pass
    raise WeightsError(f"{where} is {values!r}, expected [scale above 0, bias]")


def _own_variant(file: WeightsFile | None, packed: Path) -> str:
    """Return the variant that a file of ours says it is; a user's file without that is taken for what the packaged one is."""
    for candidate in (file, read_weights(packed)):
        if candidate is not None and "variant" in candidate.metadata:
            return candidate.metadata["variant"]
    raise WeightsError(f"{packed}: its metadata names no variant")


def _build_model(name: str, file: WeightsFile | None, overrides: dict[str, Any]) -> VOSModel:
    saved = file_overrides(file) if file is not None and file.metadata.get("variant") == name else {}
    try:
        return registry.new_model(name, **{**saved, **overrides})
    except TypeError as error:
        asked = ", ".join(f"{key}={value!r}" for key, value in {**saved, **overrides}.items())
        raise InputError(f"variant {name!r} cannot be built with {asked or 'no options'}: {error}") from None


def _load(model: nn.Module, file: WeightsFile, system: str, name: str, allow_missing: Sequence[str] = ()) -> None:
    fit = compare(file.tensors, model, system, allow_missing)
    if not fit.good:
        raise WeightsError(f"{file.path} {not_fitting(file.tensors, fit, name)}")
    broken = [key for key, tensor in fit.tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{file.path} holds values that are not finite (NaN or infinity) in {len(broken)} tensors, e.g. {broken[0]}"
        )
    model.load_state_dict(fit.tensors, strict=False)
