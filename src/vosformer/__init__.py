"""Video object segmentation with AOT, AOST, DeAOT, SimVOS, JointFormer and OneVOS.

Names are imported when they are first used, so that `import vosformer` and `vosformer --help` do not load PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vosformer.errors import (
        DataError,
        DeviceError,
        InputError,
        OutputError,
        ServerError,
        TrainingError,
        VOSError,
        WeightsError,
    )
    from vosformer.evaluation import evaluate
    from vosformer.inference.latency import LatencyBudget
    from vosformer.inference.prediction import Prediction
    from vosformer.inference.predictor import VideoPredictor
    from vosformer.inference.session import Session
    from vosformer.inference.tracking import track
    from vosformer.prompts import Marker, Prompt, mark
    from vosformer.registry import Variant, register, variants
    from vosformer.serve.client import Client
    from vosformer.weights import build, from_pretrained, save_pretrained

_HOMES = {
    "Client": "serve.client",
    "DataError": "errors",
    "DeviceError": "errors",
    "InputError": "errors",
    "LatencyBudget": "inference.latency",
    "Marker": "prompts.marker",
    "OutputError": "errors",
    "Prediction": "inference.prediction",
    "Prompt": "prompts.prompt",
    "ServerError": "errors",
    "Session": "inference.session",
    "TrainingError": "errors",
    "VOSError": "errors",
    "Variant": "registry",
    "VideoPredictor": "inference.predictor",
    "WeightsError": "errors",
    "build": "weights",
    "evaluate": "evaluation",
    "from_pretrained": "weights",
    "mark": "prompts.marker",
    "register": "registry",
    "save_pretrained": "weights",
    "track": "inference.tracking",
    "variants": "registry",
}
"""The public names, and the module that each of them lives in."""

_PACKAGES = (
    "data",
    "evaluation",
    "export",
    "formats",
    "inference",
    "inspection",
    "io",
    "models",
    "prompts",
    "train",
    "weights",
)

__all__ = [
    "Client",
    "DataError",
    "DeviceError",
    "InputError",
    "LatencyBudget",
    "Marker",
    "OutputError",
    "Prediction",
    "Prompt",
    "ServerError",
    "Session",
    "TrainingError",
    "VOSError",
    "Variant",
    "VideoPredictor",
    "WeightsError",
    "build",
    "evaluate",
    "from_pretrained",
    "mark",
    "register",
    "save_pretrained",
    "track",
    "variants",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version("vosformer")
    if name in _PACKAGES:
        return import_module(f"vosformer.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'vosformer' has no attribute {name!r}")
    value = getattr(import_module(f"vosformer.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES, "__version__"})
