"""What the frames of a training clip are read with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vosformer.memory import Memory
from vosformer.policy import FramePolicy, MemoryUpdate, RememberedFrame
from vosformer.protocol import Entry, Layer, VOSModel
from vosformer.train.batch import generator
from vosformer.train.recipe import Recipe


class ChosenFrames(FramePolicy):
    """Keeps every pinned frame in the bank; the last frame is the newest one, pinned or not."""

    capacity: int | None = None

    def plan(self, bank: Sequence[RememberedFrame], last: RememberedFrame | None, new: RememberedFrame) -> MemoryUpdate:
        return MemoryUpdate((), "new" if new.pinned else None)

    def limited(self, capacity: int) -> ChosenFrames:
        return self

    def for_training(self, gap: int | None) -> ChosenFrames:
        return self


class ClipMemory:
    """The memory of a batch in training, under the model's policy or made anew for each frame (JointFormer)."""

    def __init__(self, model: VOSModel, recipe: Recipe, step: int, clips: Tensor) -> None:
        self._model = model
        self._rollout = recipe.rollout
        self._entries: list[Entry] = []
        self._token: Tensor | None = None
        self._memory = Memory(model.policy.for_training(recipe.rollout.gap))
        # Whether the recurrent token is updated is drawn once for the whole batch, whoever computes parts of it; references for each
        # clip of its own (the released JointFormer).
        self._random = generator(recipe.run.seed, 3, step)
        self._own_random = [generator(recipe.run.seed, 4, int(clip)) for clip in clips.tolist()]

    def add(self, entry: Entry, number: int) -> None:
        """Take in a frame."""
        self._entries.append(entry)
        if entry.token is not None:
            self._token = entry.token
        if self._rollout.memory == "policy":
            self._memory.add(entry, number, pinned=number == 0)

    def penalty(self) -> Tensor | None:
        """Return what the model itself asks of what was remembered (OneVOS's DTS-Lr: a fixed share of tokens); most ask
        nothing.
        """
        found = [loss for loss in map(self._model.entry_loss, self._entries) if loss is not None]
        return torch.stack(found).mean() if found else None

    def updates(self, number: int) -> bool:
        """Tell whether the frame is written with the recurrent token."""
        share = self._rollout.update_probability
        return share >= 1 or bool(self._random.random() < share)

    def at(self, number: int) -> Memory:
        """Return what frame `number` is read with."""
        if self._rollout.memory == "policy":
            return self._memory
        chosen = [self._references(random, number) for random in self._own_random]
        count = len(chosen[0])
        memory = Memory(ChosenFrames())
        for position in range(count):
            memory.add(self._mixed([own[position] for own in chosen]), position, pinned=position < count - 1 or position == 0)
        memory.token = self._token
        return memory

    def _references(self, random: np.random.Generator, number: int) -> list[int]:
        """Return the frames that one clip's frame `number` is read with, ascending: the first one and random later ones."""
        if number <= self._rollout.references:
            return list(range(number))
        later = random.choice(number - 1, self._rollout.references - 1, replace=False) + 1
        return [0, *sorted(later.tolist())]

    def _mixed(self, numbers: list[int]) -> Entry:
        """Return what the frames of those numbers left, one for each clip: [S,...] of slots from the entries of their clips'
        frames.
        """
        if len(set(numbers)) == 1:
            return self._entries[numbers[0]]
        parts = [self._entries[number] for number in numbers]
        return Entry(_joined([part.layers for part in parts]), _joined([part.recent for part in parts]))


def _joined(entries: list[tuple[Layer, ...]]) -> tuple[Layer, ...]:
    """Layers of one entry for each clip -> layers in which every clip's slots are those of its own entry."""
    return tuple(
        {name: torch.cat([entry[i][name].chunk(len(entries))[clip] for clip, entry in enumerate(entries)]) for name in layer}
        for i, layer in enumerate(entries[0])
    )
