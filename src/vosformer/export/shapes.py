"""Which axes of a graph's inputs may vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.export import Dim


def axes(inputs: Mapping[str, Tensor], dynamic: bool) -> dict[str, dict[int, Any]] | None:
    """Return for each input the axes that may vary: none of them, or height, width, and numbers of tokens."""
    if not dynamic:
        return None
    found: dict[str, dict[int, Any]] = {}
    for name, tensor in inputs.items():
        sides = (2, 3) if tensor.dim() == 4 else (1,) if tensor.dim() == 3 else ()
        found[name] = {axis: Dim.DYNAMIC for axis in sides if tensor.shape[axis] > 1}
    return found
