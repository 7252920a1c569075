"""Depth-wise convolutions whose gradients are quick on a CPU.

oneDNN has no optimized gradient for 5x5 or dilated depth-wise weights, nor for strided depth-wise inputs in bf16, and falls back to
reference loops that take as long as the rest of a small model's step. The same sums, cut into 3x3 dense pieces, take a tenth of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """Depth-wise 2-D convolution, the same as `F.conv2d` with as many groups as channels.

    Args:
        x: [B,C,h,w].
        weight: [C,1,k,k].
        bias: [C], or none.
        stride: of both axes, as all that follow.
        padding: zeros added on each side.
        dilation: distance of the kernel's positions.

    Returns:
        [B,C,h',w'].
    """
    plain = (weight.shape[-1] <= 3 and dilation == 1 and stride == 1) or x.device.type != "cpu"
    if plain or not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad):
        return F.conv2d(x, weight, bias, stride, padding, dilation, weight.shape[0])
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
    out: Tensor = _Depthwise.apply(x, weight, stride, padding, dilation)  # type: ignore[no-untyped-call]
    return out if bias is None else out + bias.to(out.dtype)[:, None, None]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = (stride, padding, dilation)
        return F.conv2d(x, weight, None, stride, padding, dilation, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        dx = _input_gradient(gradient, x, weight, *ctx.shape) if ctx.needs_input_grad[0] else None
        dw = _weight_gradient(gradient, x, weight, *ctx.shape) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None, None


def _input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    reach = dilation * (weight.shape[-1] - 1)
    if stride > 1:
        # A strided convolution is a plain one of which most results are thrown away: these have a gradient of zero.
        sides = [side + 2 * padding - reach for side in x.shape[-2:]]
        spread = torch.zeros(*gradient.shape[:2], *sides, dtype=gradient.dtype).to(memory_format=torch.channels_last)
        spread[:, :, ::stride, ::stride] = gradient
        gradient = spread
    # The transpose of a convolution is one with the kernel turned around.
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, reach - padding, dilation, weight.shape[0])


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    if dilation > 1 and stride == 1:
        x, gradient, padding = _undilated(gradient, x, weight.shape[-1], padding, dilation)
        dilation = 1
    if weight.shape[-1] == 5 and stride == 1 and dilation == 1:
        return _five(gradient, x, weight, padding)
    shape = ([stride] * 2, [padding] * 2, [dilation] * 2, False, [0, 0], weight.shape[0], [False, True, False])
    dw: Tensor = torch.ops.aten.convolution_backward(gradient, x, weight, None, *shape)[1]
    return dw


def _undilated(gradient: Tensor, x: Tensor, side: int, padding: int, dilation: int) -> tuple[Tensor, Tensor, int]:
    """Positions that lie `dilation` apart never meet their neighbors: each of the dilation^2 lattices is a map of its own."""
    height, width = gradient.shape[-2:]
    reach = dilation * (side - 1)
    down, right = -height % dilation, -width % dilation
    # Rows and columns that are only there to make all lattices the same size have a gradient of zero.
    wide = F.pad(
        x, (padding, reach - padding + right + width - x.shape[-1], padding, reach - padding + down + height - x.shape[-2])
    )
    return _lattices(wide, dilation), _lattices(F.pad(gradient, (0, right, 0, down)), dilation), 0


def _lattices(x: Tensor, step: int) -> Tensor:
    """[B,C,h,w] -> [step^2 * B, C, h/step, w/step]."""
    parts = [x[:, :, i::step, j::step] for i in range(step) for j in range(step)]
    return torch.cat(parts, 0).contiguous(memory_format=torch.channels_last)


def _five(gradient: Tensor, x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Return the 5x5 gradient as four 3x3 ones that share a row and a column."""
    wide = F.pad(x, (padding,) * 4)
    height, width = gradient.shape[-2:]
    whole = torch.empty_like(weight)
    for i in (0, 2):
        for j in (0, 2):
            part = wide[:, :, i : i + height + 2, j : j + width + 2].contiguous(memory_format=torch.channels_last)
            whole[:, :, i : i + 3, j : j + 3] = _weight_gradient(gradient, part, weight[:, :, :3, :3].contiguous(), 1, 0, 1)
    return whole
