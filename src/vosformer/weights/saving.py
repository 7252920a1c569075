"""Writing weights files, and turning official checkpoints into ours and back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vosformer import registry
from vosformer.convert import adapter
from vosformer.errors import InputError, OutputError, WeightsError
from vosformer.io.files import make_folder, replacing
from vosformer.options import to_json
from vosformer.protocol import VOSModel
from vosformer.weights.files import SUFFIXES, WeightsFile, read_weights, tensor_hash
from vosformer.weights.loading import build, file_overrides
from vosformer.weights.matching import fitting_variants

_RESERVED = ("vosformer", "variant", "overrides", "sha256", "format")
_FLOAT16_MAX = 65504.0


def save_weights(
    model: nn.Module,
    variant: str,
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype = torch.float16,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model's weights as safetensors, atomically.

    Tensors with two dimensions or more are stored as `dtype`; biases, norms and statistics stay float32, for they are small and some
    have a wide range; so does a tensor that `dtype` would overflow. The file's metadata holds the variant, its overrides, the
    version of vosformer and a SHA-256 over all tensors, which is checked when the file is read.

    Args:
        model: what to save.
        variant: its name; the file can be built by it.
        path: should end in .safetensors.
        metadata: further entries; what is not a string is written as JSON.
        dtype: float16, bfloat16 or float32.
        overrides: the options that the model was built with; None = those that `vosformer.build` (or
            `registry.new_model`) was given or found in a file.

    Returns:
        The path.

    Raises:
        InputError: no such variant, metadata under a name that is used already, or overrides that JSON cannot hold.
        WeightsError: a tensor holds NaN or infinity.
        OutputError: it could not be written.
    """
    registry.variant(variant)
    built_with = model.built_with if isinstance(model, VOSModel) else {}
    return write_weights(model, variant, Path(path), metadata, dtype, built_with if overrides is None else overrides)


def write_weights(
    model: nn.Module, kind: str, path: Path, metadata: Mapping[str, Any] | None, dtype: torch.dtype, options: Mapping[str, Any]
) -> Path:
    """Write a network that need not be a variant: `save_weights` with `kind` in place of the variant's name.

    Raises:
        InputError: metadata under a name that is used already, or options that JSON cannot hold.
        WeightsError: a tensor holds NaN or infinity.
        OutputError: it could not be written.
    """
    clash = sorted(set(metadata or {}) & set(_RESERVED))
    if clash:
        raise InputError(f"metadata must not set {', '.join(clash)}: vosformer writes these itself")
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in model.state_dict().items()}
    try:
        entries = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (metadata or {}).items()}
        built_with = json.dumps(to_json(options))
    except TypeError as error:
        raise InputError(f"metadata and overrides must be JSON values: {error}") from None
    entries |= {
        "format": "pt",
        "vosformer": _version(),
        "variant": kind,
        "overrides": built_with,
        "sha256": tensor_hash(tensors),
    }
    make_folder(path.parent)
    save_tensors(path, tensors, entries)
    return path


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors that share no storage as one safetensors file, the whole file or nothing.

    Raises:
        OutputError: it could not be written; a former file of that name is untouched.
    """
    with replacing(path, durable=True) as temporary:
        try:
            save_file(dict(tensors), temporary, dict(metadata))
        except SafetensorError as error:
            raise OutputError(f"{path} cannot be written: {error}") from error


def convert(
    source: str | Path,
    target: str | Path,
    variant: str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    trust: bool = False,
) -> str:
    """Turn an official checkpoint into a file of ours, or back.

    Args:
        source: the file to read, official or ours.
        target: `.safetensors` writes ours, `.pth` or `.pt` an official checkpoint under the official names.
        variant: what it is; None = what the file says, or the one variant that its tensors fit.
        dtype: see `save_weights`; official checkpoints are always float32.
        trust: see `load_weights`.

    Returns:
        The name of the variant.

    Raises:
        InputError: the target has another suffix, or no such variant.
        WeightsError: the source cannot be read, does not fit, or fits several variants and `variant` is None.
        OutputError: the target could not be written.
    """
    target = Path(target)
    if target.suffix not in SUFFIXES:
        raise InputError(
            f"cannot tell what to write from {target.name!r}: expected a name that ends in .safetensors, .pth or .pt"
        )
    file = read_weights(source, trust=trust)
    name = variant or variant_of(file)
    model = build(name, source, trust=trust)
    if target.suffix == ".safetensors":
        kept = {key: value for key, value in file.metadata.items() if key not in _RESERVED}
        kept.setdefault("source", Path(source).name)
        save_weights(model, name, target, kept, dtype=dtype)
        return name
    rules = adapter(registry.variant(name).system)
    if options := file_overrides(file):
        listed = ", ".join(f"{key}={value!r}" for key, value in options.items())
        warnings.warn(f"{target} has no place for the options {listed}: give them again when it is loaded", stacklevel=2)
    official = {key: tensor.clone() for key, tensor in rules.to_official(model.state_dict(), model).items()}
    make_folder(target.parent)
    with replacing(target, durable=True) as temporary:
        torch.save({"state_dict": official} if rules.WRAPPED else official, temporary)
    return name


def variant_of(file: WeightsFile) -> str:
    """Return the variant that a file says it is, else the one that its tensors fit.

    Raises:
        WeightsError: it says nothing, and fits none or several.
    """
    if file.metadata.get("variant"):
        return file.metadata["variant"]
    good, closest = fitting_variants(file.tensors)
    if len(good) == 1:
        return good[0]
    if good:
        raise WeightsError(f"{file.path} fits {' and '.join(good)} alike: say which one it is (variant=, --variant)")
    hint = f"; the closest is {closest[0]!r}: {closest[1].complaint()}" if closest is not None else ""
    raise WeightsError(f"{file.path} fits no known variant{hint}")


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return tensor.clone().contiguous()
    if not tensor.isfinite().all():
        raise WeightsError(f"{name} holds NaN or infinity; such weights are not saved")
    small = tensor.dim() < 2 or (dtype is torch.float16 and bool(tensor.abs().amax() > _FLOAT16_MAX))
    return tensor.to(torch.float32 if small else dtype, copy=True).contiguous()


def _version() -> str:
    try:
        return version("vosformer")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
