"""Weights: build a variant with them, load, save, verify, convert, average and look into files."""

from vosformer.weights.combining import average
from vosformer.weights.files import WeightsFile, read_weights
from vosformer.weights.hub import from_pretrained, save_pretrained
from vosformer.weights.inspection import WeightsInfo, inspect
from vosformer.weights.loading import build, load_weights, packaged
from vosformer.weights.pretrained import load_pretrained_encoder
from vosformer.weights.saving import convert, save_weights

__all__ = [
    "WeightsFile",
    "WeightsInfo",
    "average",
    "build",
    "convert",
    "from_pretrained",
    "inspect",
    "load_pretrained_encoder",
    "load_weights",
    "packaged",
    "read_weights",
    "save_pretrained",
    "save_weights",
]
