"""Optimizers, parameter groups, learning-rate schedules and the moving average of the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vosformer.errors import InputError
from vosformer.train.recipe import Optim


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Return the rate of step `step` (from 0) of `steps`.

    Warm-up rises linearly from `lr_min` to `lr`. Then "poly" is lr_min + (lr - lr_min) * (1 - t / (T + 1)) ** power with t and T
    counted after the warm-up (the released AOT code), "step" is a constant that falls by `step_factor` at each of `step_at`.
    """
    if step < optim.warmup:
        return optim.lr_min + (optim.lr - optim.lr_min) * step / optim.warmup
    if optim.schedule == "step":
        return optim.lr * optim.step_factor ** sum(step >= at for at in optim.step_at)
    t, total = step - optim.warmup, max(1, steps - optim.warmup)
    return float(optim.lr_min + (optim.lr - optim.lr_min) * (1 - min(t, total) / (total + 1)) ** optim.power)


def freeze(model: nn.Module, patterns: Iterable[str], strict: bool = True) -> list[str]:
    """Stop training the parameters whose names match one of the regular expressions; returns those names.

    Raises:
        InputError: if `strict`, a pattern that matches no parameter.
    """
    frozen = []
    for pattern in patterns:
        found = [name for name, _ in model.named_parameters() if re.search(pattern, name)]
        if strict and not found:
            raise InputError(f"model.freeze: {pattern!r} matches no parameter")
        frozen += found
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return frozen


def groups(model: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """Return the trainable parameters, by learning-rate factors and weight decay; each group also has their `names`."""
    found: dict[tuple[float, float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = next((factor for pattern, factor in optim.lr_scales if re.search(pattern, name)), 1.0)
        times = next((factor for pattern, factor in optim.lr_times if re.search(pattern, name)), 1.0)
        free = (optim.no_decay_1d and parameter.ndim <= 1) or any(re.search(pattern, name) for pattern in optim.no_decay)
        decay = 0.0 if free else optim.weight_decay
        fresh = {"params": [], "names": [], "scale": scale, "times": times, "weight_decay": decay}
        group = found.setdefault((scale, times, decay), fresh)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(found.values())


def new_optimizer(model: nn.Module, optim: Optim, fused: bool | None) -> torch.optim.Optimizer:
    """Return a fresh optimizer over the model's trainable parameters.

    Raises:
        InputError: nothing is trainable.
    """
    made = groups(model, optim)
    if not made:
        raise InputError("no parameter of the model is trainable: model.freeze names all of them")
    kind = torch.optim.AdamW if optim.algorithm == "adamw" else torch.optim.Adam
    return kind(made, lr=optim.lr, betas=optim.betas, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, optim: Optim, step: int, steps: int) -> float:
    """Give every group its rate for `step`; returns that of the groups with factor 1."""
    rate = learning_rate(optim, step, steps)
    low = min(optim.lr_min, rate)
    for group in optimizer.param_groups:
        own = low + group["scale"] * (rate - low)
        group["lr"] = own if group["times"] == 1 else min(group["times"] * own, rate)
    return rate


class Average:
    """The exponential moving average of the trainable parameters (AOT: warm-up min(decay, (1 + n) / (10 + n)) after n updates)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.shadow: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the current weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.shadow.values()), list(self._live.values()), 1 - decay)

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the model's state with the averaged weights in place of the live ones."""
        return {**model.state_dict(), **self.shadow}

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        live = {name: value.detach().clone() for name, value in self._live.items()}
        model.load_state_dict(self.shadow, strict=False)
        try:
            yield
        finally:
            model.load_state_dict(live, strict=False)

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Take over a saved average (names that are not averaged are ignored)."""
        self.updates = updates
        for name, value in self.shadow.items():
            value.copy_(state[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors by `parameter|name`."""
    tensors = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{name}|{key}"] = value
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Take over tensors that `optimizer_tensors` gave."""
    named = {n: (p, g) for g in optimizer.param_groups for n, p in zip(g["names"], g["params"], strict=True)}
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition("|")
        states.setdefault(name, {})[entry] = value
    for name, state in states.items():
        parameter, group = named[name]
        moved = {}
        for entry, value in state.items():
            if value.ndim:
                moved[entry] = torch.empty_like(parameter).copy_(value)  # in the parameter's memory layout
            else:
                # The counter lies where the optimizer makes it: elsewhere every step would wait for the device.
                moved[entry] = value.to(parameter.device if group["fused"] else "cpu")
        optimizer.state[parameter] = moved
