"""Memory policies: which frames stay, decided from metadata alone. A policy never sees a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

from vosformer.errors import InputError


class Frame(NamedTuple):
    """What a policy knows of a remembered frame: its number since the cohort began, and whether its masks were given."""

    number: int
    pinned: bool


class Plan(NamedTuple):
    """What to do when a frame has been written.

    Attributes:
        drop: positions in the bank that are let go first.
        bank: append the new frame, the one that was last until now, or nothing.
        replace_last: the new frame becomes the last frame (else the old one stays).
    """

    drop: tuple[int, ...] = ()
    bank: Literal["new", "last"] | None = None
    replace_last: bool = True


class Policy(Protocol):
    """Decides from metadata alone what a memory keeps."""

    @property
    def capacity(self) -> int | None:
        """The most frames that the bank can hold at once; None = no bound."""
        ...

    def plan(self, bank: Sequence[Frame], last: Frame | None, new: Frame) -> Plan:
        """What to do with `new`, given the frames in the bank (in the order of their arrival) and the last frame."""
        ...

    def limited(self, capacity: int) -> Policy:
        """The same policy with at most `capacity` frames (>= 1) in the bank."""
        ...


def oldest_to_drop(bank: Sequence[Frame], capacity: int) -> tuple[int, ...]:
    """The positions to let go so that one more frame fits: the oldest predicted ones, then the oldest given ones but the first."""
    excess = len(bank) + 1 - capacity
    if excess <= 0:
        return ()
    predicted = [i for i, frame in enumerate(bank) if not frame.pinned]
    given = [i for i, frame in enumerate(bank) if frame.pinned]
    order = predicted + given[1:] + given[:1]
    return tuple(sorted(order[:excess]))


@dataclass(frozen=True)
class GivenOnly:
    """Frames with given masks, nothing else (AOT-T, -S, -B; DeAOT-T, -S, -B).

    Bounded by `capacity`: when it is full, the oldest given frames but the very first make room.
    """

    capacity: int | None = 8

    def plan(self, bank: Sequence[Frame], last: Frame | None, new: Frame) -> Plan:
        if not new.pinned:
            return Plan()
        return Plan(oldest_to_drop(bank, self.capacity) if self.capacity else (), "new")

    def limited(self, capacity: int) -> GivenOnly:
        return replace(self, capacity=min(capacity, self.capacity or capacity))


@dataclass(frozen=True)
class EveryK:
    """Given frames, and each frame that is `gap` or more after the latest remembered one (AOT-L: gap 5 at test, 2 in training).

    The official code sets no bound (`capacity=None`); with one, the oldest predicted frames make room first.
    """

    gap: int = 5
    capacity: int | None = 8

    def plan(self, bank: Sequence[Frame], last: Frame | None, new: Frame) -> Plan:
        latest = max((frame.number for frame in bank), default=None)
        if not new.pinned and latest is not None and new.number - latest < self.gap:
            return Plan()
        return Plan(oldest_to_drop(bank, self.capacity) if self.capacity else (), "new")

    def limited(self, capacity: int) -> EveryK:
        return replace(self, capacity=min(capacity, self.capacity or capacity))


_BOUND_FRAMES = 8  # of the default policy: 40 frames of history at gap 5, as much as the papers' clips ever need


def named_policy(name: str, paper: Policy) -> Policy:
    """The policy of that name.

    Args:
        name: "paper" (as published; may be without bound), "default" (the same with at most 8 frames in the bank), "given-only"
            (frames with given masks), or "every-K" (also each K-th frame; at most 8).
        paper: the policy of the model's paper.

    Raises:
        InputError: there is no policy of that name.
    """
    if name == "paper":
        return paper
    if name == "default":
        return paper.limited(_BOUND_FRAMES)
    if name == "given-only":
        return GivenOnly(_BOUND_FRAMES)
    kind, _, gap = name.partition("-")
    if kind == "every" and gap.isdecimal() and int(gap) > 0:
        return EveryK(int(gap), _BOUND_FRAMES)
    raise InputError(f"there is no memory policy {name!r}; expected default, paper, given-only, or every-K such as every-5")
