"""A bank that keeps whole frames."""

from __future__ import annotations

import torch
from torch import Tensor

from vosformer.protocol import Layer


def select_slots(layer: Layer, slots: list[int]) -> dict[str, Tensor]:
    return {name: tensor[slots] for name, tensor in layer.items()}


class LayerBank:
    """The tokens that one layer remembers, in storage that is allocated ahead and never re-concatenated.

    `append` copies a frame's tensors [S,n,C] in place; `view` gives [S,M,C] without copying. Under autograd the frames are kept as
    they are and concatenated on reading, so that gradients flow through them.
    """

    def __init__(self, capacity: int | None) -> None:
        self._capacity = capacity
        self._lengths: list[int] = []
        self._storage: dict[str, Tensor] = {}
        self._frames: list[Layer] = []

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each remembered frame, in order of arrival."""
        return list(self._lengths)

    @property
    def tokens(self) -> int:
        """M, the number of remembered tokens."""
        return sum(self._lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of storage held, the unused part included."""
        held = [*self._storage.values(), *(t for frame in self._frames for t in frame.values())]
        return sum(t.numel() * t.element_size() for t in held)

    def append(self, layer: Layer) -> None:
        """Remember one frame more. Every frame must bring the same names."""
        length = next(iter(layer.values())).shape[1]
        if self._frames or any(t.requires_grad for t in layer.values()):
            self._frames.append(layer)
        else:
            start = self.tokens
            self._reserve(layer, start + length)
            for name, tensor in layer.items():
                self._storage[name][:, start : start + length].copy_(tensor)
        self._lengths.append(length)

    def drop(self, position: int) -> None:
        """Forget the frame at `position`; the later ones move up."""
        length = self._lengths.pop(position)
        if self._frames:
            del self._frames[position]
            return
        start = sum(self._lengths[:position])
        end = self.tokens if length else start
        for tensor in self._storage.values():
            # Overlapping copies go one frame at a time, towards the front.
            for at in range(start, end, max(length, 1)):
                stop = min(at + length, end)
                tensor[:, at:stop].copy_(tensor[:, at + length : stop + length])

    def view(self) -> dict[str, Tensor]:
        """Name -> [S,M,C]; empty if nothing is remembered."""
        if self._frames:
            return {name: torch.cat([frame[name] for frame in self._frames], 1) for name in self._frames[0]}
        if not self._lengths:
            return {}
        return {name: tensor[:, : self.tokens] for name, tensor in self._storage.items()}

    def newest(self) -> Layer:
        """Name -> [S,n,C] of the frame that came last; empty if nothing is remembered."""
        if not self._lengths:
            return {}
        return {name: tensor[:, -self._lengths[-1] :] for name, tensor in self.view().items()}

    def select(self, slots: list[int]) -> None:
        """Keep only these slots."""
        self._storage = {name: tensor[slots] for name, tensor in self._storage.items()}
        self._frames = [select_slots(frame, slots) for frame in self._frames]

    def limit(self, capacity: int) -> None:
        """Reserve storage for no more than `capacity` frames."""
        self._capacity = capacity
        if self._lengths and not self._frames:
            wanted = max(self.tokens, capacity * max(self._lengths))
            self._storage = {name: tensor[:, :wanted].clone() for name, tensor in self._storage.items()}

    def clone(self) -> LayerBank:
        """Return a copy that shares nothing writable."""
        twin = LayerBank(self._capacity)
        twin._lengths = list(self._lengths)
        twin._storage = {name: tensor.clone() for name, tensor in self._storage.items()}
        twin._frames = list(self._frames)
        return twin

    def _reserve(self, layer: Layer, tokens: int) -> None:
        held = next(iter(self._storage.values())).shape[1] if self._storage else 0
        if tokens <= held and self._storage:
            return
        length = next(iter(layer.values())).shape[1]
        wanted = max(tokens, self._capacity * length if self._capacity else 2 * held)
        for name, tensor in layer.items():
            grown = tensor.new_empty(tensor.shape[0], wanted, *tensor.shape[2:])
            if held:
                grown[:, :held].copy_(self._storage[name])
            self._storage[name] = grown
