"""Schedules, parameter groups, the moving average."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from train_dummy import Dummy

from vosformer.errors import InputError
from vosformer.train.optim import Average, freeze, groups, learning_rate, new_optimizer, set_rate
from vosformer.train.recipe import Optim


def test_warm_up_then_polynomial_decay_as_released():
    optim = Optim(lr=4e-4, lr_min=2e-5, warmup=100, power=0.9)
    assert learning_rate(optim, 0, 1000) == pytest.approx(2e-5)
    assert learning_rate(optim, 50, 1000) == pytest.approx(2.1e-4)
    assert learning_rate(optim, 100, 1000) == pytest.approx(4e-4)
    for step in (101, 550, 999):
        t, total = step - 100, 900
        assert learning_rate(optim, step, 1000) == pytest.approx(2e-5 + 3.8e-4 * (1 - t / (total + 1)) ** 0.9)


def test_step_decay():
    optim = Optim(lr=1e-4, lr_min=0.0, schedule="step", step_at=(10, 20), step_factor=0.1)
    assert [learning_rate(optim, step, 30) for step in (0, 9, 10, 19, 20)] == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6])


def test_groups_by_rate_and_decay():
    model = Dummy()
    optim = Optim(lr_scales=((r"^encoder\.", 0.1),), weight_decay=0.07, no_decay=(r"^head\.weight",))
    found = {name: (g["scale"], g["weight_decay"]) for g in groups(model, optim) for name in g["names"]}
    assert found["encoder.0.weight"] == (0.1, 0.07)
    assert found["encoder.0.bias"] == (0.1, 0.0)
    assert found["key.weight"] == (1.0, 0.07)
    assert found["head.weight"] == (1.0, 0.0)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert all(g["weight_decay"] == 0.07 for g in groups(model, Optim(weight_decay=0.07, no_decay_1d=False)))


def test_the_encoder_rate_is_scaled_above_the_lowest():
    optim = Optim(lr=4e-4, lr_min=2e-5, warmup=0, lr_scales=((r"^encoder\.", 0.1),))
    optimizer = new_optimizer(Dummy(), optim, fused=False)
    assert set_rate(optimizer, optim, 0, 100) == pytest.approx(4e-4)
    rates = {g["scale"]: g["lr"] for g in optimizer.param_groups}
    assert rates[1.0] == pytest.approx(4e-4)
    assert rates[0.1] == pytest.approx(2e-5 + 0.1 * 3.8e-4)


def test_freeze_names_what_it_froze():
    model = Dummy()
    assert freeze(model, (r"^encoder\.0\.",)) == ["encoder.0.weight", "encoder.0.bias"]
    assert not model.encoder[0].weight.requires_grad
    assert "encoder.0.weight" not in {n for g in groups(model, Optim()) for n in g["names"]}
    with pytest.raises(InputError, match="matches no parameter"):
        freeze(model, ("^nothing",))


def test_nothing_to_train_is_refused():
    with pytest.raises(InputError, match="no parameter"):
        new_optimizer(Dummy().requires_grad_(False), Optim(), fused=False)


def test_average_warms_up_and_leaves_frozen_parameters_alone():
    model = nn.Linear(1, 1, bias=False)
    model.register_parameter("frozen", nn.Parameter(torch.ones(1), requires_grad=False))
    model.weight.data.fill_(0.0)
    average = Average(model, 0.99)
    expected = 0.0
    for n, value in enumerate((1.0, 2.0, 3.0), 1):
        model.weight.data.fill_(value)
        average.update()
        decay = min(0.99, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
        assert average.shadow["weight"].item() == pytest.approx(expected)
    assert set(average.shadow) == {"weight"}
    assert average.state(model)["frozen"].item() == 1.0
    with average.in_place(model):
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 3.0


def test_average_reaches_its_decay():
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, 0.5)
    average.updates = 100
    before = average.shadow["weight"].clone()
    model.weight.data.add_(1.0)
    average.update()
    torch.testing.assert_close(average.shadow["weight"], before + 0.5)
