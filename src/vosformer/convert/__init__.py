"""Between the tensor names of the official checkpoints and ours: one adapter module a system.

An adapter module holds

- `from_official(state, model)`: official tensors -> ours, for that model; what the model has no use for is left out,
- `to_official(state, model)`: ours -> official,
- `OPTIONAL`: regular expressions of our tensors that a file may lack, since they follow from the architecture or are never used,
- `WRAPPED`: whether official files hold the tensors under "state_dict" (else: bare),
- `from_pretrained(state, model)`: an ImageNet, MAE or ConvMAE file -> those of our tensors that it can start.

They are also run on `meta` tensors (shapes only), so they must not look at values. Shapes are never judged here: whoever loads does.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from typing import Protocol, cast

from torch import Tensor, nn


class Adapter(Protocol):
    """What an adapter module offers."""

    OPTIONAL: tuple[str, ...]
    WRAPPED: bool

    def from_official(self, state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Official tensors -> ours."""
        ...

    def to_official(self, state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Our tensors -> official ones."""
        ...

    def from_pretrained(self, state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Return a pre-training file's tensors -> those of ours that it can start."""
        ...


@cache
def adapter(system: str) -> Adapter:
    """Return the adapter of a system; a system without one (your own) uses its own names in files."""
    name = f"vosformer.convert.{system}"
    if not system.isidentifier() or importlib.util.find_spec(name) is None:
        name = "vosformer.convert.same"
    return cast(Adapter, importlib.import_module(name))


def system_of(model: nn.Module) -> str:
    """Return the system that a model belongs to: the module of `vosformer.models` that defines its class."""
    return type(model).__module__.rpartition(".")[2]
