"""Memory policies: which frames stay, decided from metadata alone. A policy makes the banks, and never sees a tensor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vosformer.errors import InputError
from vosformer.memory.frame_bank import FrameBank
from vosformer.memory.reference_bank import ReferenceBank
from vosformer.memory.token_bank import TokenBank
from vosformer.protocol import Bank, MemoryUpdate, Policy, RememberedFrame

__all__ = [
    "DynamicTokens",
    "EveryK",
    "FirstAndPrevious",
    "FramePolicy",
    "GivenOnly",
    "MemoryUpdate",
    "OneVOSQueue",
    "Policy",
    "Queue",
    "RememberedFrame",
    "named_policy",
    "oldest_to_drop",
]


class FramePolicy(Policy):
    """A policy whose banks keep whole frames; the base of those below, and of anybody's own."""

    def surplus(self, bank: Sequence[RememberedFrame]) -> tuple[int, ...]:
        return () if self.capacity is None else oldest_to_drop(bank, self.capacity + 1)

    def new_bank(self) -> Bank:
        return FrameBank(self.capacity)


def oldest_to_drop(bank: Sequence[RememberedFrame], capacity: int) -> tuple[int, ...]:
    """Return the positions to let go so that one more frame fits: the oldest predicted ones, then the oldest given ones but
    the first.
    """
    excess = len(bank) + 1 - capacity
    if excess <= 0:
        return ()
    predicted = [i for i, frame in enumerate(bank) if not frame.pinned]
    given = [i for i, frame in enumerate(bank) if frame.pinned]
    order = predicted + given[1:] + given[:1]
    return tuple(sorted(order[:excess]))


@dataclass(frozen=True)
class GivenOnly(FramePolicy):
    """Frames with given masks, nothing else (AOT-T, -S, -B; DeAOT-T, -S, -B).

    Bounded by `capacity`: when it is full, the oldest given frames but the very first make room.
    """

    capacity: int | None = 8

    def plan(self, bank: Sequence[RememberedFrame], last: RememberedFrame | None, new: RememberedFrame) -> MemoryUpdate:
        if not new.pinned:
            return MemoryUpdate()
        return MemoryUpdate(oldest_to_drop(bank, self.capacity) if self.capacity else (), "new")

    def limited(self, capacity: int) -> GivenOnly:
        return replace(self, capacity=min(capacity, self.capacity or capacity))

    def for_training(self, gap: int | None) -> GivenOnly:
        return replace(self, capacity=None)


@dataclass(frozen=True)
class EveryK(FramePolicy):
    """Given frames, and each frame that is `gap` or more after the latest remembered one (AOT-L: gap 5 at test, 2 in training).

    The official code sets no bound (`capacity=None`); with one, the oldest predicted frames make room first.
    """

    gap: int = 5
    capacity: int | None = 8

    def plan(self, bank: Sequence[RememberedFrame], last: RememberedFrame | None, new: RememberedFrame) -> MemoryUpdate:
        latest = max((frame.number for frame in bank), default=None)
        if not new.pinned and latest is not None and new.number - latest < self.gap:
            return MemoryUpdate()
        return MemoryUpdate(oldest_to_drop(bank, self.capacity) if self.capacity else (), "new")

    def limited(self, capacity: int) -> EveryK:
        return replace(self, capacity=min(capacity, self.capacity or capacity))

    def for_training(self, gap: int | None) -> EveryK:
        return replace(self, gap=self.gap if gap is None else gap, capacity=None)


@dataclass(frozen=True)
class FirstAndPrevious(FramePolicy):
    """The frame an object was given on, and the previous frame (SimVOS; JointFormer on DAVIS and VISOR).

    A frame with given masks is the previous frame of the next one, like any other; of the frames on which these objects were given
    the first and the latest `capacity` - 1 stay in the bank. Frames on which only others were given do not, as in the official code.
    """

    capacity: int | None = 1

    def plan(self, bank: Sequence[RememberedFrame], last: RememberedFrame | None, new: RememberedFrame) -> MemoryUpdate:
        if not bank:
            return MemoryUpdate((), "new", replace_last=False)
        if not (new.pinned and new.own) or self.capacity == 1:
            return MemoryUpdate()
        return MemoryUpdate(first_in_first_out(bank, self.capacity), "new")

    def limited(self, capacity: int) -> FirstAndPrevious:
        return replace(self, capacity=min(capacity, self.capacity or capacity))

    def for_training(self, gap: int | None) -> FirstAndPrevious:
        return replace(self, capacity=None)


