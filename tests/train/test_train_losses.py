"""Losses against their equations in plain form, pixel by pixel in float64."""

from __future__ import annotations

import math

import pytest
import torch

from vosformer.inference.objects import merge_slots
from vosformer.protocol import Merging
from vosformer.train.losses import (
    IGNORE,
    auxiliary_weight,
    bootstrapped_ce,
    depth_weights,
    dice,
    segmentation_loss,
    soft_jaccard,
    top_share,
)
from vosformer.train.recipe import Loss


@pytest.fixture
def sample():
    """Logits [2,4,5,6] of up to 3 objects, labels with unknown pixels, 2 and 3 objects."""
    random = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(2, 4, 5, 6, generator=random, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 5, 6), generator=random)
    labels[1, 2:4] = 3
    labels[0, 0, :2] = IGNORE
    labels[1, 4, 3] = IGNORE
    return logits.requires_grad_(), labels, torch.tensor([2, 3])


def probabilities(logits, count):
    """Softmax over the used channels of one sample, as nested lists [pixel][channel]."""
    flat = logits.detach()[: count + 1].flatten(1).T.tolist()
    out = []
    for pixel in flat:
        total = sum(math.exp(value) for value in pixel)
        out.append([math.exp(value) / total for value in pixel])
    return out


def known(labels):
    return [(i, label) for i, label in enumerate(labels.flatten().tolist()) if label != IGNORE]


@pytest.mark.parametrize("share", [1.0, 0.6, 0.15, 0.001])
def test_bootstrapped_cross_entropy_keeps_the_worst_pixels(sample, share):
    logits, labels, counts = sample
    found = bootstrapped_ce(logits, labels, counts, share)
    for b in range(2):
        p = probabilities(logits[b], int(counts[b]))
        losses = sorted((-math.log(p[i][label]) for i, label in known(labels[b])), reverse=True)
        kept = losses[: max(1, int(share * len(losses)))]
        assert found[b].item() == pytest.approx(sum(kept) / len(kept), abs=1e-12)


def test_soft_jaccard_is_the_mean_over_classes_in_the_truth(sample):
    logits, labels, counts = sample
    found = soft_jaccard(logits, labels, counts)
    for b in range(2):
        p = probabilities(logits[b], int(counts[b]))
        pixels = known(labels[b])
        values = []
        for c in range(int(counts[b]) + 1):
            if not any(label == c for _, label in pixels):
                continue
            shared = sum(p[i][c] for i, label in pixels if label == c)
            false_positive = sum(p[i][c] for i, label in pixels if label != c)
            false_negative = sum(1 - p[i][c] for i, label in pixels if label == c)
            values.append(1 - shared / (shared + false_positive + false_negative + 1e-6))
        assert found[b].item() == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_a_class_that_is_not_in_the_truth_does_not_count(sample):
    logits, labels, counts = sample
    labels = torch.where(labels == 1, 0, labels)
    found = soft_jaccard(logits, labels, counts)
    p = probabilities(logits[0], 2)
    pixels = known(labels[0])
    values = []
    for c in (0, 2):
        shared = sum(p[i][c] for i, label in pixels if label == c)
        everything = sum(p[i][c] for i, _ in pixels) + sum(label == c for _, label in pixels)
        values.append(1 - shared / (everything - shared + 1e-6))
    assert found[0].item() == pytest.approx(sum(values) / 2, abs=1e-12)


@pytest.mark.parametrize("slots", [None, 3])
def test_dice_with_smoothing_one(sample, slots):
    logits, labels, counts = sample
    found = dice(logits, labels, counts, slots)
    for b in range(2):
        p = probabilities(logits[b], int(counts[b]))
        pixels = known(labels[b])
        total = 0.0
        for c in range(1, int(counts[b]) + 1):
            shared = sum(p[i][c] for i, label in pixels if label == c)
            sizes = sum(p[i][c] for i, _ in pixels) + sum(label == c for _, label in pixels)
            total += 1 - (2 * shared + 1) / (sizes + 1)
        assert found[b].item() == pytest.approx(total / (slots or int(counts[b])), abs=1e-12)


def test_objects_that_a_sample_does_not_have_change_nothing(sample):
    logits, labels, counts = sample
    loss = Loss(ce=0.3, jaccard=0.4, dice=0.5)
    wild = logits.detach().clone()
    wild[0, 3] = 1000.0
    one = segmentation_loss(logits, labels, counts, loss, 0.5)
    two = segmentation_loss(wild, labels, counts, loss, 0.5)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.detach(), b)
    one.total.sum().backward()
    assert not logits.grad[0, 3].any()


