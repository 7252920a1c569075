"""Banks that keep whole frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vosformer.memory.bank import StoredBank, select_slots, token_count
from vosformer.protocol import Layer, RememberedFrame

if TYPE_CHECKING:
    from typing_extensions import Self


class FrameBank(StoredBank):
    """The frames that one layer remembers, in storage that is allocated ahead and never re-concatenated.

    `add` copies a frame's tensors [S,n,C] in place; `view` gives [S,M,C] without copying. Under autograd the frames are kept as
    they are and concatenated on reading, so that gradients flow through them.

    Args:
        capacity: the most frames that it will hold at once; None = no bound is known, the storage doubles when it is full.
    """

    holds = "frames"

    def __init__(self, capacity: int | None) -> None:
        super().__init__()
        self._capacity = capacity
        self._frames: list[Layer] = []

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(t.numel() * t.element_size() for frame in self._frames for t in frame.values())

    def view(self) -> dict[str, Tensor]:
        if self._frames:
            return {name: torch.cat([frame[name] for frame in self._frames], 1) for name in self._frames[0]}
        return super().view()

    def add(self, layer: Layer, frame: RememberedFrame) -> None:
        """Remember one frame more. Every frame must bring the same names."""
        length = token_count(layer)
        if self._frames or any(t.requires_grad for t in layer.values()):
            self._frames.append(layer)
        else:
            start = self.tokens
            self._reserve(layer, start + length)
            for name, tensor in layer.items():
                self._storage[name][:, start : start + length].copy_(tensor)
        self._lengths.append(length)

    def drop(self, position: int) -> None:
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

    def limit(self, capacity: int) -> None:
        self._capacity = capacity
        if self._lengths and not self._frames:
            most = max(self.tokens, capacity * max(self._lengths))
            self._storage = {name: tensor[:, :most].clone() for name, tensor in self._storage.items()}

    def select(self, slots: list[int]) -> None:
        super().select(slots)
        self._frames = [select_slots(frame, slots) for frame in self._frames]

    def clone(self) -> Self:
        twin = super().clone()
        twin._frames = list(self._frames)
        return twin

    def frame_nbytes(self, layer: Layer) -> float:
        if not layer and self._lengths:
            layer = {name: tensor[:, -self._lengths[-1] :] for name, tensor in self.view().items()}
        return sum(t.numel() * t.element_size() for t in layer.values())

    def about(self) -> dict[str, Any]:
        return {"holds": self.holds, "lengths": self.lengths}

    def restore(self, layer: Layer, about: Mapping[str, Any]) -> None:
        start = 0
        for number, length in enumerate(about["lengths"]):
            part = {name: tensor[:, start : start + length] for name, tensor in layer.items()}
            self.add(part, RememberedFrame(number, False))
            start += length

    def _reserve(self, layer: Layer, tokens: int) -> None:
        held = next((tensor.shape[1] for tensor in self._storage.values()), 0)
        if tokens > held or not self._storage:
            self._grow(layer, held, max(tokens, self._capacity * token_count(layer) if self._capacity else 2 * held))
