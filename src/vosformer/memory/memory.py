"""The memory of one cohort of slots: preallocated banks that a policy (`policy.py`) fills and empties.

A bank never sees a frame number, a policy never sees a tensor; `Memory` joins the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vosformer.errors import InputError
from vosformer.memory.frame_bank import LayerBank, select_slots
from vosformer.memory.token_bank import Room, TokenBank
from vosformer.policy import DynamicTokens, Policy, RememberedFrame, oldest_to_drop
from vosformer.protocol import Entry, Layer


class Memory:
    """What the slots of one cohort remember: per layer a bank and the last frame, and a recurrent token.

    Models read it through `bank`, `last` and `token`; only `add` changes it.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.frames: list[RememberedFrame] = []
        self.last_frame: RememberedFrame | None = None
        self.token: Tensor | None = None
        self._banks: list[LayerBank | TokenBank] = []
        self._depths: list[int] = []  # of each frame in the bank: how many layers it was written with
        self._last: list[dict[str, Tensor]] = []
        self._last_entry: Entry | None = None
        self._quota: tuple[float, ...] = ()

    def bank(self, layer: int) -> dict[str, Tensor]:
        """Name -> [S,M,C] of the remembered frames in order of arrival; empty if there is none."""
        return self._banks[layer].view() if layer < len(self._banks) else {}

    def last(self, layer: int) -> dict[str, Tensor]:
        """Name -> [S,N,C] of the last frame (`Entry.layers` and `Entry.recent` together); empty if there is none."""
        return self._last[layer] if layer < len(self._last) else {}

    def references(self, layer: int) -> list[dict[str, Tensor]]:
        """Return the bank, and the last frame unless it is in the bank: all that is remembered, nothing twice."""
        found = [self.bank(layer)]
        if self.last_frame is not None and self.last_frame not in self.frames:
            found.append(self.last(layer))
        return [part for part in found if part]

    def lengths(self, layer: int) -> list[int]:
        """Tokens of each of `frames` in the bank of a layer."""
        return self._banks[layer].lengths if layer < len(self._banks) else []

    @property
    def nbytes(self) -> int:
        """Bytes held by the banks."""
        return sum(bank.nbytes for bank in self._banks)

    def make_room(self, number: int, pinned: bool, own: bool = True) -> None:
        """Let the last frame go ahead of the `add` of its successor, where the policy will replace it.

        For systems whose `write` does not look at the memory: the old and the new frame are then never held together.
        """
        plan = self.policy.plan(self.frames, self.last_frame, RememberedFrame(number, pinned, own))
        if plan.replace_last and plan.bank != "last":
            self._last, self._last_entry = [], None

    def add(self, entry: Entry, number: int, pinned: bool, own: bool = True) -> None:
        """Take in what frame `number` left behind, as the policy decides; see `RememberedFrame` for the rest."""
        new = RememberedFrame(number, pinned, own)
        self._quota = entry.quota or self._quota
        plan = self.policy.plan(self.frames, self.last_frame, new)
        for position in sorted(plan.drop, reverse=True):
            self._drop(position)
        if plan.bank == "new":
            self._append(entry.layers, new, ())
        elif plan.bank == "last" and self._last_entry is not None and self.last_frame is not None:
            self._append(entry.previous or self._last_entry.layers, self.last_frame, entry.received)
        if plan.replace_last:
            self._set_last(entry, new)
        if entry.token is not None:
            self.token = entry.token

    def ranks(self, layer: int) -> bool:
        """Tell whether the next `add` will have to choose among the tokens of a layer, by the attention that they receive
        until then.
        """
        room, last = self._room(layer), self.last_frame
        if room is None or last is None:
            return False
        if self.policy.plan(self.frames, last, RememberedFrame(last.number + 1, False)).bank != "last":
            return False
        held = self._banks[layer].tokens if layer < len(self._banks) else 0
        return held + next(iter(self.last(layer).values())).shape[1] > room.limit

    def select(self, slots: list[int]) -> None:
        """Keep only these slots."""
        for bank in self._banks:
            bank.select(slots)
        self._last = [select_slots(layer, slots) for layer in self._last]
        if self._last_entry is not None:
            layers = tuple(select_slots(layer, slots) for layer in self._last_entry.layers)
            self._last_entry = self._last_entry._replace(layers=layers)
        if self.token is not None:
            self.token = self.token[slots]

    @property
    def frame_nbytes(self) -> int:
        """Bytes that one frame takes in the banks, judged by the newest one; 0 if there is none."""
        if self._last_entry is not None:
            layers: tuple[Layer, ...] = self._last_entry.layers
        else:  # policies that remember frames at once
            layers = tuple(bank.newest() for bank in self._banks if isinstance(bank, LayerBank))
        if self._by_token and self._quota:
            token_bytes = [sum(t[:, :1].numel() * t.element_size() for t in layer.values()) for layer in layers]
            return round(sum(each * quota for each, quota in zip(token_bytes, self._quota, strict=True)))
        return sum(t.numel() * t.element_size() for layer in layers for t in layer.values())

    def limit(self, capacity: int) -> None:
        """From now on keep at most `capacity` frames (>= 1) in the banks, and free the storage beyond."""
        if self.policy.capacity is not None and self.policy.capacity <= capacity:
            return
        self.policy = self.policy.limited(capacity)
        for layer, bank in enumerate(self._banks):
            room = self._room(layer)
            if isinstance(bank, TokenBank) and room is not None:
                bank.shrink(room.limit)
        if self._by_token:
            return
        for position in reversed(oldest_to_drop(self.frames, capacity + 1)):
            self._drop(position)
        for bank in self._banks:
            if isinstance(bank, LayerBank):
                bank.limit(capacity)

    def clone(self) -> Memory:
        """Return a copy that can go its own way; tensors that are never written in place are shared."""
        twin = Memory(self.policy)
        twin.frames = list(self.frames)
        twin.last_frame = self.last_frame
        twin.token = self.token
        twin._banks = [bank.clone() for bank in self._banks]
        twin._depths = list(self._depths)
        twin._last = list(self._last)
        twin._last_entry = self._last_entry
        twin._quota = self._quota
        return twin

    def to(self, device: torch.device) -> Memory:
        """Return a copy on a device that can go its own way."""
        tensors, about = self.export()
        return Memory.restore(self.policy, {name: tensor.to(device) for name, tensor in tensors.items()}, about)

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that is remembered as named tensors and plain values, for `restore`."""
        tensors: dict[str, Tensor] = {} if self.token is None else {"token": self.token}
        for level, layers in (("bank", [bank.view() for bank in self._banks]), ("last", self._last)):
            for number, layer in enumerate(layers):
                tensors.update({f"{level}/{number}/{name}": tensor for name, tensor in layer.items()})
        entry = self._last_entry
        about = {
            "frames": self.frames,
            "last_frame": self.last_frame,
            "depths": self._depths,
            "lengths": [bank.lengths for bank in self._banks],
            "last": len(self._last),
            "entry": None if entry is None else [sorted(layer) for layer in entry.layers],
            "quota": self._quota,
            "by_token": self._by_token,
        }
        return tensors, about

    @staticmethod
    def restore(policy: Policy, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Memory:
        """Return the memory that `export` described, under a policy."""

        def layers(level: str, count: int) -> list[dict[str, Tensor]]:
            found: list[dict[str, Tensor]] = [{} for _ in range(count)]
            for name, tensor in tensors.items():
                if name.startswith(f"{level}/"):
                    _, number, leaf = name.split("/", 2)
                    found[int(number)][leaf] = tensor
            return found

        memory = Memory(policy)
        if about["by_token"] != memory._by_token:
            raise InputError(f"it was remembered by {'tokens' if about['by_token'] else 'frames'}, which {policy} does not do")
        memory._quota = tuple(about["quota"])
        memory.frames = [RememberedFrame(*frame) for frame in about["frames"]]
        memory.last_frame = None if about["last_frame"] is None else RememberedFrame(*about["last_frame"])
        memory.token = tensors.get("token")
        memory._depths = list(about["depths"])
        memory._last = layers("last", about["last"])
        if about["entry"] is not None:
            kept = zip(memory._last, about["entry"], strict=False)
            memory._last_entry = Entry(tuple({name: layer[name] for name in names} for layer, names in kept))
        for lengths, layer in zip(about["lengths"], layers("bank", len(about["lengths"])), strict=True):
            if memory._by_token:
                memory._banks.append(TokenBank.restore(lengths, layer))
                continue
            bank = LayerBank(policy.capacity)
            start = 0
            for length in lengths:
                bank.append({name: tensor[:, start : start + length] for name, tensor in layer.items()})
                start += length
            memory._banks.append(bank)
        return memory

    @property
    def _by_token(self) -> bool:
        """Whether the banks keep tokens, not frames."""
        return isinstance(self.policy, DynamicTokens) and self.policy.capacity is not None

    def _room(self, layer: int) -> Room | None:
        """Return how much a layer may remember where that is counted in tokens (c_l = r_l N Cap); else None."""
        policy = self.policy
        if not isinstance(policy, DynamicTokens) or policy.capacity is None or not self._quota:
            return None
        return Room(round(self._quota[layer] * policy.capacity), policy.keep, policy.keep_first)

    def _append(self, layers: tuple[Layer, ...], frame: RememberedFrame, received: tuple[Layer, ...]) -> None:
        while len(self._banks) < len(layers):
            self._banks.append(TokenBank() if self._by_token else LayerBank(self.policy.capacity))
        for i, (bank, layer) in enumerate(zip(self._banks, layers, strict=False)):
            if isinstance(bank, LayerBank):
                bank.append(layer)
            else:
                length = next(iter(layer.values())).shape[1]
                room = self._room(i) or Room(length * (self.policy.capacity or 1), length)
                bank.admit(layer, frame.number, frame.pinned, room, received[i] if received else {})
        self.frames.append(frame)
        self._depths.append(len(layers))
        if self._by_token:
            # Which of the later frames still have tokens is not told; the list only has to stay short.
            del self.frames[1 : -(self.policy.capacity or 1)], self._depths[1 : -(self.policy.capacity or 1)]

    def _drop(self, position: int) -> None:
        depth = self._depths.pop(position)
        del self.frames[position]
        for layer, bank in enumerate(self._banks[:depth]):
            assert isinstance(bank, LayerBank)
            bank.drop(sum(earlier > layer for earlier in self._depths[:position]))

    def _set_last(self, entry: Entry, frame: RememberedFrame) -> None:
        recent = entry.recent or ({},) * len(entry.layers)
        fresh = [{**layer, **more} for layer, more in zip(entry.layers, recent, strict=True)]
        # Layers that were not run (AOST at a smaller depth) keep the last frame that they saw.
        self._last = fresh + self._last[len(fresh) :]
        self._last_entry = entry
        self.last_frame = frame
