"""Video object segmentation with AOT, AOST, DeAOT, SimVOS, JointFormer and OneVOS."""

from importlib.metadata import version

from vosformer.errors import DataError, DeviceError, InputError, OutputError, VOSError, WeightsError
from vosformer.evaluation import evaluate
from vosformer.inference.prediction import Prediction
from vosformer.inference.session import Session
from vosformer.inference.tracking import track
from vosformer.registry import Variant, register, variants
from vosformer.weights import build

__version__ = version("vosformer")

__all__ = [
    "DataError",
    "DeviceError",
    "InputError",
    "OutputError",
    "Prediction",
    "Session",
    "VOSError",
    "Variant",
    "WeightsError",
    "build",
    "evaluate",
    "register",
    "track",
    "variants",
]
