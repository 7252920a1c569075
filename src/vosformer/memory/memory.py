"""The memory of one cohort of slots: preallocated banks that a policy makes, fills and empties.

A policy decides by the numbers of frames and never sees a tensor; banks hold the tensors; `Memory` joins the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vosformer.errors import InputError
from vosformer.memory.bank import select_slots
from vosformer.protocol import Bank, Entry, Layer, Policy, RememberedFrame


class Memory:
    """What the slots of one cohort remember: per layer a bank and the last frame, and a recurrent token.

    Models read it through `MemoryView`; only `add` changes it.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.frames: list[RememberedFrame] = []
        self.last_frame: RememberedFrame | None = None
        self.token: Tensor | None = None
        self._banks: list[Bank] = []
        self._depths: list[int] = []  # of each frame in the bank: how many layers it was written with
        self._last: list[dict[str, Tensor]] = []
        self._written: tuple[Layer, ...] = ()  # the last frame's tensors that a bank may keep

    def bank(self, layer: int) -> dict[str, Tensor]:
        """Name -> [S,M,C] of the remembered frames in order of arrival; empty if there is none."""
        return self._banks[layer].view() if layer < len(self._banks) else {}

    def last(self, layer: int) -> dict[str, Tensor]:
        """Name -> [S,N,C] of the last frame (`Entry.layers` and `Entry.recent` together); empty if there is none."""
        return self._last[layer] if layer < len(self._last) else {}

    def references(self, layer: int) -> list[dict[str, Tensor]]:
        """Return the bank, and the last frame unless it is in the bank: all that is remembered, nothing twice."""
        parts = [self.bank(layer)]
        if self.last_frame is not None and self.last_frame not in self.frames:
            parts.append(self.last(layer))
        return [part for part in parts if part]

    def lengths(self, layer: int) -> list[int]:
        """Tokens of each section of a layer's bank; of a bank of frames: of each of `frames`."""
        return self._banks[layer].lengths if layer < len(self._banks) else []

    def needs_usage(self, layer: int) -> bool:
        """Tell whether the bank of a layer will have to choose among tokens next, by the attention that they receive now."""
        last = self.last_frame
        if last is None or layer >= len(self._banks) or not self._banks[layer].needs_usage(self.last(layer)):
            return False
        return self.policy.plan(self.frames, last, RememberedFrame(last.number + 1, False)).bank == "last"

    @property
    def nbytes(self) -> int:
        """Bytes held by the banks."""
        return sum(bank.nbytes for bank in self._banks)

    @property
    def frame_nbytes(self) -> int:
        """Bytes that one frame takes in the banks, judged by the newest one; 0 if there is none."""
        layers = self._written or ({},) * len(self._banks)
        return round(sum(bank.frame_nbytes(layer) for bank, layer in zip(self._banks, layers, strict=False)))

    def make_room(self, number: int, pinned: bool, own: bool = True) -> None:
        """Let the last frame go ahead of the `add` of its successor, where the policy will replace it.

        For systems whose `write` does not look at the memory: the old and the new frame are then never held together.
        """
        plan = self.policy.plan(self.frames, self.last_frame, RememberedFrame(number, pinned, own))
        if plan.replace_last and plan.bank != "last":
            self._last, self._written = [], ()

    def add(self, entry: Entry, number: int, pinned: bool, own: bool = True) -> None:
        """Take in what frame `number` left behind, as the policy decides; see `RememberedFrame` for the rest."""
        new = RememberedFrame(number, pinned, own)
        plan = self.policy.plan(self.frames, self.last_frame, new)
        while len(self._banks) < len(entry.layers):
            self._banks.append(self.policy.new_bank())
        for bank, message in zip(self._banks, entry.for_banks or (None,) * len(entry.layers), strict=False):
            bank.inform(message)
        for position in sorted(plan.drop, reverse=True):
            self._drop(position)
        if plan.bank == "new":
            self._append(entry.layers, new)
        elif plan.bank == "last" and self._written and self.last_frame is not None:
            self._append(self._written, self.last_frame)
        if plan.replace_last:
            self._set_last(entry, new)
        if entry.token is not None:
            self.token = entry.token

    def select(self, slots: list[int]) -> None:
        """Keep only these slots."""
        for bank in self._banks:
            bank.select(slots)
        self._last = [select_slots(layer, slots) for layer in self._last]
        self._written = tuple(select_slots(layer, slots) for layer in self._written)
        if self.token is not None:
            self.token = self.token[slots]

    def limit(self, capacity: int) -> None:
        """From now on keep at most `capacity` frames (>= 1) in the banks, and free the storage beyond."""
        if self.policy.capacity is not None and self.policy.capacity <= capacity:
            return
        self.policy = self.policy.limited(capacity)
        for position in reversed(self.policy.surplus(self.frames)):
            self._drop(position)
        for bank in self._banks:
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
        twin._written = self._written
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
        about = {
            "frames": self.frames,
            "last_frame": self.last_frame,
            "depths": self._depths,
            "banks": [bank.about() for bank in self._banks],
            "last": len(self._last),
            "written": [sorted(layer) for layer in self._written],
        }
        return tensors, about

    @staticmethod
    def restore(policy: Policy, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Memory:
        """Return the memory that `export` described, under a policy.

        Raises:
            InputError: the policy's banks do not hold what these did.
        """

        def layers(level: str, count: int) -> list[dict[str, Tensor]]:
            parts: list[dict[str, Tensor]] = [{} for _ in range(count)]
            for name, tensor in tensors.items():
                if name.startswith(f"{level}/"):
                    _, number, leaf = name.split("/", 2)
                    parts[int(number)][leaf] = tensor
            return parts

        memory = Memory(policy)
        memory.frames = [RememberedFrame(*frame) for frame in about["frames"]]
        memory.last_frame = None if about["last_frame"] is None else RememberedFrame(*about["last_frame"])
        memory.token = tensors.get("token")
        memory._depths = list(about["depths"])
        memory._last = layers("last", about["last"])
        kept = zip(memory._last, about["written"], strict=False)
        memory._written = tuple({name: layer[name] for name in names} for layer, names in kept)
        for known, layer in zip(about["banks"], layers("bank", len(about["banks"])), strict=True):
            bank = policy.new_bank()
            if bank.holds != known["holds"]:
                raise InputError(f"its memory holds {known['holds']}, and that of {policy} holds {bank.holds}")
            bank.restore(layer, known)
            memory._banks.append(bank)
        return memory

    def _append(self, layers: tuple[Layer, ...], frame: RememberedFrame) -> None:
        for bank, layer in zip(self._banks, layers, strict=False):
            bank.add(layer, frame)
        self.frames.append(frame)
        self._depths.append(len(layers))

    def _drop(self, position: int) -> None:
        depth = self._depths.pop(position)
        del self.frames[position]
        for layer, bank in enumerate(self._banks[:depth]):
            bank.drop(sum(earlier > layer for earlier in self._depths[:position]))

    def _set_last(self, entry: Entry, frame: RememberedFrame) -> None:
        recent = entry.recent or ({},) * len(entry.layers)
        fresh = [{**layer, **more} for layer, more in zip(entry.layers, recent, strict=True)]
        # Layers that were not run (AOST at a smaller depth) keep the last frame that they saw.
        self._last = fresh + self._last[len(fresh) :]
        self._written = entry.layers
        self.last_frame = frame
