"""The paths that run on a GPU, without one: meta tensors know shapes and their device, and cannot tell a value to the host.

A path that mixes devices, or waits for a value (`item`, `tolist`, `cpu`, `nonzero`), fails. Dynamic token selection (OneVOS-D) does
wait: how many tokens are kept is a value; in graphs, where shapes are fixed, it does not.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from vosformer.memory import Memory
from vosformer.nn.graphs import as_graph
from vosformer.nn.norm import for_inference
from vosformer.policy import named_policy
from vosformer.protocol import ObjectMasks, VOSModel
from vosformer.registry import new_model, variants


def _frames(model: VOSModel, slots: int, frames: int = 3) -> None:
    height, width = (97, 129) if model.geometry.align_corners else (96, 128)
    memory = Memory(named_policy("default", model.policy))
    reading = None
    for t in range(frames):
        features = model.encode(torch.empty(1, 3, height, width, device="meta"))
        if t:
            reading = model.read(features, memory)
            assert reading.logits.is_meta
        own = torch.empty(slots, model.slot_size, height, width, device="meta")
        entry = model.write(features, ObjectMasks(own, own[:, :1], t == 0), reading, memory if t else None)
        assert all(tensor.is_meta for layer in entry.layers for tensor in layer.values())
        memory.add(entry, t, t == 0)


@pytest.mark.parametrize("name", [each.name for each in variants()])
@torch.no_grad()
def test_nothing_waits_for_the_device(name: str) -> None:
    model = for_inference(new_model(name, tiny=True).eval().to("meta"))
    chooses = name.startswith("onevos") and name.endswith("-d")
    with as_graph() if chooses else nullcontext():
        _frames(model, 2, 2 if chooses else 3)
