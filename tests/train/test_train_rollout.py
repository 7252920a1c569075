"""How a clip is gone through: which masks enter the memory, which frames it holds, who lies in which slot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from train_dummy import Dummy, Squares

from vosformer.errors import TrainingError
from vosformer.geometry import Geometry
from vosformer.memory import Memory
from vosformer.policy import DynamicTokens, EveryK, FirstAndPrevious, GivenOnly, OneVOSQueue, Queue
from vosformer.protocol import Entry, Features, Merging, ObjectMasks, Reading, VOSModel
from vosformer.registry import new_model, variant
from vosformer.train.batch import Batch
from vosformer.train.clip_memory import ClipMemory
from vosformer.train.losses import segmentation_loss
from vosformer.train.recipe import Data, Loss, Recipe, Rollout, Run
from vosformer.train.rollout import ClipRollout as Engine
from vosformer.train.rollout import argmax


def clips(count: int, frames: int = 4, size: int = 33, number: int = 2, vary: bool = False) -> Batch:
    parts = [Squares(count, frames, size, vary)[i] for i in range(number)]
    return Batch(
        torch.stack([p.images for p in parts]),
        torch.stack([p.labels for p in parts]),
        torch.tensor([p.count for p in parts]),
        torch.arange(number),
    )


def recipe(**parts: Any) -> Recipe:
    base = Recipe("test", "test", data=Data(max_objects=3), loss=Loss(top_until=100), run=Run(steps=100, precision="fp32"))
    return replace(base, **{"rollout": Rollout(own_masks_from=50, permute=False), **parts})


class Echo(VOSModel):
    """Remembers masks as they are, and predicts those of the frame before."""

    geometry = Geometry()
    policy = EveryK(5)

    def __init__(self, slot_size: int = 10) -> None:
        super().__init__()
        self.slot_size = slot_size
        self.shares_memory = slot_size > 1
        self.merging = Merging.STM if slot_size == 1 else Merging.AOT
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.written: list[ObjectMasks] = []
        self.memories: list[list[int]] = []

    def encode(self, image: Tensor) -> Features:
        return Features(image, (image,))

    def read(self, features: Features, memory: Memory) -> Reading:
        held = memory.last(0) or memory.bank(0)
        self.memories.append([frame.number for frame in memory.frames] + ([memory.last_frame.number] if memory.last(0) else []))
        size = features.image.shape[-1]
        own = held["own"][:, -size * size :].transpose(1, 2).unflatten(2, (size, size))
        return Reading(F.pad(self.scale * (own - 0.5), (0, 0, 0, 0, 1, 0)))

    def write(self, features: Features, targets: ObjectMasks, reading: Reading | None, memory: Memory | None) -> Entry:
        self.written.append(targets)
        own = targets.own.flatten(2).transpose(1, 2)
        return Entry(({"own": own + 0 * self.scale},))


def test_ground_truth_enters_the_memory_first_and_own_masks_later():
    batch = clips(2)
    early, late = Echo(), Echo()
    first = Engine(early, recipe())(batch, 49, True)
    second = Engine(late, recipe())(batch, 50, True)
    # Frame 0, then frames 1 and 2; nothing reads what the last frame would leave.
    assert [t.given for t in early.written] == [True, False, False]
    for t, targets in enumerate(early.written):
        torch.testing.assert_close(targets.own.argmax(1) + 1, batch.labels[:, t].long().where(targets.own.any(1), 1))
        assert torch.equal(targets.own[:, 0], (batch.labels[:, t] == 1).float())
    # With its own masks, Echo repeats frame 0 for ever.
    for targets in late.written:
        assert torch.equal(targets.own, late.written[0].own)
    assert torch.equal(first.labels[:, 1:], batch.labels[:, :3])
    assert torch.equal(second.labels[:, 1:], batch.labels[:, :1].expand(-1, 3, -1, -1))


def test_random_places_are_undone_in_the_logits():
    batch = clips(2)
    model = Echo()
    permuted = recipe(rollout=Rollout(own_masks_from=0, permute=True))
    rolled = Engine(model, permuted)(batch, 60, True)
    assert torch.equal(rolled.labels[:, 3], batch.labels[:, 0])
    places = [targets.own.flatten(2).any(2).nonzero()[:, 1].tolist() for targets in model.written]
    assert places[0] != [0, 1, 0, 1]
    assert all(p == places[0] for p in places)
    again = Echo()
    Engine(again, permuted)(batch, 60)
    assert torch.equal(again.written[0].own, model.written[0].own)


def test_places_follow_from_the_clip_and_not_from_the_batch():
    batch = clips(2, number=3)
    model, alone = Echo(), Echo()
    permuted = recipe(rollout=Rollout(permute=True))
    Engine(model, permuted)(batch, 0)
    Engine(alone, permuted)(Batch(*(part[1:2] for part in batch)), 0)
    assert torch.equal(model.written[0].own[1:2], alone.written[0].own)


def test_each_object_has_a_slot_where_a_slot_holds_one():
    batch = clips(3, number=3, vary=True)
    batch = batch._replace(counts=torch.tensor([int(labels[0].max()) for labels in batch.labels]))
    most = int(batch.counts.max())
    model = Echo(slot_size=1)
    rolled = Engine(model, recipe())(batch, 50, True)
    own, others, _, _ = model.written[0]
    assert own.shape == (3 * most, 1, 33, 33)
    for b in range(3):
        for g in range(most):
            labels = batch.labels[b, 0]
            assert torch.equal(own[b * most + g, 0], (labels == g + 1).float())
            assert torch.equal(others[b * most + g, 0], ((labels > 0) & (labels != g + 1)).float())
    assert torch.equal(rolled.labels[:, 3], batch.labels[:, 0])


def test_an_object_that_a_sample_lacks_never_wins():
    batch = clips(3, number=2, vary=True)
    counts = torch.tensor([int(labels[0].max()) for labels in batch.labels])
    for model in (Dummy(10), Dummy(1, "soft")):
        rolled = Engine(model, recipe())(batch._replace(counts=counts), 50, True)
        assert (rolled.labels[:, 1:].flatten(1).amax(1) <= counts).all()


def test_unknown_pixels_are_told_to_the_model():
    batch = clips(1)
    batch.labels[0, 0, :3] = 255
    model = Echo()
    Engine(model, recipe())(batch, 0)
    ignore = model.written[0].ignore
    assert ignore is not None
    assert torch.equal(ignore[:, 0], (batch.labels[:, 0] == 255).float())
    assert model.written[1].ignore is None


def test_soft_masks_carry_gradients_and_hard_ones_do_not():
    batch = clips(2)
    for feedback, expected in (("soft", True), ("hard", False)):
        model = Echo(slot_size=1)
        settings = recipe(rollout=Rollout(own_masks_from=0, feedback=feedback))
        Engine(model, settings)(batch, 0)
        assert model.written[1].own.requires_grad is expected
        assert not model.written[0].own.requires_grad


def test_the_gap_of_training_holds_in_the_memory():
    model = Echo()
    Engine(model, recipe(rollout=Rollout(own_masks_from=None, gap=2)))(clips(1, frames=5), 0)
    assert model.memories == [[0, 0], [0, 1], [0, 2, 2], [0, 2, 3]]


def test_random_references_are_the_first_and_one_earlier_frame_of_each_clip():
    """Each clip draws its own, as in the released JointFormer, and draws the same in whichever part of a step it lands."""
    settings = recipe(rollout=Rollout(own_masks_from=0, memory="random", references=2))

    def held(indices: list[int]) -> list[list[int]]:
        memory = ClipMemory(Echo(slot_size=1), settings, 7, torch.tensor(indices))
        for number in range(4):  # two slots a clip; every frame leaves its own number
            memory.add(Entry(({"own": torch.full((2 * len(indices), 1, 1), float(number))},)), number)
        assert [frame.number for frame in memory.at(1).frames] == [0]
        found = memory.at(4)
        both = torch.cat([found.bank(0)["own"], found.last(0)["own"]], 1)[..., 0].int()
        assert torch.equal(both[::2], both[1::2])
        return both[::2].tolist()

    together = held(list(range(12)))
    assert {tuple(own) for own in together} == {(0, 1), (0, 2), (0, 3)}
    assert held([5]) == together[5:6]
    assert held([5, 8]) == [together[5], together[8]]


def test_aost_is_supervised_at_every_depth_on_the_reference_frame_too():
    model = variant("aost").build(tiny=True)
    batch = clips(1, frames=3, number=1)
    seen: list[int] = []
    engine = Engine(model, recipe(loss=Loss(top_until=100, auxiliary=1.0, auxiliary_until=100)))
    inner = engine._loss
    engine._loss = lambda outputs, *rest: seen.append(len(outputs)) or inner(outputs, *rest)  # type: ignore[method-assign]
    engine(batch, 0)
    assert seen == [3, 3, 3]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (GivenOnly(3), GivenOnly(None)),
        (EveryK(5, 8), EveryK(1, None)),
        (FirstAndPrevious(1), FirstAndPrevious(None)),
        (DynamicTokens(10, 5), DynamicTokens(1, None)),
        (Queue(5, 3), Queue(1, None)),
        (OneVOSQueue(10, 5), OneVOSQueue(1, 1 << 20)),
    ],
)
def test_memory_has_no_bound_in_training(policy, expected):
    assert policy.for_training(1) == expected


def test_recomputing_activations_changes_nothing_but_memory():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        model = Dummy()
        settings = recipe(run=Run(steps=100, checkpointing=checkpointing), rollout=Rollout(own_masks_from=0, gap=1))
        Engine(model, settings)(clips(2), 0).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_the_first_frames_own_decoding_adds_the_auxiliary_loss():
    batch = clips(2)
    torch.manual_seed(0)
    model = Dummy()
    plain = Engine(model, recipe(loss=Loss(top_until=100)))(batch, 0)
    both = Engine(model, recipe(loss=Loss(top_until=100, auxiliary=1.0, auxiliary_until=50)))
    first = both(batch, 0)
    torch.testing.assert_close(first.terms[:4], plain.terms[:4])
    assert first.terms[4] > 0
    torch.testing.assert_close(first.loss, plain.loss + first.terms[4])
    assert both(batch, 50).terms[4] == 0


def test_frames_are_summed_or_averaged():
    batch = clips(2)
    torch.manual_seed(0)
    model = Dummy()
    mean = Engine(model, recipe())(batch, 0).loss
    total = Engine(model, recipe(loss=Loss(top_until=100, frames="sum")))(batch, 0).loss
    torch.testing.assert_close(total, 3 * mean)


def test_every_depth_of_aost_is_supervised():
    torch.manual_seed(0)
    model = new_model("aost", tiny=True, drop_path=0.0).train()
    batch = clips(2, frames=2, size=65)
    settings = recipe(loss=Loss(top_until=100, alpha=4.0))
    found = Engine(model, settings)(batch, 0).loss
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    frames = [model.encode((batch.images[:, t] / 255 - mean) / std) for t in range(2)]
    own = torch.stack([batch.labels[:, 0] == i for i in range(1, 11)], 1).float()
    memory = Memory(GivenOnly(None))
    memory.add(model.write(frames[0], ObjectMasks(own, 0 * own[:, :1], True), None), 0, True)
    expected = torch.zeros(())
    for weight, depth in ((1, 1), (4, 2), (16, 3)):
        logits = model.read(frames[1], memory, depth=depth).logits[:, :3]
        logits = F.interpolate(logits, (65, 65), mode="bilinear", align_corners=True)
        loss = segmentation_loss(logits, batch.labels[:, 1], batch.counts, settings.loss, 1.0)
        expected = expected + weight / 21 * loss.total.mean()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_deepest_alone_is_supervised_with_infinite_alpha():
    torch.manual_seed(0)
    model = new_model("aost", tiny=True).train()
    Engine(model, recipe(loss=Loss(alpha=float("inf"))))(clips(2, frames=2, size=65), 0).loss.backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.decoder.conv_in[0].parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.decoder.conv_in[2].parameters())


def test_argmax_takes_the_first_of_the_highest():
    scores = torch.randn(2, 5, 7, 9)
    scores[:, 3] = scores[:, 1]
    assert torch.equal(argmax(scores), scores.argmax(1).to(torch.uint8))


def test_too_many_objects_are_refused():
    with pytest.raises(TrainingError, match=r"data\.max_objects=2"):
        Engine(Dummy(2), recipe())(clips(3), 0)


def test_something_that_is_no_system_is_refused():
    with pytest.raises(TrainingError, match="Linear"):
        Engine(nn.Linear(1, 1), recipe())
