"""A bank that remembers tokens instead of frames (OneVOS-D's dynamic memory, paper Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vosformer.memory.bank import StoredBank, token_count
from vosformer.memory.reference_bank import BankMessage
from vosformer.protocol import Layer, RememberedFrame


class TokenBank(StoredBank):
    """The tokens that one layer remembers, each with the number of its frame, at most c_l = r_l N capacity (Eq. 8).

    They lie in three sections: those of the first frame, which always stay; those of the newest given frame after it; all others by
    age. When a frame's tokens do not fit, of the others only those that received most attention stay; if that is not enough, the new
    frame's are cut in the same way. r_l N and the attention come with `inform`; without the latter the newest tokens are kept.

    Args:
        capacity: the paper's Cap, in frames.
        keep: the most tokens that stay when the bank is full.
        keep_first: the tokens of the first and of the newest given frame stay besides.
    """

    holds = "tokens"

    def __init__(self, capacity: int, keep: int, keep_first: bool = True) -> None:
        super().__init__()
        self._capacity = capacity
        self._keep = keep
        self._keep_first = keep_first
        self._message = BankMessage()

    def view(self) -> dict[str, Tensor]:
        """Name -> [S,M,C], and `frame`: int32 [S,M,1]; empty if nothing is remembered."""
        return super().view() if self.tokens else {}

    def inform(self, message: BankMessage | None) -> None:
        self._message = message or BankMessage(frame_tokens=self._message.frame_tokens)

    def add(self, layer: Layer, frame: RememberedFrame) -> None:
        message = self._message
        layer = message.reference or layer
        limit = self._limit(layer)
        if not self.tokens:
            self._storage = {}
        if sum(self._lengths[:2]) > limit:
            self._shrink(limit)
        pinned, begins = frame.pinned, not self._lengths
        first, given, others = self._lengths or (0, 0, 0)
        if not self._keep_first:
            first, given, others, begins, pinned = 0, 0, first + given + others, False, False
        if pinned:
            others, given = others + given, 0  # an older given frame is one of the others from now on
        fresh = _best(_numbered(layer, frame.number), limit - first - given, message.reference_usage)
        count = token_count(fresh)
        left = limit - first - given - count
        if others > left:
            stay = min(self._keep, left)
            usage = None if message.bank_usage is None else message.bank_usage[:, first + given :]
            rest = {name: tensor[:, first + given : self.tokens] for name, tensor in self._storage.items()}
            self._put(_best(rest, stay, usage), first + given, limit)
            others = min(others, stay)
        self._insert(fresh, first if pinned else first + given + others, first + given + others, limit)
        self._lengths = [count, 0, 0] if begins else [first, count, others] if pinned else [first, given, others + count]
        self._message = BankMessage(frame_tokens=message.frame_tokens)

    def drop(self, position: int) -> None:
        """Do nothing: tokens go by the attention that they receive, not with their frame."""

    def limit(self, capacity: int) -> None:
        self._capacity = capacity
        if self._message.frame_tokens is not None:
            self._shrink(self._limit({}))

    def needs_usage(self, layer: Layer) -> bool:
        return self._message.frame_tokens is not None and self.tokens + token_count(layer) > self._limit(layer)

    def frame_nbytes(self, layer: Layer) -> float:
        if self._message.frame_tokens is None:
            return sum(t.numel() * t.element_size() for t in layer.values())
        return sum(t[:, :1].numel() * t.element_size() for t in layer.values()) * self._message.frame_tokens

    def about(self) -> dict[str, Any]:
        return {"holds": self.holds, "lengths": self.lengths, "frame_tokens": self._message.frame_tokens}

    def restore(self, layer: Layer, about: Mapping[str, Any]) -> None:
        self._lengths = list(about["lengths"])
        self._storage = {name: tensor.clone() for name, tensor in layer.items()}
        self._message = BankMessage(frame_tokens=about["frame_tokens"])

    def _limit(self, layer: Layer) -> int:
        """Return c_l, the most tokens (Eq. 8)."""
        known = self._message.frame_tokens
        return round((token_count(layer) if known is None else known) * self._capacity)

    def _shrink(self, limit: int) -> None:
        """Let the oldest of the other tokens go, then those of the given frame, then those of the first, until `limit` are left."""
        left, parts, start = limit, [], 0
        for section, length in enumerate(self._lengths):
            kept = min(length, left)
            begin = start + (length - kept if section == 2 else 0)
            parts.append((begin, begin + kept))
            left, start = left - kept, start + length
        self._storage = {n: torch.cat([t[:, a:b] for a, b in parts], 1) for n, t in self._storage.items()} if parts else {}
        self._lengths = [b - a for a, b in parts]

    def _insert(self, fresh: Layer, at: int, end: int, limit: int) -> None:
        """Put new tokens before position `at` of `end` held ones."""
        tail = {name: tensor[:, at:end].clone() for name, tensor in self._storage.items()} if at < end else {}
        self._put(fresh, at, limit)
        if tail:
            self._put(tail, at + token_count(fresh), limit)

    def _put(self, layer: Layer, at: int, limit: int) -> None:
        """Write tokens to position `at`; whatever comes after them is forgotten. Under autograd new tensors are made."""
        end = at + token_count(layer)
        if any(t.requires_grad for t in (*layer.values(), *self._storage.values())):
            before = {name: [tensor[:, :at]] for name, tensor in self._storage.items()}
            self._storage = {name: torch.cat([*before.get(name, []), tensor], 1) for name, tensor in layer.items()}
            return
        if any(name not in self._storage or end > self._storage[name].shape[1] for name in layer):
            self._grow(layer, at, max(limit, end))
        for name, tensor in layer.items():
            self._storage[name][:, at:end].copy_(tensor)


def _numbered(layer: Layer, number: int) -> dict[str, Tensor]:
    """Add the number of their frame to tokens, as int32 [S,n,1] named `frame`."""
    some = next(iter(layer.values()))
    return {**layer, "frame": torch.full((*some.shape[:2], 1), number, dtype=torch.int32, device=some.device)}


def _best(layer: Layer, count: int, usage: Tensor | None) -> dict[str, Tensor]:
    """Return the `count` tokens that received most attention [S,n], in their order; where it is not known the last ones."""
    length = token_count(layer)
    if length <= count:
        return dict(layer)
    if count <= 0:
        return {name: tensor[:, :0] for name, tensor in layer.items()}
    if usage is None:
        return {name: tensor[:, length - count :].clone() for name, tensor in layer.items()}
    positions = usage.topk(count, 1).indices.sort(1).values[..., None]
    return {name: tensor.gather(1, positions.expand(-1, -1, tensor.shape[2])) for name, tensor in layer.items()}
