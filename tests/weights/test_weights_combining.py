"""Means of weights, and deeper stacks that begin as shallow ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from dummy_models import flat_clip

from vosformer import registry
from vosformer.cli import main
from vosformer.errors import InputError, WeightsError
from vosformer.inference.session import Session
from vosformer.train.recipe import Model, Recipe
from vosformer.train.start import starting_model
from vosformer.weights import average, build, read_weights, save_weights
from vosformer.weights.combining import deepened

SHALLOW, DEEP = "test-deaot-1", "test-deaot-3"


@pytest.fixture(autouse=True)
def tiny_variants() -> Iterator[None]:
    for name, source in ((SHALLOW, "deaot-t"), (DEEP, "deaot-b")):
        registry.register(registry.Variant(name, "deaot", partial(registry.variant(source).build, tiny=True), "for tests"))
    yield
    registry._EXTRA.clear()


def saved(path: Path, variant: str, seed: int, **overrides: object) -> Path:
    torch.manual_seed(seed)
    model = registry.new_model(variant, **overrides)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn_like(tensor) * 0.1)
    return save_weights(model, variant, path, dtype=torch.float32, overrides=overrides)


def test_average_is_the_mean_of_each_tensor(tmp_path, capsys):
    files = [saved(tmp_path / f"{seed}.safetensors", SHALLOW, seed, identities=4) for seed in range(3)]
    assert main(["weights", "average", *map(str, files), "--out", str(tmp_path / "mean.safetensors")]) == 0
    assert f"mean.safetensors: {SHALLOW}, " in capsys.readouterr().out
    parts = [read_weights(file).tensors for file in files]
    mean = read_weights(tmp_path / "mean.safetensors")
    for name, tensor in mean.tensors.items():
        plain = sum(part[name].double() for part in parts) / 3
        torch.testing.assert_close(tensor.double(), plain, atol=1e-7, rtol=1e-6)
    assert json.loads(mean.metadata["mean_of"]) == ["0.safetensors", "1.safetensors", "2.safetensors"]
    assert build(SHALLOW, mean.path).slot_size == 4


def test_average_refuses_what_does_not_belong_together(tmp_path, capsys):
    one, other = saved(tmp_path / "one.safetensors", SHALLOW, 0), saved(tmp_path / "other.safetensors", DEEP, 0)
    with pytest.raises(InputError, match="two weights files or more, found 1"):
        average([one], tmp_path / "mean.safetensors")
    assert main(["weights", "average", str(one), str(other), "--out", str(tmp_path / "mean.safetensors")]) == 2
    assert f"other.safetensors holds '{DEEP}', not '{SHALLOW}'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "mean.safetensors").exists()


def test_a_deeper_stack_begins_as_the_shallow_one(tmp_path):
    file = saved(tmp_path / "shallow.safetensors", SHALLOW, 1)
    recipe = Recipe("test", "test", model=Model(DEEP, deepen=True))
    models = [build(SHALLOW, file), starting_model(recipe, file).eval()]
    images, labels = flat_clip((1, 2), frames=4)
    sessions = [Session(model, device="cpu", dtype="fp32") for model in models]
    for image, mask in zip(images, [labels[0], None, None, None], strict=True):
        shallow, deep = (session.step(image, mask) for session in sessions)
        for i in (1, 2):
            np.testing.assert_allclose(shallow.probability(i), deep.probability(i), atol=1e-5)
    # A training that goes on from it sees a variant of its own.
    again = save_weights(models[1], DEEP, tmp_path / "deep.safetensors", dtype=torch.float32)
    state = starting_model(recipe, again).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in models[1].state_dict().items())


def test_average_deepens_what_is_shallower(tmp_path):
    deep, shallow = saved(tmp_path / "deep.safetensors", DEEP, 3), saved(tmp_path / "shallow.safetensors", SHALLOW, 4)
    for out in ("mean", "again"):
        target = str(tmp_path / f"{out}.safetensors")
        assert main(["weights", "average", str(deep), str(shallow), "--variant", DEEP, "--out", target]) == 0
    mean = build(DEEP, tmp_path / "mean.safetensors").state_dict()
    again = build(DEEP, tmp_path / "again.safetensors").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in mean.items())
    parts = read_weights(deep).tensors, read_weights(shallow).tensors
    for name in parts[1]:
        torch.testing.assert_close(mean[name], sum(part[name] for part in parts) / 2)
    silent = "LSTT.layers.2.self_attn.projection.weight"
    torch.testing.assert_close(mean[silent], parts[0][silent] / 2)


def test_further_layers_can_learn(tmp_path):
    file = saved(tmp_path / "shallow.safetensors", SHALLOW, 2)
    state = starting_model(Recipe("test", "test", model=Model(DEEP, deepen=True)), file).state_dict()
    assert torch.equal(state["LSTT.layers.2.linear_QV.weight"], state["LSTT.layers.0.linear_QV.weight"])
    assert not state["LSTT.layers.1.self_attn.projection.weight"].any()
    # Were the rest zero, too, no gradient would reach the projections.
    assert state["LSTT.layers.1.linear_ID_U.weight"].any()
    half = state["LSTT.layers.0.linear_ID_V.weight"].shape[1]
    assert torch.equal(state["LSTT.layers.1.linear_ID_V.weight"][:, half:], state["LSTT.layers.0.linear_ID_V.weight"])


def test_only_the_number_of_layers_may_differ(tmp_path):
    aot = registry.new_model("aot-s", tiny=True)
    with pytest.raises(WeightsError, match="nothing but the number of layers differs"):
        deepened(registry.new_model("aot-t", tiny=True).state_dict(), aot)
    with pytest.raises(WeightsError, match="nothing but the number of layers differs"):
        deepened(registry.new_model(DEEP).state_dict(), registry.new_model(SHALLOW))
