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
        if name in ("last_valid", "token", "index") or tensor.dim() < 3:
            found[name] = {}
        elif tensor.dim() == 4:
            found[name] = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
        else:
            found[name] = {1: Dim.DYNAMIC}
    return found
