"""What every registered variant must do, at tiny size. A new system is held to this by its name alone."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from dummy_models import flat_clip
from torch import nn

from vosformer.inference.session import Session
from vosformer.memory import Memory
from vosformer.nn.norm import FrozenBatchNorm2d
from vosformer.protocol import ObjectMasks, VOSModel
from vosformer.registry import variant, variants

NAMES = [entry.name for entry in variants()]
every_variant = pytest.mark.parametrize("name", NAMES)


@cache
def tiny(name: str) -> nn.Module:
    """The variant with small parts and fixed random weights."""
    torch.manual_seed(0)
    return variant(name).build(tiny=True).eval()


def session(name: str, **settings) -> Session:
    return Session(tiny(name), device="cpu", dtype="fp32", size=64, **settings)


@cache
def clip(ids: tuple[int, ...], frames: int = 4):
    return flat_clip(ids, frames, size=(66, 98))


@every_variant
def test_offers_the_protocol(name):
    model = tiny(name)
    assert isinstance(model, VOSModel)
    assert model.slot_size >= 1
    assert model.feedback in ("hard", "soft")
    assert model.policy.limited(3).capacity <= 3


@every_variant
def test_ids_are_the_users_and_given_masks_win(name):
    ids = (3, -9, 70_000)
    images, labels = clip(ids)
    s = session(name)
    out = s.step(images[0], labels[0])
    assert np.array_equal(out.labels, labels[0])
    for image in images[1:]:
        out = s.step(image)
        assert out.ids == tuple(sorted(ids))
        assert set(np.unique(out.labels)) <= {0, *ids}
        total = sum(out.probability(i) for i in ids)
        assert np.isfinite(total).all()
        assert total.max() <= 1 + 1e-4
        assert all(0 <= out.score(i) <= 1 for i in ids)


@every_variant
def test_later_objects_and_more_than_ten(name):
    ids = tuple(range(1, 13))
    images, labels = clip(ids)
    s = session(name)
    s.step(images[0], np.where(labels[0] <= 2, labels[0], 0))
    s.step(images[1], np.where((labels[1] > 2) & (labels[1] <= 11), labels[1], 0))
    out = s.step(images[2], np.where(labels[2] == 12, 12, 0))
    assert out.ids == ids
    out = s.step(images[3])
    assert out.ids == ids
    assert out.probability(12).shape == (66, 98)


@every_variant
def test_removal(name):
    images, labels = clip((1, 2, 3))
    s = session(name)
    s.step(images[0], labels[0])
    s.step(images[1])
    s.remove(2)
    out = s.step(images[2])
    assert out.ids == (1, 3)
    assert 2 not in out.labels
    s.remove(1)
    s.remove(3)
    assert not s.step(images[3]).labels.any()
    assert s.memory_bytes == 0
    assert s.step(images[3], labels[3]).ids == (1, 2, 3)


@every_variant
def test_a_correction_is_remembered(name):
    images, labels = clip((1, 2))
    s = session(name)
    s.step(images[0], labels[0])
    s.step(images[1])
    before = s.state
    s.step(images[2])
    plain = s.step(images[3]).probability(1)
    s.state = before
    swapped = np.select([labels[2] == 1, labels[2] == 2], [2, 1], 0)
    assert np.array_equal(s.step(images[2], swapped).labels, swapped)
    corrected = s.step(images[3]).probability(1)
    assert np.abs(plain - corrected).max() > 1e-6


@every_variant
def test_prefix_branch_save_and_restore(name, tmp_path):
    images, labels = clip((1, 2), 6)
    s = session(name)
    s.step(images[0], labels[0])
    s.step(images[1])
    s.step(images[2])
    s.save(tmp_path / "state")
    branch = s.state
    straight = [s.step(image).probability(1) for image in images[3:]]
    s.state = branch
    s.step(images[5], np.where(labels[5] == 2, 7, 0))
    s.remove(1)
    s.state = branch
    again = [s.step(image).probability(1) for image in images[3:]]
    fresh = session(name)
    fresh.load(tmp_path / "state")
    restored = [fresh.step(image).probability(1) for image in images[3:]]
    for a, b, c in zip(straight, again, restored, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)


@every_variant
def test_memory_is_flat(name):
    images, labels = clip((1, 2), 6)
    s = session(name, memory="every-1" if tiny(name).feedback == "hard" and "onevos" not in name else "default")
    s.step(images[0], labels[0])
    sizes = []
    for t in range(60):
        s.step(images[t % 6])
        sizes.append(s.memory_bytes)
    assert len(set(sizes[50:])) == 1
    assert all(len(cohort.memory.frames) <= 9 for cohort in s.state.views[0])


def roll(model: nn.Module, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Logits of the third frame of clips [B,3,3,H,W] with masks [B,3,G,K,H,W], all masks taken as true."""
    samples, frames, slots = masks.shape[:3]
    features = model.encode(images.transpose(0, 1).flatten(0, 1))
    memory = Memory(model.policy)
    for t in range(frames):
        here = features.at(slice(t * samples, (t + 1) * samples))
        reading = model.read(here, memory) if t else None
        own = masks[:, t].flatten(0, 1)
        union = masks[:, t].sum((1, 2))[:, None, None].expand(-1, slots, -1, -1, -1).flatten(0, 1)
        targets = ObjectMasks(own, union - own.sum(1, keepdim=True), t == 0)
        memory.add(model.write(here, targets, reading, memory if t else None), t, t == 0)
    return reading.logits


