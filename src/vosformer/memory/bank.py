"""What the banks of frames and the banks of tokens have in common: storage that is allocated ahead."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from torch import Tensor

from vosformer.protocol import Bank, Layer

if TYPE_CHECKING:
    from typing_extensions import Self


def select_slots(layer: Layer, slots: list[int]) -> dict[str, Tensor]:
    """Keep only these slots of a layer's tensors [S,...]."""
    return {name: tensor[slots] for name, tensor in layer.items()}


def token_count(layer: Layer) -> int:
    """Count the tokens n of a layer's tensors [S,n,C]; a layer without tensors has none."""
    return next((tensor.shape[1] for tensor in layer.values()), 0)


class StoredBank(Bank):
    """Named tensors [S,M,C] at the start of longer ones, in sections (of a bank of frames: one a frame)."""

    def __init__(self) -> None:
        self._lengths: list[int] = []
        self._storage: dict[str, Tensor] = {}

    @property
    def lengths(self) -> list[int]:
        return list(self._lengths)

    @property
    def tokens(self) -> int:
        """M, the number of remembered tokens."""
        return sum(self._lengths)

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self._storage.values())

    def view(self) -> dict[str, Tensor]:
        return {name: tensor[:, : self.tokens] for name, tensor in self._storage.items()} if self._lengths else {}

    def select(self, slots: list[int]) -> None:
        self._storage = select_slots(self._storage, slots)

    def clone(self) -> Self:
        twin = copy(self)
        twin._lengths = list(self._lengths)
        # Under autograd tensors are replaced, never written in place.
        twin._storage = {name: tensor if tensor.requires_grad else tensor.clone() for name, tensor in self._storage.items()}
        return twin

    def _grow(self, layer: Layer, kept: int, tokens: int) -> None:
        """Make room for `tokens` tokens of every tensor of a layer; the first `kept` stay."""
        for name, tensor in layer.items():
            old = self._storage.get(name)
            grown = tensor.new_empty(tensor.shape[0], tokens, *tensor.shape[2:])
            if old is not None:
                grown[:, :kept].copy_(old[:, :kept])
            self._storage[name] = grown
