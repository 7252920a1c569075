"""Which frames SimVOS and JointFormer read, from the official rules."""

from __future__ import annotations

import pytest
import torch

from vosformer.errors import InputError
from vosformer.memory import Memory
from vosformer.policy import EveryK, FirstAndPrevious, GivenOnly, Policy, Queue, named_policy
from vosformer.protocol import Entry


def read_at(policy: Policy, frames: int, given: tuple[int, ...] = (0,)) -> list[list[int]]:
    """The numbers of the frames that are read at frame 1, 2, ..."""
    memory = Memory(policy)
    found = []
    for t in range(frames):
        if t:
            found.append([int(x) for part in memory.references(0) for x in part["t"].flatten()])
        memory.add(Entry(({"t": torch.full((1, 1, 1), float(t))},)), t, t in given)
    return found


@pytest.mark.parametrize(
    ("policy", "given", "expected"),
    [
        (FirstAndPrevious(), (0,), [[0], [0, 1], [0, 2], [0, 3], [0, 4], [0, 5]]),
        # A mask in the middle is the previous frame of the next one; with room for it, it stays.
        (FirstAndPrevious(), (0, 3), [[0], [0, 1], [0, 2], [0, 3], [0, 4], [0, 5]]),
        (FirstAndPrevious(2), (0, 2), [[0], [0, 1], [0, 2], [0, 2, 3], [0, 2, 4], [0, 2, 5]]),
        (FirstAndPrevious(2), (0, 2, 4), [[0], [0, 1], [0, 2], [0, 2, 3], [0, 4], [0, 4, 5]]),
        # On a memory frame the last one is not replaced.
        (Queue(2, 3), (0,), [[0], [0, 1], [0, 2, 1], [0, 2, 3], [0, 2, 4, 3], [0, 2, 4, 5]]),
        (Queue(1, 2), (0,), [[0], [0, 1], [0, 2], [0, 3], [0, 4], [0, 5]]),
        (Queue(1, 3), (0,), [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]),
        # Given frames count as memory frames and reset the distance.
        (Queue(3, 3), (0, 2), [[0], [0, 1], [0, 2, 1], [0, 2, 3], [0, 2, 4], [0, 2, 5, 4]]),
        (Queue(5, 1), (0, 3), [[0], [0, 1], [0, 2], [0, 3], [0, 4], [0, 5]]),
    ],
)
def test_frames_that_are_read(policy: Policy, given: tuple[int, ...], expected: list[list[int]]) -> None:
    assert read_at(policy, 7, given) == expected


@pytest.mark.parametrize("policy", [FirstAndPrevious(), FirstAndPrevious(2), Queue(1, 1), Queue(1, 3), Queue(5, 3)])
@pytest.mark.parametrize("given", [(0,), tuple(range(30))])
def test_capacity_is_never_exceeded(policy: Policy, given: tuple[int, ...]) -> None:
    memory = Memory(policy)
    for t in range(30):
        memory.add(Entry(({"t": torch.zeros(1, 1, 1)},)), t, t in given)
        assert policy.capacity is not None
        assert len(memory.frames) <= policy.capacity
        assert memory.frames[0].number == 0


def test_policies_have_names() -> None:
    paper = Queue(4, 2)
    assert named_policy("paper", paper) == named_policy("queue-2-every-4", FirstAndPrevious()) == paper
    assert named_policy("first-and-previous", paper) == FirstAndPrevious()
    assert named_policy("every-7", paper) == EveryK(7, 8)
    assert named_policy("given-only", paper) == GivenOnly(8)
    with pytest.raises(InputError, match="queue-N-every-K"):
        named_policy("queue-0-every-5", paper)


def test_limits_only_ever_lower() -> None:
    assert FirstAndPrevious(None).limited(3).capacity == 3
    assert FirstAndPrevious(1).limited(3).capacity == 1
    assert Queue(5, 3).limited(8).capacity == 3
    assert Queue(5, 3).limited(1).capacity == 1


@pytest.mark.parametrize("policy", [FirstAndPrevious(), FirstAndPrevious(2), Queue(2, 3)])
def test_making_room_changes_nothing_that_is_read(policy: Policy) -> None:
    """The last frame may go before its successor is written; a frame that stays the last one does not."""
    early, late = Memory(policy), Memory(policy)
    for t in range(12):
        given = t in (0, 5)
        early.make_room(t, given)
        for memory in (early, late):
            memory.add(Entry(({"t": torch.full((1, 1, 1), float(t))},)), t, given)
        found = [[part["t"].item() for part in memory.references(0)[1:]] for memory in (early, late)]
        assert found[0] == found[1]
        assert torch.equal(early.bank(0)["t"], late.bank(0)["t"])


def test_a_frame_on_which_only_others_are_given_is_no_third_memory_frame() -> None:
    """SimVOS's official rule on YouTube-VOS: the frame an object was given on, and the previous one."""
    memory = Memory(FirstAndPrevious(2))
    for t in range(7):
        memory.add(Entry(({"t": torch.full((1, 1, 1), float(t))},)), t, t in (0, 3, 5), own=t != 3)
        held = [int(x) for part in memory.references(0) for x in part["t"].flatten()]
        assert held == ([0, t] if 0 < t < 6 else [0] if t == 0 else [0, 5, 6]), t