def test_unknown_pixels_have_no_gradient(sample):
    logits, labels, counts = sample
    segmentation_loss(logits, labels, counts, Loss(dice=1.0), 1.0).total.sum().backward()
    unknown = (labels == IGNORE)[:, None].expand_as(logits)
    assert not logits.grad[unknown].any()
    assert logits.grad[~unknown].any()


def test_gradients_are_right(sample):
    logits, labels, counts = sample
    loss = Loss(ce=0.5, jaccard=0.5, dice=0.5)
    assert torch.autograd.gradcheck(lambda x: segmentation_loss(x, labels, counts, loss, 0.4).total, (logits,))


def test_a_clip_without_any_truth_gives_zero_and_not_nan():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), IGNORE)
    values = segmentation_loss(logits, labels, torch.tensor([2]), Loss(dice=1.0), 0.15)
    assert values.ce.item() == 0
    assert values.jaccard.item() == 0
    assert torch.isfinite(values.total).all()


def test_the_parts_are_weighed():
    logits, labels, counts = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4)), torch.tensor([2, 2])
    values = segmentation_loss(logits, labels, counts, Loss(ce=0.5, jaccard=0.25, dice=2.0), 0.5)
    torch.testing.assert_close(values.total, 0.5 * values.ce + 0.25 * values.jaccard + 2 * values.dice)


def test_soft_aggregation_is_the_published_one():
    """p_0 = prod(1 - p_k), clamped odds, softmax (STM; SimVOS and JointFormer take it over)."""
    logits = torch.randn(3, 2, 2, 4, 4, dtype=torch.float64)  # slots, samples, [background, object]
    merged = merge_slots(list(logits), Merging.STM).softmax(1)
    for b in range(2):
        for y in range(4):
            for x in range(4):
                chance = [1 / (1 + math.exp(float(logits[s, b, 0, y, x] - logits[s, b, 1, y, x]))) for s in range(3)]
                everything = [math.prod(1 - p for p in chance), *chance]
                odds = [min(max(p, 1e-7), 1 - 1e-7) for p in everything]
                odds = [p / (1 - p) for p in odds]
                for c in range(4):
                    assert merged[b, c, y, x].item() == pytest.approx(odds[c] / sum(odds), abs=1e-9)


def test_share_of_pixels_falls_linearly():
    loss = Loss(top_share=0.15, top_from=20, top_until=70)
    assert [top_share(loss, step) for step in (0, 20, 45, 70, 500)] == pytest.approx([1, 1, 0.575, 0.15, 0.15])
    assert top_share(Loss(top_until=50_000), 25_000) == pytest.approx(0.575)
    assert top_share(Loss(top_from=0, top_until=0), 0) == 0.15


def test_auxiliary_weight_falls_to_zero():
    loss = Loss(auxiliary=1.0, auxiliary_until=100)
    assert [auxiliary_weight(loss, step) for step in (0, 25, 100, 200)] == [1.0, 0.75, 0.0, 0.0]
    assert auxiliary_weight(Loss(), 0) == 0.0


@pytest.mark.parametrize(
    ("alpha", "weights"),
    [(1, [1 / 3, 1 / 3, 1 / 3]), (2, [1 / 7, 2 / 7, 4 / 7]), (4, [1 / 21, 4 / 21, 16 / 21]), (8, [1 / 73, 8 / 73, 64 / 73])],
)
def test_scalable_supervision_weights(alpha, weights):
    assert depth_weights(alpha, 3) == pytest.approx(weights)


def test_infinite_alpha_trains_the_deepest_only():
    assert depth_weights(math.inf, 3) == [0, 0, 1]


def test_autocast_leaves_the_loss_alone():
    """Pixels of large crops are counted in float32: float16 ends at 65,504."""
    random = torch.Generator().manual_seed(4)
    labels = (torch.rand(1, 465, 465, generator=random) > 0.7).long()
    logits = torch.stack([4.0 * (labels == 0), 4.0 * (labels == 1)], 1).requires_grad_()
    loss = Loss(ce=0.0, jaccard=0.5, dice=0.5)
    plain = segmentation_loss(logits, labels, torch.tensor([1]), loss, 1.0)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            found = segmentation_loss(logits, labels, torch.tensor([1]), loss, 1.0)
        for part, exact in zip(found, plain, strict=True):
            assert part.item() == pytest.approx(exact.item(), rel=1e-5)
