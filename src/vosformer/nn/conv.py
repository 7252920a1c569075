"""Convolutions behind one function, so that models never choose a kernel; and frozen batch norms folded into them."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn import onednn
from vosformer.nn.depthwise import depthwise
from vosformer.nn.norm import FrozenBatchNorm2d
from vosformer.nn.onednn import Activation

M = TypeVar("M", bound=nn.Module)


def convolve(x: Tensor, conv: nn.Conv2d, activation: Activation = "none") -> Tensor:
    """``activation(conv(x))``: [B,C,h,w] -> [B,D,h',w']."""
    return _run(x, conv, conv.weight, conv.bias, activation)


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: FrozenBatchNorm2d, activation: Activation = "none") -> Tensor:
    """Convolution (without bias), frozen norm and activation in one.

    Scaling the weights is far cheaper than a pass over the map; in a model from `for_inference` it is done once.
    """
    if norm.folded is not None and norm.folded[0].dtype == x.dtype and not torch.is_grad_enabled():
        return _run(x, conv, *norm.folded, activation)
    scale, shift = norm.affine()
    weight = conv.weight * scale[:, None, None, None]
    if norm.constant and not torch.is_grad_enabled():
        weight = weight.contiguous(memory_format=torch.channels_last)
        norm.folded = (weight, shift)
    return _run(x, conv, weight, shift, activation)


def for_inference(model: M) -> M:
    """Make a model ready for inference: a copy that shares all weights, as they are now, and folds its frozen norms once.

    The weights must not change afterwards; make a new copy if they do. A model without frozen norms is returned as it is.
    """
    if not any(isinstance(module, FrozenBatchNorm2d) for module in model.modules()):
        return model
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    for module in twin.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.constant, module.folded = True, None
    return twin


def _run(x: Tensor, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    stride, dilation, groups = conv.stride, conv.dilation, conv.groups
    padding = (int(conv.padding[0]), int(conv.padding[1]))
    if onednn.serves(x):
        return onednn.convolution(x, weight, bias, stride, padding, dilation, groups, activation)
    if groups == conv.in_channels == conv.out_channels > 1:
        return onednn.activate(depthwise(x, weight, bias, stride[0], padding[0], dilation[0]), activation)
    return onednn.activate(F.conv2d(x, weight, bias, stride, padding, dilation, groups), activation)
