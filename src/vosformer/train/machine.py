"""What the machine decides: number format and parts of a step."""

from __future__ import annotations

import math

import torch

from vosformer.device import choose_dtype
from vosformer.errors import InputError
from vosformer.train.batch import Shares
from vosformer.train.processes import Processes
from vosformer.train.recipe import Recipe

# On a CPU, pixels of all frames that are worked on at once; more only costs memory.
_CPU_PIXELS = 2_500_000


def shares(recipe: Recipe, processes: Processes) -> Shares:
    """Who computes which clips, and in how many parts.

    Raises:
        InputError: the batch cannot be shared evenly.
    """
    run, data = recipe.run, recipe.data
    if run.accumulate or processes.device.type != "cpu" or run.batch % processes.world:
        return Shares(run.batch, run.accumulate or 1, processes.rank, processes.world).checked()
    each = run.batch // processes.world
    most = max(1, _CPU_PIXELS // (data.frames * math.prod(data.size)))
    parts = next(parts for parts in range(1, each + 1) if each % parts == 0 and each // parts <= most)
    return Shares(run.batch, parts, processes.rank, processes.world).checked()


def precision(recipe: Recipe, device: torch.device) -> str:
    """The number format, fp32, bf16 or fp16: what the recipe asks for; "amp" is the papers' or the nearest that the device has.

    Raises:
        InputError: fp16 without a CUDA GPU.
    """
    wanted = recipe.run.precision
    if wanted == "fp16" and device.type != "cuda":
        raise InputError(f"run.precision=fp16 needs a CUDA GPU (device is {device}); use bf16 or fp32")
    if wanted != "amp":
        return wanted
    if device.type == "cuda":
        return "fp16"
    return "bf16" if choose_dtype("auto", device) is torch.bfloat16 else "fp32"