@every_variant
def test_a_batch_is_its_samples_one_by_one(name):
    """Training's batches [B*G slots] and inference's single samples compute the same."""
    model = deepcopy(tiny(name)).double()
    side = 48 + int(model.geometry.align_corners)
    images = torch.randn(2, 3, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slots = 1 if model.slot_size > 1 else 2
    masks = torch.zeros(2, 3, slots, model.slot_size, side, side, dtype=torch.float64)
    masks[0, :, 0, 0, 5:30, 5:20] = 1
    masks[1, :, -1, -1, 20:45, 10:40] = 1
    with torch.no_grad():
        together = roll(model, images, masks)
        apart = torch.cat([roll(model, images[b : b + 1], masks[b : b + 1]) for b in range(2)])
    assert together.shape[:2] == (2 * slots, 1 + model.slot_size)
    assert torch.allclose(together, apart, atol=1e-9)


@every_variant
def test_bfloat16_agrees(name):
    images, labels = clip((1, 2))
    results = []
    for dtype in ("fp32", "bf16"):
        torch.manual_seed(0)
        s = Session(variant(name).build(tiny=True), device="cpu", dtype=dtype, size=64)
        s.step(images[0], labels[0])
        results.append(s.step(images[1]).probability(1))
    assert np.abs(results[0] - results[1]).mean() < 0.05


@every_variant
@pytest.mark.parametrize("size", [(1, 1), (17, 200), (333, 31)])
def test_odd_sizes(name, size):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    labels = np.zeros(size, np.int32)
    labels[: max(1, size[0] // 2)] = 4
    s = session(name)
    s.step(frame, labels)
    assert s.step(frame).labels.shape == size


# Weights that are used without a call of their layer: the other depths' entrances of AOST, and a projection that JointFormer
# multiplies into values that it meets with one token only (`nn.joint.gated`).
NOT_CALLED = (r"decoder\.conv_in\.[01]\.", r"enhance_blocks\.\d+\.attn\.proj$")


@every_variant
def test_every_layer_is_called(name):
    """Hooks see every layer: what replaces or wraps one, as LoRA, quantisation and profilers do, has its effect."""
    images, labels = clip((1, 2))
    s = session(name)
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.LayerNorm, nn.GroupNorm, FrozenBatchNorm2d)
    layers = {key: module for key, module in s.model.named_modules() if isinstance(module, kinds)}
    seen = set()
    hooks = [module.register_forward_hook(lambda *_, key=key: seen.add(key)) for key, module in layers.items()]
    s.step(images[0], labels[0])
    s.step(images[1])
    for hook in hooks:
        hook.remove()
    silent = [key for key in layers if key not in seen and not any(re.search(rule, key) for rule in NOT_CALLED)]
    assert not silent
