"""Starting encoders from ImageNet, MAE and ConvMAE files."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vosformer.convert import adapter, system_of
from vosformer.errors import WeightsError
from vosformer.weights.files import read_weights
from vosformer.weights.matching import fit_tensors


def load_pretrained_encoder(model: nn.Module, path: str | Path, *, trust: bool = False) -> tuple[str, ...]:
    """Load a file of pretrained encoder weights into a model, or into an encoder alone.

    Known are torchvision's MobileNetV2 (as it is, or with batch norm folded into the convolutions' biases) and ResNet,
    EfficientNet-Lite1 (names of the PyTorch port), Microsoft's Swin, MAE and ConvMAE ViTs. What only pre-training or classification
    needs is left out; position embeddings are resized as the system does it.

    Args:
        model: loaded in place.
        path: safetensors, or what `torch.save` wrote.
        trust: see `load_weights`.

    Returns:
        The names of the model's tensors that were loaded.

    Raises:
        WeightsError: the file cannot be read, is of another encoder, or lacks tensors of this one; the model is left as it was.
    """
    file = read_weights(path, trust=trust)
    rules = adapter(system_of(model))
    try:
        found = rules.from_pretrained(file.tensors, model)
    except WeightsError as error:
        raise WeightsError(f"{file.path}: {error}") from None
    fit = fit_tensors(found, model.state_dict(), optional=(".*",))  # the adapter has seen to it that no part is missing
    if not fit.good:
        raise WeightsError(f"{file.path} does not fit the encoder of {type(model).__name__}. {fit.complaint()}")
    model.load_state_dict(found, strict=False)
    return tuple(found)
