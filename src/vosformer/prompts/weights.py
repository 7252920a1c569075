"""The click network's weights: the packaged ones, a file of one's own, an encoder from ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from vosformer.convert.encoders import from_pretrained
from vosformer.errors import WeightsError
from vosformer.prompts.network import ClickNetwork
from vosformer.weights.files import WeightsFile, read_weights
from vosformer.weights.loading import file_overrides
from vosformer.weights.matching import fit_tensors
from vosformer.weights.saving import write_weights

KIND = "clicks"
"""What the metadata of a click network's file say that it is."""


def packaged_network() -> Path | None:
    """Return the file of weights that came with the package, or None if this installation has none."""
    path = Path(str(files("vosformer"))) / "assets" / "prompts" / "clicks.safetensors"
    return path if path.is_file() else None


@cache
def default_network() -> ClickNetwork | None:
    """Return the packaged network, loaded once, in `eval` mode; None if this installation has none."""
    path = packaged_network()
    return None if path is None else load_network(path)


def load_network(path: str | Path, **options: Any) -> ClickNetwork:
    """Return a click network with the weights of a file, in `eval` mode.

    Args:
        path: a file that `vosformer train clicks` wrote, or a checkpoint's `model.safetensors`.
        options: of `ClickNetwork`; default: those that the file was saved with.

    Raises:
        WeightsError: the file cannot be read or is of something else.
    """
    file = read_weights(path)
    _check_kind(file)
    # The first files had no head that predicts the IoU; a training may add it to their weights.
    has_head = any(name.startswith("iou_head.") for name in file.tensors)
    network = ClickNetwork(**{"predicts_iou": has_head, **file_overrides(file), **options})
    fit = fit_tensors(file.tensors, network.state_dict(), optional=(r"iou_head\..*",))
    if not fit.good:
        raise WeightsError(f"{path} is not a file of the click network. {fit.complaint()}")
    network.load_state_dict(file.tensors, strict=False)
    return network.eval()


def save_network(
    network: ClickNetwork, path: str | Path, metadata: Mapping[str, Any] | None = None, *, dtype: torch.dtype = torch.float16
) -> Path:
    """Write a click network as safetensors, atomically; see `vosformer.weights.saving.save_weights`.

    Raises:
        OutputError: it could not be written.
    """
    return write_weights(network, KIND, Path(path), metadata, dtype, network.built_with)


def load_encoder(network: ClickNetwork, path: str | Path) -> None:
    """Take over a MobileNetV2 that was trained on ImageNet (torchvision's names).

    Raises:
        WeightsError: the file cannot be read, or is of another encoder.
    """
    file = read_weights(path)
    try:
        # The last convolution makes ImageNet's features; the network has none.
        found = from_pretrained({k: v for k, v in file.tensors.items() if "features.18." not in k}, network)
    except WeightsError as error:
        raise WeightsError(f"{file.path}: {error}") from None
    fit = fit_tensors(found, network.state_dict(), optional=(".*",))
    if not fit.good:
        raise WeightsError(f"{file.path} does not fit the click network's encoder. {fit.complaint()}")
    network.load_state_dict(found, strict=False)


def _check_kind(file: WeightsFile) -> None:
    kind = file.metadata.get("variant", KIND)
    if kind != KIND:
        raise WeightsError(f"{file.path} is a file of {kind!r}, expected one of the click network")
