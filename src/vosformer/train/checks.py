"""Whether a recipe's numbers make sense, before anything is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from vosformer.errors import InputError
from vosformer.train.recipe import Recipe

_AT_LEAST = {
    "data.frames": 2,
    "data.crop": 16,
    "data.width": 16,
    "data.max_objects": 1,
    "rollout.gap": 1,
    "rollout.references": 1,
    "run.steps": 1,
    "run.batch": 1,
    "run.accumulate": 0,
    "run.seed": 0,
    "run.workers": 0,
    "run.save_every": 1,
    "run.keep": 0,
    "run.shard_mib": 1,
    "run.log_every": 1,
    "run.picture_every": 0,
    "optim.warmup": 0,
    "optim.lr": 0.0,
    "optim.lr_min": 0.0,
    "optim.weight_decay": 0.0,
    "optim.clip": 0.0,
}
_SHARES = ("data.reverse", "data.merge", "optim.ema", "loss.top_share", "rollout.update_probability")
_POSITIVE = ("optim.lr", "optim.clip", "loss.top_share")


def checked(recipe: Recipe) -> Recipe:
    """The recipe itself.

    Raises:
        InputError: a number out of its range, numbers that contradict each other, or a pattern that is no regular expression; the
            message names the setting.
    """
    values = dict(recipe.flat())
    for key, least in _AT_LEAST.items():
        value = values[key]
        if value is not None and not (math.isfinite(value) and value >= least):
            raise InputError(f"{key} is {value}, expected at least {least}")
    for key in _SHARES:
        if values[key] is not None and not 0 <= values[key] <= 1:
            raise InputError(f"{key} is {values[key]}, expected 0 to 1")
    for key in _POSITIVE:
        if values[key] == 0:
            raise InputError(f"{key} is 0, expected a number above 0")
    low, high = recipe.data.window
    if not 0 < low <= high <= 1:
        raise InputError(f"data.window is {recipe.data.window}, expected (smallest, largest) above 0 and up to 1")
    curriculum = recipe.data.gap_curriculum
    if curriculum and curriculum[0][0] != 0:
        raise InputError(f"data.gap_curriculum begins at step {curriculum[0][0]}, expected a gap from step 0 on, e.g. 0:5")
    _check_optim(recipe)
    for key, patterns in _patterns(recipe):
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"{key}: {pattern!r} is no regular expression: {error}") from None
    return recipe


def _check_optim(recipe: Recipe) -> None:
    optim = recipe.optim
    if optim.ema is not None and optim.ema >= 1:
        raise InputError(f"optim.ema is {optim.ema}, expected less than 1: the average would never change")
    if not all(0 <= beta < 1 for beta in optim.betas):
        raise InputError(f"optim.betas are {optim.betas}, expected two numbers from 0 to below 1")
    if optim.schedule == "poly" and optim.lr < optim.lr_min:
        raise InputError(
            f"optim.lr is {optim.lr:g}, less than optim.lr_min = {optim.lr_min:g}, so the rate would rise; lower optim.lr_min, too"
        )


def _patterns(recipe: Recipe) -> Iterable[tuple[str, Iterable[str]]]:
    return (
        ("model.freeze", recipe.model.freeze),
        ("model.may_miss", recipe.model.may_miss),
        ("optim.no_decay", recipe.optim.no_decay),
        ("optim.lr_scales", [pattern for pattern, _ in recipe.optim.lr_scales]),
        ("rollout.freeze_own_masks", recipe.rollout.freeze_own_masks),
    )
