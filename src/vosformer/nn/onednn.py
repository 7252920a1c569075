"""oneDNN kernels that PyTorch's own functions do not reach on a CPU, and when they may be used.

On AVX-512 processors of some makers `F.linear` in fp32 goes to MKL at half of oneDNN's rate, and a 1x1 `F.conv2d` leaves oneDNN
when there is one thread. The operators that torch.compile lowers to are always oneDNN, and fuse the activation. They know no
gradients, and are private: where this PyTorch lacks them, everything runs on the public functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vosformer.nn.graphs import making_graph

Activation = Literal["none", "relu", "relu6", "silu", "gelu"]

_FUSED: dict[str, tuple[str, list[float], str]] = {
    "none": ("none", [], ""),
    "relu": ("relu", [], ""),
    "relu6": ("hardtanh", [0.0, 6.0], ""),
    "silu": ("swish", [], ""),
    "gelu": ("gelu", [], "none"),  # the exact one
}
_switch: ContextVar[bool] = ContextVar("_switch", default=True)


@contextmanager
def reference_kernels() -> Iterator[None]:
    """Within this context everything runs on PyTorch's public functions: for counting FLOPs, for export, and for comparison."""
    token = _switch.set(False)
    try:
        yield
    finally:
        _switch.reset(token)


def serves(x: Tensor) -> bool:
    """Tell whether the fast kernels for inference on a CPU can take `x`."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and _switch.get()
        and not making_graph()
        and _available(x.dtype)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = "none") -> Tensor:
    """``activation(x @ weight.T + bias)`` for tensors that `serves` accepts: [...,C], [D,C], [D] -> [...,D]."""
    if not weight.t().is_contiguous():
        weight = weight.contiguous()
    # With other strides, oneDNN would take a thousand times as long.
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, *_FUSED[activation])
    return out


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    activation: Activation = "none",
) -> Tensor:
    """``activation(conv2d(x, weight, bias, ...))`` for tensors that `serves` accepts, channels_last in memory."""
    x = x.contiguous(memory_format=torch.channels_last)
    if x.shape[0] == 1:
        # PyTorch does not mind the stride of a single sample, but oneDNN takes ten times as long with a strange one.
        _, c, h, w = x.shape
        x = x.as_strided(x.shape, (h * w * c, 1, w * c, c))
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, *_FUSED[activation]
    )
    return out


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Return the activation alone; `x` may be overwritten."""
    if activation == "relu":
        return F.relu(x, inplace=True)
    if activation == "relu6":
        return F.relu6(x, inplace=True)
    if activation == "gelu":
        return F.gelu(x)
    return F.silu(x) if activation == "silu" else x


@cache
def _available(dtype: torch.dtype) -> bool:
    """Try both operators once, and look at what they give. In bfloat16 they need more of a processor than in float32 (AVX-512)."""
    try:
        with torch.inference_mode():
            x = torch.arange(8, dtype=dtype).view(1, 2, 2, 2)
            one = torch.ones(1, 2, dtype=dtype)
            row = torch.ops.mkldnn._linear_pointwise(x.view(4, 2), one, None, "swish", [], "")
            mapped = torch.ops.mkldnn._convolution_pointwise(
                x, one.view(1, 2, 1, 1), None, [0, 0], [1, 1], [1, 1], 1, "hardtanh", [0.0, 6.0], ""
            )
            expected = F.silu(x.view(4, 2).float().sum(1, keepdim=True)).to(dtype)
            return torch.allclose(row, expected, rtol=1e-2 if dtype is torch.bfloat16 else 1e-5) and torch.equal(
                mapped, x.sum(1, keepdim=True).clamp(0, 6)
            )
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False