@dataclass(frozen=True)
class Queue(FramePolicy):
    """JointFormer on longer videos: the first frame, and a queue of given frames and of each frame `gap` or more after the latest.

    All in all `capacity` frames, besides the last frame that did not enter the queue: on a frame that does, the last one is *not*
    replaced, so that the next frame is read with the frame before.
    """

    gap: int = 5
    capacity: int | None = 3

    def plan(self, bank: Sequence[RememberedFrame], last: RememberedFrame | None, new: RememberedFrame) -> MemoryUpdate:
        if bank and (self.capacity == 1 or (not new.pinned and new.number - bank[-1].number < self.gap)):
            return MemoryUpdate()
        return MemoryUpdate(first_in_first_out(bank, self.capacity), "new", replace_last=False)

    def limited(self, capacity: int) -> Policy:
        return replace(self, capacity=min(capacity, self.capacity or capacity))

    def for_training(self, gap: int | None) -> Policy:
        return replace(self, gap=self.gap if gap is None else gap, capacity=None)


def first_in_first_out(bank: Sequence[RememberedFrame], capacity: int | None) -> tuple[int, ...]:
    """Return the positions to let go so that one more frame fits: the oldest ones, but never the first (unless there is no
    other).
    """
    excess = 0 if capacity is None else len(bank) + 1 - capacity
    return tuple(range(1, len(bank)))[:excess] if excess > 0 else ()


@dataclass(frozen=True)
class OneVOSQueue(FramePolicy):
    """OneVOS: the bank lags one frame. A frame enters when it stops being the reference: the first one, given ones, every `gap`-th.

    When `cap` frames are there, those that stay are: the given frames after the first (if there are none, the first), and the last
    `cap` - 1 of [given frames after the first, newest first; the first; all others by age]. So the bank holds `cap` + 1 frames, and
    one more for each given frame after the second. The official code keeps a frame that is both twice; here it is kept once.

    Attributes:
        gap: frames between two remembered ones.
        cap: the paper's Cap.
        capacity: an upper bound on the frames in the bank; None = none but the above.
    """

    gap: int = 10
    cap: int = 5
    capacity: int | None = None

    def __post_init__(self) -> None:
        if self.gap < 1 or self.cap < 1:
            raise InputError(f"a OneVOS memory has gap {self.gap} and cap {self.cap}; both must be at least 1")

    def plan(self, bank: Sequence[RememberedFrame], last: RememberedFrame | None, new: RememberedFrame) -> MemoryUpdate:
        if last is None or not (not bank or last.pinned or last.number % self.gap == 0):
            return MemoryUpdate()
        dropped: set[int] = set()
        if len(bank) >= self.cap:
            given = sorted((i for i, frame in enumerate(bank) if frame.pinned and frame.number > 0), reverse=True)
            order = given + [i for i in range(len(bank)) if i not in given]
            dropped = set(order[max(len(given), 1) : max(len(bank) - self.cap + 1, 0)])
        if self.capacity is not None:
            left = [i for i in range(len(bank)) if i not in dropped]
            dropped |= {left[i] for i in oldest_to_drop([bank[i] for i in left], self.capacity)}
        return MemoryUpdate(tuple(sorted(dropped)), "last")

    def new_bank(self) -> Bank:
        return ReferenceBank(self.capacity)

    def limited(self, capacity: int) -> OneVOSQueue:
        return replace(self, capacity=min(capacity, self.capacity or capacity))

    def for_training(self, gap: int | None) -> OneVOSQueue:
        return replace(self, gap=self.gap if gap is None else gap, capacity=None, cap=1 << 20)


