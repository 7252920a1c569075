"""Objects: the user's integer ids on one side, channels in tensor slots on the other.

Objects that enter together share one memory: a cohort. A slot has K channels. A channel that was left is not given to another object,
since the memory still knows its old identity; a slot that everybody left is dropped with its memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from vosformer.memory import Memory
from vosformer.policy import Policy
from vosformer.protocol import Merging, ObjectMasks, VOSModel


class Given(NamedTuple):
    """What the user says about a frame.

    Attributes:
        labels: int32 [height,width] at source size, 0 where nothing is said.
        ids: the ids whose masks on this frame are exactly these; all others are left to the model.
    """

    labels: Tensor
    ids: tuple[int, ...]


@dataclass
class Cohort:
    """Slots that share the frames of one memory.

    Attributes:
        slots: for each slot the ids in its channels, in order; None = left and not to be used again. At most K a slot.
        memory: what these slots remember.
        began: number of the frame on which the cohort began.
    """

    memory: Memory
    began: int
    slots: list[list[int | None]] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        """The ids that live here, slot by slot."""
        return [i for slot in self.slots for i in slot if i is not None]

    def clone(self) -> Cohort:
        """Return a copy that can go its own way."""
        return Cohort(self.memory.clone(), self.began, [list(slot) for slot in self.slots])

    def to(self, device: torch.device) -> Cohort:
        """Return a copy on a device that can go its own way."""
        return Cohort(self.memory.to(device), self.began, [list(slot) for slot in self.slots])


def admit(cohorts: list[Cohort], newcomers: Sequence[int], model: VOSModel, policy: Policy, now: int) -> None:
    """Give each new id a channel: in free channels first where the system shares its memory, then in a new cohort."""
    waiting = list(newcomers)
    if model.shares_memory:
        for slot in (slot for cohort in cohorts for slot in cohort.slots):
            while waiting and len(slot) < model.slot_size:
                slot.append(waiting.pop(0))
    if waiting:
        size = model.slot_size
        slots: list[list[int | None]] = [list(waiting[i : i + size]) for i in range(0, len(waiting), size)]
        cohorts.append(Cohort(Memory(policy), now, slots))


def remove(cohorts: list[Cohort], gone: int) -> None:
    """Take an id out of its channel; slots and cohorts that are left empty are dropped."""
    for cohort in list(cohorts):
        for slot in cohort.slots:
            slot[:] = [None if i == gone else i for i in slot]
        kept = [s for s, slot in enumerate(cohort.slots) if any(i is not None for i in slot)]
        if not kept:
            cohorts.remove(cohort)
        elif len(kept) < len(cohort.slots):
            cohort.memory.select(kept)
            cohort.slots = [cohort.slots[s] for s in kept]


def all_ids(cohorts: Iterable[Cohort]) -> list[int]:
    """Return the ids of every cohort, in the order in which channels are merged."""
    return [i for cohort in cohorts for i in cohort.ids]


def hard_masks(cohort: Cohort, labels: Tensor, slot_size: int, given: bool) -> ObjectMasks:
    """Return the masks of a cohort out of a label map.

    Args:
        cohort: whose masks.
        labels: integers [H,W] at the network's size.
        slot_size: K.
        given: see `ObjectMasks`.
    """
    own = torch.zeros(len(cohort.slots), slot_size, *labels.shape, device=labels.device)
    for s, slot in enumerate(cohort.slots):
        for k, i in enumerate(slot):
            if i is not None:
                own[s, k] = labels == i
    others = (labels != 0).float() - own.sum(1, keepdim=True)
    return ObjectMasks(own, others, given)


def soft_masks(cohort: Cohort, probabilities: dict[int, Tensor], slot_size: int, given: bool) -> ObjectMasks:
    """Return the masks of a cohort out of the probabilities [H,W] of every id, at the network's size."""
    first = next(iter(probabilities.values()))
    total = torch.stack(tuple(probabilities.values())).sum(0)
    own = torch.zeros(len(cohort.slots), slot_size, *first.shape, device=first.device)
    for s, slot in enumerate(cohort.slots):
        for k, i in enumerate(slot):
            if i is not None:
                own[s, k] = probabilities[i]
    return ObjectMasks(own, total - own.sum(1, keepdim=True), given)


def merge_slots(slots: Sequence[Tensor], merging: Merging) -> Tensor:
    """Join the logits of slots that know nothing of each other; a softmax over the result gives the probabilities.

    The background is what every slot calls background: p_0 = prod_g p_g0. All probabilities are clamped to [clamp, 1 - clamp] and
    turned to log-odds. For slots of 10 this is what AOT and OneVOS do beyond 10 objects; for slots of one object it is the soft
    aggregation of STM, which the papers of SimVOS (its sec. 3.4) and JointFormer (Eq. 6; the released code uses odds) take over.

    Args:
        slots: tensors [B,1+k,...], background first.
        merging: the system's; says how far probabilities stay from 0 and 1, and whether a lone slot passes unchanged.

    Returns:
        [B,1+n,...], background first, then the objects slot by slot.
    """
    if len(slots) == 1 and not merging.lone_slot:
        return slots[0]
    probabilities = [logits.softmax(1) for logits in slots]
    background = probabilities[0][:, :1]
    for other in probabilities[1:]:
        background = background * other[:, :1]
    return torch.logit(torch.cat([background, *(p[:, 1:] for p in probabilities)], 1).clamp(merging.clamp, 1 - merging.clamp))
