"""Convolutions that choose their kernel themselves, so that models never do."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn import onednn
from vosformer.nn.depthwise import depthwise
from vosformer.nn.onednn import Activation


class Conv2d(nn.Conv2d):
    """A convolution layer with the fastest kernel that there is for the device, the dtype and its shape."""

    def forward(self, input: Tensor, activation: Activation = "none", folded: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Compute ``activation(conv(input))``: [B,C,h,w] -> [B,D,h',w'].

        Args:
            input: the map.
            activation: applied to the result.
            folded: weight and bias to use instead of the layer's own: those with a norm in them (`FrozenBatchNorm2d`).
        """
        weight, bias = (self.weight, self.bias) if folded is None else folded
        stride, dilation, groups = self.stride, self.dilation, self.groups
        padding = (int(self.padding[0]), int(self.padding[1]))
        if onednn.serves(input):
            return onednn.convolution(input, weight, bias, stride, padding, dilation, groups, activation)
        if groups == self.in_channels == self.out_channels > 1:
            return onednn.activate(depthwise(input, weight, bias, stride[0], padding[0], dilation[0]), activation)
        return onednn.activate(F.conv2d(input, weight, bias, stride, padding, dilation, groups), activation)


class DepthwiseConv2d(Conv2d):
    """A depth-wise convolution layer that keeps the size of its map.

    Args:
        channels: C.
        kernel: side of the kernel, odd.
        bias: whether there is one.
    """

    def __init__(self, channels: int, kernel: int, bias: bool = True) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias)
