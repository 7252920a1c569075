"""The example of a system of one's own: it tracks, and any recipe trains it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from dummy_models import flat_clip
from train_dummy import Squares

from vosformer import Session, build, registry
from vosformer.testing import check_system
from vosformer.train.batch import Batch
from vosformer.train.recipes import recipe
from vosformer.train.rollout import ClipRollout as Engine


@pytest.fixture(autouse=True)
def example(monkeypatch):
    """Run the example, whose variant is known during a test only."""
    monkeypatch.setattr(registry, "_EXTRA", dict(registry._EXTRA))
    spec = importlib.util.spec_from_file_location("stm_example", Path(__file__).parents[2] / "examples" / "stm.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "stm_example", module)
    spec.loader.exec_module(module)


def test_the_example_tracks_by_its_name():
    images, labels = flat_clip((3, 70_000), 3, size=(66, 98))
    torch.manual_seed(0)
    session = Session(build("stm-mobilenet", tiny=True), device="cpu", dtype="fp32", size=64)
    assert np.array_equal(session.step(images[0], labels[0]).labels, labels[0])
    out = session.step(images[1])
    assert out.ids == (3, 70_000)
    assert out.probability(3).shape == (66, 98)


def test_recipes_of_other_papers_train_the_example():
    clip = Squares(2, 3, 64, side=20)[0]
    batch = Batch(clip.images[None], clip.labels[None], torch.tensor([clip.count]), torch.tensor([0]))
    for name in ("simvos-main", "jointformer-main", "deaot-main"):
        model = build("stm-mobilenet", tiny=True).train()
        Engine(model, recipe(name).scaled(10))(batch, 9).loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_system_of_the_guide_passes_the_checks(monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "new-system.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    module = ModuleType("guide_example")
    monkeypatch.setitem(sys.modules, "guide_example", module)  # where its dataclass looks up its types
    exec(code, module.__dict__)
    check_system("smallest")
