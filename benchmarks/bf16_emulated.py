"""Run a vosformer command in bf16 on a CPU that has no bf16 units, as one that has them would compute it.

    python benchmarks/bf16_emulated.py demo --dtype bf16

There PyTorch computes convolutions and products of bf16 values by loops of its own, some thirty times slower than in fp32. Units for
bf16 multiply bf16 values, add in fp32 and round the sums to bf16: that is done here, with fp32's fast kernels. Everything else is
bf16 as it is. It shows what masks bf16 gives, not how fast it is.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from vosformer.cli import main

_ATEN = torch.ops.aten
_PRODUCTS = {
    _ATEN.conv2d.default,
    _ATEN.conv2d.padding,
    _ATEN._convolution.default,
    _ATEN.convolution.default,
    _ATEN.linear.default,
    _ATEN.matmul.default,
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN.baddbmm.default,
    _ATEN.scaled_dot_product_attention.default,
}


def _cast(value: Any, source: torch.dtype, target: torch.dtype) -> Any:
    return value.to(target) if isinstance(value, torch.Tensor) and value.dtype == source else value


class Bf16Units(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Products of bf16 values, summed in fp32 and rounded to bf16."""

    products = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute one operation."""
        kwargs = kwargs or {}
        if func not in _PRODUCTS or not any(isinstance(a, torch.Tensor) and a.dtype == torch.bfloat16 for a in args):
            return func(*args, **kwargs)
        self.products += 1
        wide_args, wide_kwargs = tree_map(lambda value: _cast(value, torch.bfloat16, torch.float32), (args, dict(kwargs)))
        out = func(*wide_args, **wide_kwargs)
        return tree_map(lambda value: _cast(value, torch.float32, torch.bfloat16), out)


if __name__ == "__main__":
    with Bf16Units() as units:  # type: ignore[no-untyped-call]
        code = main(sys.argv[1:])
    print(f"{units.products} operations multiplied bf16 values")
    sys.exit(code)
