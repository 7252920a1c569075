"""A bank that remembers tokens instead of frames (OneVOS-D's dynamic memory, paper Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosformer.protocol import Layer


class Room(NamedTuple):
    """How much a layer may remember.

    Attributes:
        limit: c_l, the most tokens (Eq. 8).
        keep: the most tokens that stay when there is no room for a new frame's.
        keep_first: the tokens of the first and of the newest given frame stay besides.
    """

    limit: int
    keep: int
    keep_first: bool = True


class TokenBank:
    """The tokens that one layer remembers, at most `Room.limit`, each with the number of its frame.

    They lie in three sections: those of the first frame, which always stay; those of the newest given frame after it; all others by
    age. When a frame's tokens do not fit, of the others only those that received most attention stay; if that is not enough, the new
    frame's are cut in the same way.
    """

    def __init__(self) -> None:
        self._lengths: list[int] = []  # first, newest given, others; empty before the first frame
        self._storage: dict[str, Tensor] = {}

    @property
    def lengths(self) -> list[int]:
        """Tokens in each section."""
        return list(self._lengths)

    @property
    def tokens(self) -> int:
        """M, the number of remembered tokens."""
        return sum(self._lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of storage held, the unused part included."""
        return sum(t.numel() * t.element_size() for t in self._storage.values())

    def view(self) -> dict[str, Tensor]:
        """Name -> [S,M,C], and `frame`: int32 [S,M,1]; empty if nothing is remembered."""
        return {name: tensor[:, : self.tokens] for name, tensor in self._storage.items()} if self.tokens else {}

    def admit(self, layer: Layer, number: int, pinned: bool, room: Room, received: Layer) -> None:
        """Take in the tokens of a frame.

        Args:
            layer: name -> [S,n,C].
            number: of the frame.
            pinned: its masks were given.
            room: c_l and k.
            received: "bank" [S,M] and "last" [S,n], the attention that tokens received; if empty, the newest tokens are kept.
        """
        if not self.tokens:
            self._storage = {}
        if sum(self._lengths[:2]) > room.limit:
            self.shrink(room.limit)
        fresh = dict(layer)
        some = next(iter(layer.values()))
        fresh["frame"] = torch.full((*some.shape[:2], 1), number, dtype=torch.int32, device=some.device)
        begins = not self._lengths
        first, given, others = self._lengths or (0, 0, 0)
        if not room.keep_first:
            first, given, others, begins, pinned = 0, 0, first + given + others, False, False
        if pinned:
            others, given = others + given, 0  # an older given frame is one of the others from now on
        fresh = _best(fresh, room.limit - first - given, received.get("last"))
        count = fresh["frame"].shape[1]
        left = room.limit - first - given - count
        if others > left:
            wanted = min(room.keep, left)
            scores = received["bank"][:, first + given :] if "bank" in received else None
            rest = {name: tensor[:, first + given : self.tokens] for name, tensor in self._storage.items()}
            self._put(_best(rest, wanted, scores), first + given, room.limit)
            others = min(others, wanted)
        self._insert(fresh, first if pinned else first + given + others, first + given + others, room.limit)
        self._lengths = [count, 0, 0] if begins else [first, count, others] if pinned else [first, given, others + count]

    def shrink(self, limit: int) -> None:
        """Let the oldest of the other tokens go, then those of the given frame, then those of the first, until `limit` are left."""
        left, parts, start = limit, [], 0
        for section, length in enumerate(self._lengths):
            kept = min(length, left)
            begin = start + (length - kept if section == 2 else 0)
            parts.append((begin, begin + kept))
            left, start = left - kept, start + length
        self._storage = {n: torch.cat([t[:, a:b] for a, b in parts], 1) for n, t in self._storage.items()} if parts else {}
        self._lengths = [b - a for a, b in parts]

    def select(self, slots: list[int]) -> None:
        """Keep only these slots."""
        self._storage = {name: tensor[slots] for name, tensor in self._storage.items()}

    def clone(self) -> TokenBank:
        """Return a copy that shares nothing writable."""
        twin = TokenBank()
        twin._lengths = list(self._lengths)
        twin._storage = {name: tensor if tensor.requires_grad else tensor.clone() for name, tensor in self._storage.items()}
        return twin

    @staticmethod
    def restore(lengths: Sequence[int], layer: Layer) -> TokenBank:
        """Return the bank that had these `lengths` and this `view`."""
        bank = TokenBank()
        bank._lengths = list(lengths)
        bank._storage = {name: tensor.clone() for name, tensor in layer.items()}
        return bank

    def _insert(self, fresh: Layer, at: int, end: int, limit: int) -> None:
        """Put new tokens before position `at` of `end` held ones."""
        tail = {name: tensor[:, at:end].clone() for name, tensor in self._storage.items()} if at < end else {}
        self._put(fresh, at, limit)
        if tail:
            self._put(tail, at + fresh["frame"].shape[1], limit)

    def _put(self, layer: Layer, at: int, limit: int) -> None:
        """Write tokens to position `at`; whatever comes after them is forgotten. Under autograd new tensors are made."""
        length = next(iter(layer.values())).shape[1]
        graph = any(t.requires_grad for t in (*layer.values(), *self._storage.values()))
        for name, tensor in layer.items():
            old = self._storage.get(name)
            if graph:
                self._storage[name] = tensor if old is None else torch.cat([old[:, :at], tensor], 1)
                continue
            if old is None or at + length > old.shape[1]:
                grown = tensor.new_empty(tensor.shape[0], max(limit, at + length), *tensor.shape[2:])
                if old is not None:
                    grown[:, :at].copy_(old[:, :at])
                self._storage[name] = old = grown
            old[:, at : at + length].copy_(tensor)


def _best(layer: Layer, count: int, scores: Tensor | None) -> dict[str, Tensor]:
    """Return the `count` tokens with the highest scores [S,n], in their order; without scores the last ones."""
    length = next(iter(layer.values())).shape[1]
    if length <= count:
        return dict(layer)
    if count <= 0:
        return {name: tensor[:, :0] for name, tensor in layer.items()}
    if scores is None:
        return {name: tensor[:, length - count :].clone() for name, tensor in layer.items()}
    places = scores.topk(count, 1).indices.sort(1).values[..., None]
    return {name: tensor.gather(1, places.expand(-1, -1, tensor.shape[2])) for name, tensor in layer.items()}
