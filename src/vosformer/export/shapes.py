"""Which axes of a graph's inputs may vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.export import Dim


class Free(NamedTuple):
    """What may differ from call to call.

    Attributes:
        size: height, width and the numbers of tokens that follow from them.
        bank: the number of tokens in the bank.
    """

    size: bool
    bank: bool


def axes(inputs: Mapping[str, Tensor], free: Free) -> dict[str, dict[int, Any]] | None:
    """Return for each input the axes that may vary; None if none of them does."""
    found: dict[str, dict[int, Any]] = {}
    for name, tensor in inputs.items():
        sides = (2, 3) if tensor.dim() == 4 else (1,) if tensor.dim() == 3 else ()
        varies = free.bank if name.startswith(("bank/", "valid")) else free.size
        found[name] = {axis: Dim.DYNAMIC for axis in sides if varies and tensor.shape[axis] > 1}
    return found if any(found.values()) else None
