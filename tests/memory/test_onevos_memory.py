"""OneVOS's memory: the queue of frames, and OneVOS-D's banks of tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vosformer.errors import InputError
from vosformer.memory import Memory
from vosformer.memory.reference_bank import BankMessage, ReferenceBank
from vosformer.memory.token_bank import TokenBank
from vosformer.policy import DynamicTokens, OneVOSQueue, Policy, named_policy
from vosformer.protocol import Entry, RememberedFrame


def entry(number: int, message: BankMessage | None = None, count: int = 4) -> Entry:
    tokens = torch.full((1, count, 2), float(number))
    return Entry(({"k": tokens, "v": -tokens},), for_banks=() if message is None else (message,))


def held_after_each(policy: Policy, frames: int, pinned: tuple[int, ...] = (0,)) -> list[list[int]]:
    memory, found = Memory(policy), []
    for t in range(frames):
        memory.add(entry(t), t, t in pinned)
        numbers = [frame.number for frame in memory.frames]
        if memory.bank(0):
            assert memory.bank(0)["k"][0, ::4, 0].tolist() == numbers
        found.append(numbers)
    return found


def test_the_bank_lags_one_frame_and_trims_as_recorded():
    assert held_after_each(OneVOSQueue(1, 2), 6) == [[], [0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]]
    assert held_after_each(OneVOSQueue(2, 5), 6) == [[], [0], [0], [0, 2], [0, 2], [0, 2, 4]]
    assert held_after_each(OneVOSQueue(10, 5), 12)[9:] == [[0], [0], [0, 10]]


def test_a_later_given_frame_takes_the_place_of_the_protected_one():
    # Frame 3 is given: it enters at once, and from then on it is what always stays; the first frame ages as any other.
    found = held_after_each(OneVOSQueue(1, 3), 9, (0, 3))
    assert found[4:] == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6], [3, 5, 6, 7]]


def test_given_frames_between_memory_frames_enter():
    assert held_after_each(OneVOSQueue(10, 5), 6, (0, 3))[3:] == [[0], [0, 3], [0, 3]]


def test_a_frame_is_never_kept_twice():
    for numbers in held_after_each(OneVOSQueue(1, 4), 12, (0, 2, 5, 7)):
        assert len(set(numbers)) == len(numbers)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.sets(st.integers(1, 20)), st.integers(5, 25))
@settings(max_examples=60, deadline=None)
def test_bounds_of_the_queue(gap: int, cap: int, bound: int, pinned: set[int], frames: int):
    found = held_after_each(OneVOSQueue(gap, cap).limited(bound), frames, (0, *pinned))
    assert max(map(len, found)) <= bound
    free = held_after_each(OneVOSQueue(gap, cap), frames, (0, *pinned))
    assert max(map(len, free)) <= cap + 1 + max(0, len(pinned) - 1)
    if not pinned:
        assert all(0 in numbers for numbers in free[1:])


def test_settings_that_make_no_sense():
    for policy, wrong in ((OneVOSQueue, "gap"), (OneVOSQueue, "cap"), (DynamicTokens, "gap"), (DynamicTokens, "capacity")):
        with pytest.raises(InputError, match="at least 1"):
            policy(**{wrong: 0})


# -- tokens


def tokens(values: list[float]) -> dict[str, Tensor]:
    k = torch.tensor(values)[None, :, None]
    return {"k": k, "v": -k}


def held(bank: TokenBank) -> list[float]:
    view = bank.view()
    return view["k"][0, :, 0].tolist() if view else []


def admit(
    bank: TokenBank,
    layer: dict[str, Tensor],
    number: int,
    pinned: bool,
    limit: float,
    usage: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
) -> None:
    """Add a frame to a bank of capacity 1: what it is told of r_l N is then the most tokens that it holds."""
    bank.inform(BankMessage(None, *usage, limit))
    bank.add(layer, RememberedFrame(number, pinned))


def test_full_layers_keep_what_received_most_attention():
    bank = TokenBank(1, 3)
    admit(bank, tokens([0, 1]), 0, True, 8)
    admit(bank, tokens([10, 11, 12]), 1, False, 8)
    admit(bank, tokens([20, 21, 22]), 2, False, 8)
    assert held(bank) == [0, 1, 10, 11, 12, 20, 21, 22]
    attention = torch.tensor([[0.0, 0.0, 0.1, 0.5, 0.2, 0.01, 0.3, 0.02]])
    admit(bank, tokens([30, 31]), 3, False, 8, (attention, torch.zeros(1, 2)))
    assert held(bank) == [0, 1, 11, 12, 21, 30, 31]
    assert bank.view()["frame"][0, :, 0].tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert torch.equal(bank.view()["v"], -bank.view()["k"])


def test_new_tokens_that_do_not_fit_are_cut_by_attention():
    bank = TokenBank(1, 520)
    admit(bank, tokens([0, 1, 2]), 0, True, 5)
    admit(bank, tokens([10, 11, 12, 13]), 1, False, 5, (torch.zeros(1, 3), torch.tensor([[0.1, 0.4, 0.2, 0.3]])))
    assert held(bank) == [0, 1, 2, 11, 13]


def test_the_newest_given_frame_stays_too():
    bank = TokenBank(1, 1)
    admit(bank, tokens([0, 1]), 0, True, 7)
    admit(bank, tokens([10, 11]), 1, False, 7)
    admit(bank, tokens([20, 21]), 2, True, 7)
    assert held(bank) == [0, 1, 20, 21, 10, 11]
    admit(bank, tokens([30, 31]), 3, True, 7, (torch.tensor([[0, 0, 0.1, 0.3, 0.2, 0.0]]), torch.zeros(1, 2)))
    assert held(bank) == [0, 1, 30, 31, 21]


@given(
    limit=st.integers(0, 12),
    keep=st.integers(0, 12),
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=8),
    pinned=st.sets(st.integers(1, 7)),
    ranked=st.booleans(),
    later=st.integers(0, 2),
)
@settings(max_examples=150, deadline=None)
def test_invariants_of_the_bank(limit: int, keep: int, counts: list[int], pinned: set[int], ranked: bool, later: int):
    generator = torch.Generator().manual_seed(limit + 13 * keep + sum(counts))
    bank = TokenBank(1, keep)
    for number, count in enumerate(counts):
        usage: tuple[Tensor, Tensor] | tuple[None, None] = (None, None)
        if ranked and bank.lengths:
            usage = torch.rand(1, bank.tokens, generator=generator), torch.rand(1, count, generator=generator)
        before = held(bank)
        fresh = [100.0 * number + i for i in range(count)]
        admit(bank, tokens(fresh), number, number == 0 or number in pinned, limit, usage)
        assert bank.tokens <= limit
        assert sum(bank.lengths) == len(held(bank))
        first = [value for value in held(bank) if value < 100]
        assert len(first) == min(counts[0], limit), "the first frame's tokens stay"
        assert set(held(bank)) <= {*before, *fresh}
        assert len(set(held(bank))) == len(held(bank))
        twin = TokenBank(1, keep)
        twin.restore(bank.view(), bank.about())
        assert held(twin) == held(bank)
        assert twin.lengths == bank.lengths
    twin = bank.clone()
    bank.limit(later)
    assert bank.tokens == min(later * limit, twin.tokens)
    assert len([value for value in held(bank) if value < 100]) == min(counts[0], limit, later * limit)


def test_gradients_flow_through_the_bank():
    layers = [{"k": torch.rand(1, 3, 2, requires_grad=True)} for _ in range(3)]
    bank = TokenBank(1, 2)
    for number, layer in enumerate(layers):
        admit(bank, layer, number, number == 0, 7, (torch.rand(1, bank.tokens), torch.rand(1, 3)) if number else (None, None))
    bank.view()["k"].sum().backward()
    assert [int((layer["k"].grad != 0).any(2).sum()) for layer in layers] == [3, 1, 3]


def test_memory_needs_to_know_the_attention_only_when_a_layer_is_full():
    memory = Memory(DynamicTokens(gap=1, capacity=2, keep=2))
    asked = []
    for t in range(5):
        asked.append(memory.needs_usage(0))
        usage = (torch.rand(1, 8), torch.rand(1, 4)) if asked[-1] else (None, None)
        memory.add(entry(t, BankMessage(None, *usage, 4.0)), t, t == 0)
        assert memory.bank(0).get("k", torch.zeros(1, 0, 2)).shape[1] <= 8
    assert asked == [False, False, False, True, True]


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_ratios_of_zero_and_one(ratio: float):
    memory = Memory(DynamicTokens(gap=1, capacity=3))
    for t in range(6):
        memory.add(entry(t, BankMessage(frame_tokens=4 * ratio)), t, t == 0)
    assert memory.bank(0).get("k", torch.zeros(1, 0, 2)).shape[1] == 12 * ratio
    assert memory.nbytes <= memory.frame_nbytes * 3 + 12 * 4  # and the frames' numbers
    tensors, about = memory.export()
    twin = Memory.restore(memory.policy, tensors, about)
    assert [t.tolist() for t in twin.bank(0).values()] == [t.tolist() for t in memory.bank(0).values()]
    twin.limit(1)
    assert twin.bank(0).get("k", torch.zeros(1, 0, 2)).shape[1] == 4 * ratio
    with pytest.raises(InputError, match=r"its memory holds tokens, and that of OneVOSQueue.* holds frames"):
        Memory.restore(OneVOSQueue(), tensors, about)


def test_memory_by_tokens_is_flat():
    memory, sizes = Memory(DynamicTokens(gap=2, capacity=3)), set()
    for t in range(100):
        memory.add(entry(t, BankMessage(frame_tokens=4.0)), t, t == 0 or t % 9 == 0)
        sizes.add((memory.nbytes, len(memory.frames) <= 4))
    assert len(sizes) == 2  # nothing, then all that it will ever take
    assert all(short for _, short in sizes)


@pytest.mark.parametrize("paper", [OneVOSQueue(10, 5), DynamicTokens(10, None)])
def test_named_policies_never_keep_the_reference_in_the_bank(paper: Policy):
    """The newest frame is read as the reference; it enters the bank when it stops being that."""
    assert held_after_each(named_policy("every-2", paper), 6)[:5] == [[], [0], [0], [0, 2], [0, 2]]
    assert held_after_each(named_policy("given-only", paper), 6, (0, 3)) == [[], [0], [0], [0], [0, 3], [0, 3]]
    assert type(named_policy("every-2", paper)) is type(paper)


def test_the_first_frame_competes_where_the_paper_is_taken_to_the_letter():
    bank = TokenBank(1, 3, keep_first=False)
    for number in range(3):
        layer = {"k": torch.full((1, 4, 2), float(number))}
        attention = torch.arange(8.0)[None] if number == 2 else torch.zeros(1, 0)
        admit(bank, layer, number, number == 0, 8, (attention, torch.zeros(1, 4)))
    assert bank.view()["k"][0, :, 0].tolist() == [1, 1, 1, 2, 2, 2, 2]  # none of the first frame's is among the 3 best


def test_a_bank_of_references_keeps_what_the_next_reading_made_of_them():
    memory = Memory(OneVOSQueue(gap=1, cap=3))
    for t in range(4):
        revised = {"k": torch.full((1, 4, 2), 100.0 + t), "v": torch.zeros(1, 4, 2)}
        memory.add(entry(t, BankMessage(revised if t == 2 else None)), t, t == 0)
    assert memory.bank(0)["k"][0, ::4, 0].tolist() == [0, 102, 2]


def test_every_policy_makes_the_banks_that_it_bounds():
    banks = {type(policy.new_bank()) for policy in (OneVOSQueue(), DynamicTokens(10, None))}
    assert banks == {ReferenceBank}
    assert type(DynamicTokens().new_bank()) is TokenBank
