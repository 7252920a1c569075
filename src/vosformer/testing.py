"""What every system must do: checks of a variant at tiny size, for the variants of this package and for yours.

In a test of your own package, where `mine.vos` registers the variant "mine":

    import mine.vos
    from vosformer.testing import check_system

    def test_mine():
        check_system("mine")

Each check is a function of the variant's name that raises AssertionError; `CHECKS` has all of them, for `pytest.mark.parametrize`.
The variant's builder must take ``tiny=True`` (`vosformer.registry.build_from` does).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vosformer.inference.session import Session
from vosformer.memory import Memory
from vosformer.nn.norm import FrozenBatchNorm2d
from vosformer.protocol import ObjectMasks, VOSModel
from vosformer.registry import new_model, variant

COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (200, 30, 200), (30, 200, 200), (230, 120, 30))


def check_system(name: str, *, not_called: tuple[str, ...] = ()) -> None:
    """Run all checks on a variant, one after the other.

    Args:
        name: of a registered variant.
        not_called: regular expressions of layers whose weights are used without a call of the layer, which hooks cannot see.

    Raises:
        AssertionError: a check fails; the message begins with its name.
        InputError: there is no such variant.
    """
    variant(name)
    for check in CHECKS:
        try:
            if check is every_layer_is_called:
                every_layer_is_called(name, not_called)
            else:
                check(name)
        except AssertionError as error:
            raise AssertionError(f"{check.__name__}: {error}") from error


def moving_squares(
    ids: tuple[int, ...], frames: int = 6, size: tuple[int, int] = (129, 193), gone: dict[int, int] | None = None
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.int32]]]:
    """Draw a clip of colored squares that move over gray.

    Args:
        ids: of the squares, at most twelve.
        frames: length of the clip.
        size: (height, width) in pixels.
        gone: id -> the frame from which it is missing.

    Returns:
        frames uint8 RGB [H,W,3], and their labels int32 [H,W].
    """
    high, wide = size[0] // 3, size[1] // 4
    side = 7 * min(high, wide) // 10
    images, labels = [], []
    for t in range(frames):
        image = np.full((*size, 3), 110, np.uint8)
        label = np.zeros(size, np.int32)
        for n, i in enumerate(ids):
            if gone and t >= gone.get(i, frames):
                continue
            row, column = 2 + high * (n // 4), 2 + wide * (n % 4) + t
            image[row : row + side, column : column + side] = COLORS[n % len(COLORS)]
            label[row : row + side, column : column + side] = i
        images.append(image)
        labels.append(label)
    return images, labels


@cache
def tiny_model(name: str) -> VOSModel:
    """Build the variant with small parts and fixed random weights, once."""
    torch.manual_seed(0)
    model: Any = new_model(name, tiny=True)
    assert isinstance(model, VOSModel), (
        f"it is a {type(model).__name__}, which does not derive from vosformer.protocol.VOSModel"
    )
    return model.eval()


def _session(name: str, **settings: Any) -> Session:
    return Session(tiny_model(name), device="cpu", dtype="fp32", size=64, **settings)


@cache
def _clip(ids: tuple[int, ...], frames: int = 4) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.int32]]]:
    return moving_squares(ids, frames, size=(66, 98))


def offers_the_protocol(name: str) -> None:
    """Check that it is a `VOSModel` with sensible attributes."""
    model = tiny_model(name)
    assert isinstance(model, VOSModel)
    assert model.slot_size >= 1
    assert model.feedback in ("hard", "soft")
    assert (model.policy.limited(3).capacity or 4) <= 3


def ids_are_the_users_and_given_masks_win(name: str) -> None:
    """Check that any integer ids come back, given masks win, and probabilities are probabilities."""
    ids = (3, -9, 70_000)
    images, labels = _clip(ids)
    s = _session(name)
    out = s.step(images[0], labels[0])
    assert np.array_equal(out.labels, labels[0])
    for image in images[1:]:
        out = s.step(image)
        assert out.ids == tuple(sorted(ids))
        assert set(np.unique(out.labels)) <= {0, *ids}
        total = np.sum([out.probability(i) for i in ids], 0)
        assert np.isfinite(total).all()
        assert total.max() <= 1 + 1e-4
        assert all(0 <= out.score(i) <= 1 for i in ids)


def later_objects_and_more_than_ten(name: str) -> None:
    """Check that objects may come later, and that there may be more than one slot holds."""
    ids = tuple(range(1, 13))
    images, labels = _clip(ids)
    s = _session(name)
    s.step(images[0], np.where(labels[0] <= 2, labels[0], 0))
    s.step(images[1], np.where((labels[1] > 2) & (labels[1] <= 11), labels[1], 0))
    out = s.step(images[2], np.where(labels[2] == 12, 12, 0))
    assert out.ids == ids
    out = s.step(images[3])
    assert out.ids == ids
    assert out.probability(12).shape == (66, 98)


def removal(name: str) -> None:
    """Check that objects can be taken away, the last one, too, and come back."""
    images, labels = _clip((1, 2, 3))
    s = _session(name)
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


def a_correction_is_remembered(name: str) -> None:
    """Check that a corrected frame changes the next ones."""
    images, labels = _clip((1, 2))
    s = _session(name)
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


def prefix_branch_save_and_restore(name: str) -> None:
    """Check that a state can be branched, saved and restored to the same results."""
    images, labels = _clip((1, 2), 6)
    s = _session(name)
    s.step(images[0], labels[0])
    s.step(images[1])
    s.step(images[2])
    folder = tempfile.TemporaryDirectory()
    s.save(Path(folder.name) / "state")
    branch = s.state
    straight = [s.step(image).probability(1) for image in images[3:]]
    s.state = branch
    s.step(images[5], np.where(labels[5] == 2, 7, 0))
    s.remove(1)
    s.state = branch
    again = [s.step(image).probability(1) for image in images[3:]]
    fresh = _session(name)
    fresh.load(Path(folder.name) / "state")
    folder.cleanup()
    restored = [fresh.step(image).probability(1) for image in images[3:]]
    for a, b, c in zip(straight, again, restored, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)


def memory_is_flat(name: str) -> None:
    """Check that memory stops growing."""
    images, labels = _clip((1, 2), 6)
    s = _session(name, memory="every-1" if tiny_model(name).feedback == "hard" and "onevos" not in name else "default")
    s.step(images[0], labels[0])
    sizes = []
    for t in range(60):
        s.step(images[t % 6])
        sizes.append(s.memory_bytes)
    assert len(set(sizes[50:])) == 1
    assert all(len(cohort.memory.frames) <= 9 for cohort in s.state.views[0])


def _roll(model: VOSModel, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
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
    assert reading is not None
    return reading.logits


def a_batch_is_its_samples_one_by_one(name: str) -> None:
    """Check that training's batches [B*G slots] and inference's single samples compute the same."""
    model = deepcopy(tiny_model(name)).double()
    side = 48 + int(model.geometry.align_corners)
    images = torch.randn(2, 3, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slots = 1 if model.slot_size > 1 else 2
    masks = torch.zeros(2, 3, slots, model.slot_size, side, side, dtype=torch.float64)
    masks[0, :, 0, 0, 5:30, 5:20] = 1
    masks[1, :, -1, -1, 20:45, 10:40] = 1
    with torch.no_grad():
        together = _roll(model, images, masks)
        apart = torch.cat([_roll(model, images[b : b + 1], masks[b : b + 1]) for b in range(2)])
    assert together.shape[:2] == (2 * slots, 1 + model.slot_size)
    assert torch.allclose(together, apart, atol=1e-9)


def bfloat16_agrees(name: str) -> None:
    """Check that bfloat16 gives nearly the same."""
    images, labels = _clip((1, 2))
    results = []
    for dtype in ("fp32", "bf16"):
        torch.manual_seed(0)
        s = Session(variant(name).build(tiny=True), device="cpu", dtype=dtype, size=64)
        s.step(images[0], labels[0])
        results.append(s.step(images[1]).probability(1))
    assert np.abs(results[0] - results[1]).mean() < 0.05


def odd_sizes(name: str) -> None:
    """Check frames of a single pixel, and of odd sizes."""
    for size in ((1, 1), (17, 200), (333, 31)):
        frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        labels = np.zeros(size, np.int32)
        labels[: max(1, size[0] // 2)] = 4
        s = _session(name)
        s.step(frame, labels)
        assert s.step(frame).labels.shape == size


def every_layer_is_called(name: str, not_called: tuple[str, ...] = ()) -> None:
    """Check that hooks see every layer: what replaces or wraps one, as LoRA, quantization and profilers do, has its effect."""
    images, labels = _clip((1, 2))
    s = _session(name)
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.LayerNorm, nn.GroupNorm, FrozenBatchNorm2d)
    layers = {key: module for key, module in s.model.named_modules() if isinstance(module, kinds)}
    seen = set()
    hooks = [module.register_forward_hook(lambda *_, key=key: seen.add(key)) for key, module in layers.items()]
    s.step(images[0], labels[0])
    s.step(images[1])
    for hook in hooks:
        hook.remove()
    silent = [key for key in layers if key not in seen and not any(re.search(rule, key) for rule in not_called)]
    assert not silent


CHECKS: tuple[Callable[[str], None], ...] = (
    offers_the_protocol,
    ids_are_the_users_and_given_masks_win,
    later_objects_and_more_than_ten,
    removal,
    a_correction_is_remembered,
    prefix_branch_save_and_restore,
    memory_is_flat,
    a_batch_is_its_samples_one_by_one,
    bfloat16_agrees,
    odd_sizes,
    every_layer_is_called,
)
"""Every check, as functions of a variant's name."""
