"""Every system through the real trainer: gradients reach every parameter, and one clip can be learned by heart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from train_dummy import Squares

from vosformer.data.datasets.video import Curriculum
from vosformer.data.synthetic.assets import Assets
from vosformer.data.synthetic.compose import ComposeConfig, ComposedDataset
from vosformer.data.types import Clip
from vosformer.encoders.convmae import CONVVIT_TINY
from vosformer.encoders.vit import VIT_TINY
from vosformer.registry import new_model, variants
from vosformer.train.batch import Batch
from vosformer.train.distributed import Processes
from vosformer.train.recipe import Recipe
from vosformer.train.recipes import recipe, recipes
from vosformer.train.rollout import ClipRollout as Engine
from vosformer.train.trainer import Trainer

STAGES = {
    "aot": "aot-main",
    "aost": "aost-main",
    "deaot": "deaot-main",
    "simvos": "simvos-main",
    "jointformer": "jointformer-main",
    "onevos": "onevos-main",
}
SMALL: dict[str, dict[str, Any]] = {
    "simvos": {"size": VIT_TINY, "fused": 96, "decoder": 64},
    "jointformer": {"size": CONVVIT_TINY, "updates": 1, "fused": 96, "decoder": 48},
}
KNOWN = {variant.name: variant for variant in variants() if variant.system in STAGES}


def small_model(name: str) -> nn.Module:
    """The variant with every part of it, but little of each."""
    options = dict(SMALL.get(KNOWN[name].system, {"tiny": True}))
    if name in ("jointformer-gru", "jointformer-naive"):
        options = {"tiny": True}
    if name == "simvos-bs":
        options |= {"within": 1, "prototypes": (16, 16)}
    torch.manual_seed(0)
    return new_model(name, **options).train()


def settled(name: str, **run: Any) -> Recipe:
    """The recipe of the system's paper over few steps."""
    chosen = recipe(STAGES[KNOWN[name].system]).scaled(100)
    return replace(chosen, run=replace(chosen.run, precision="fp32", **run))


@pytest.mark.parametrize("step", [0, 80])
@pytest.mark.parametrize("name", KNOWN)
def test_every_trainable_parameter_gets_a_gradient(name, step):
    model = small_model(name)
    settings = settled(name)
    settings = replace(settings, rollout=replace(settings.rollout, update_probability=1.0))
    for parameter in model.parameters():
        if not parameter.any():
            # Layers that begin with zeros hide those before them.
            nn.init.normal_(parameter, std=0.02)
    size = 65 if model.geometry.align_corners else 64
    clips = [Squares(2, settings.data.frames, size, side=30)[i] for i in range(2)]
    batch = Batch(
        torch.stack([c.images for c in clips]),
        torch.stack([c.labels for c in clips]),
        torch.tensor([c.count for c in clips]),
        torch.arange(2),
    )
    Engine(model, settings)(batch, step).loss.backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not silent
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


TINY = ("aot-t", "aost", "deaot-t", "simvos-tiny", "jointformer-tiny", "onevos-tiny", "onevos-tiny-d")
PAIRS = [(each, name) for each in recipes() for name in TINY]


def trains(each: str, name: str) -> None:
    """Take the first step of a recipe, and one of its last, with a tiny system."""
    settings = recipe(each).scaled(10)
    torch.manual_seed(0)
    model = new_model(name, tiny=True).train()
    clip = Squares(1, 3, 33 if model.geometry.align_corners else 32, side=16)[0]
    batch = Batch(clip.images[None], clip.labels[None], torch.tensor([clip.count]), torch.tensor([0]))
    engine = Engine(model, settings)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-4)
    for step in (0, 9):
        optimizer.zero_grad()
        loss = engine(batch, step).loss
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
        assert any(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("each", "name"), [pair for i, pair in enumerate(PAIRS) if i % 8 == 0 or pair[0] == "jointformer-main"]
)
def test_any_recipe_trains_any_system(each, name):
    trains(each, name)


@pytest.mark.slow
@pytest.mark.parametrize(("each", "name"), PAIRS)
def test_every_recipe_trains_every_system(each, name):
    trains(each, name)


def test_jointformer_skips_updates_of_its_compressed_memory(monkeypatch):
    model = small_model("jointformer-b")
    settings = settled("jointformer-b")
    asked = []
    write = model.write

    def watched(*arguments, **options):
        asked.append(options.get("update", True))
        return write(*arguments, **options)

    monkeypatch.setattr(model, "write", watched)
    engine = Engine(model, settings)
    clip = Squares(1, 4, 64, side=30)[0]
    for index in range(20):
        batch = Batch(clip.images[None], clip.labels[None], torch.tensor([1]), torch.tensor([index]))
        with torch.no_grad():
            engine(batch, index)
    assert all(asked[::3])
    later = [update for i, update in enumerate(asked) if i % 3]
    assert 0.4 < np.mean(later) < 0.8


class OneClip:
    """The same clip for ever."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip

    def __getitem__(self, index: int, /) -> Clip:
        return self._clip


LEARNERS = {
    "aot-l": {},
    "aost": {},
    "deaot-l": {},
    "simvos-tiny": {},
    "jointformer-tiny": {},
    "onevos-tiny": {},
    "onevos-tiny-d": {},
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", LEARNERS)
def test_one_clip_is_learned_by_heart(tmp_path, name):
    settings = settled(name, batch=1, accumulate=1, workers=0, picture_every=0, log_every=20)
    steps = 240
    model = small_model(name)
    size = 97 if model.geometry.align_corners else 96
    config = ComposeConfig(
        (size, size), settings.data.frames, Curriculum(((0, 2),)), objects=(0, 0, 1.0), distractors=(1.0,), extent=(0.35, 0.6)
    )
    clip = ComposedDataset(Assets(), config, seed=3)[0]
    optim = replace(settings.optim, algorithm="adamw", lr=1e-3, lr_min=1e-4, lr_scales=(), schedule="poly", clip=1.0, ema=None)
    settings = replace(
        settings.scaled(steps),
        model=replace(settings.model, variant=name),
        optim=replace(optim, warmup=10),
        rollout=replace(settings.rollout, permute=False, own_masks_from=180, freeze_own_masks=()),
    )
    Trainer(model, settings, OneClip(clip), tmp_path, Processes(0, 1, torch.device("cpu"))).run()
    batch = Batch(clip.images[None], clip.labels[None], torch.tensor([clip.count]), torch.tensor([0]))
    with torch.no_grad():
        labels = Engine(model.eval(), settings)(batch, steps, True).labels[0]
    scores = []
    for t in range(1, len(labels)):
        for i in range(1, clip.count + 1):
            predicted, true = labels[t] == i, clip.labels[t] == i
            union = (predicted | true).sum()
            scores.append(float((predicted & true).sum() / union) if union else 1.0)
    assert np.mean(scores) > 0.9, scores