@dataclass(frozen=True)
class DynamicTokens(FramePolicy):
    """OneVOS-D: what enters and when is as in `OneVOSQueue`, but each layer keeps tokens, not frames (paper Sec. 3.3, Eq. 8).

    A layer's memory is full at ``r_l N capacity`` tokens. Then at most `keep` tokens stay, those that received most attention,
    besides those of the first and of the newest given frame; after that it fills up again.

    Attributes:
        gap: frames between two remembered ones.
        capacity: the paper's Cap; None = tokens are never let go.
        keep: most tokens that stay when a layer is full.
        keep_first: the tokens of the first frame and of the newest given one stay besides; False: they compete with all others, as
            the paper's "retain a maximum of 520 top-k tokens" says to the letter.
    """

    gap: int = 10
    capacity: int | None = 5
    keep: int = 520
    keep_first: bool = True

    def __post_init__(self) -> None:
        if self.gap < 1 or self.keep < 0 or (self.capacity is not None and self.capacity < 1):
            raise InputError(
                f"a dynamic memory has gap {self.gap}, capacity {self.capacity} and keep {self.keep}; at least 1, 1 and 0 are needed"
            )

    def plan(self, bank: Sequence[RememberedFrame], last: RememberedFrame | None, new: RememberedFrame) -> MemoryUpdate:
        if last is None or not (not bank or last.pinned or last.number % self.gap == 0):
            return MemoryUpdate()
        # Tokens go by the attention that they receive, not with their frames; the list of frames only has to stay short.
        return MemoryUpdate(() if self.capacity is None else first_in_first_out(bank, self.capacity + 1), "last")

    def new_bank(self) -> Bank:
        return ReferenceBank(None) if self.capacity is None else TokenBank(self.capacity, self.keep, self.keep_first)

    def limited(self, capacity: int) -> DynamicTokens:
        return replace(self, capacity=min(capacity, self.capacity or capacity))

    def for_training(self, gap: int | None) -> DynamicTokens:
        return replace(self, gap=self.gap if gap is None else gap, capacity=None)


_NEVER = 1 << 40  # frames

_BOUND_FRAMES = 8  # of the default policy: 40 frames of history at gap 5, as much as the papers' clips ever need


def named_policy(name: str, paper: Policy) -> Policy:
    """Return the policy of that name.

    Args:
        name: "paper" (as published; may be without bound), "default" (the same with at most 8 frames in the bank), "given-only"
            (frames with given masks), or "every-K" (also each K-th frame; at most 8; for OneVOS the paper's queue or tokens with that
            gap, since its newest frame is read as the reference and enters the bank one frame later). For SimVOS and JointFormer also
            "first-and-previous", and "queue-N-every-K" (the first frame and each K-th one, N in all, besides the previous frame).
            For OneVOS also "cap-N-every-K", with the paper's Cap.
        paper: the policy of the model's paper.

    Raises:
        InputError: there is no policy of that name for this model.
    """
    fixed: dict[str, Policy] = {"paper": paper, "default": paper.limited(_BOUND_FRAMES), "given-only": GivenOnly(_BOUND_FRAMES)}
    expected = ["every-K such as every-5"]
    if isinstance(paper, OneVOSQueue | DynamicTokens):
        # Policies that remember a frame at once would have it in the bank while it is the reference, too.
        fixed["given-only"] = replace(paper, gap=_NEVER).limited(_BOUND_FRAMES)
        if (every := re.fullmatch(r"every-([1-9]\d*)", name)) is not None:
            return replace(paper, gap=int(every[1])).limited(_BOUND_FRAMES)
        expected.append("cap-N-every-K such as cap-3-every-11")
        if (cap := re.fullmatch(r"cap-([1-9]\d*)-every-([1-9]\d*)", name)) is not None:
            size, gap = int(cap[1]), int(cap[2])
            return (
                replace(paper, gap=gap, cap=size) if isinstance(paper, OneVOSQueue) else replace(paper, gap=gap, capacity=size)
            )
    if (every := re.fullmatch(r"every-([1-9]\d*)", name)) is not None:
        return EveryK(int(every[1]), _BOUND_FRAMES)
    if isinstance(paper, FirstAndPrevious | Queue):  # the others look at the previous frame in a way of their own
        fixed["first-and-previous"] = FirstAndPrevious()
        expected.append("queue-N-every-K such as queue-3-every-5")
        if (queue := re.fullmatch(r"queue-([1-9]\d*)-every-([1-9]\d*)", name)) is not None:
            return Queue(int(queue[2]), int(queue[1]))
    if name not in fixed:
        raise InputError(
            f"there is no memory policy {name!r} for this model; expected {', '.join([*fixed, *expected[:-1]])} or {expected[-1]}"
        )
    return fixed[name]
