"""What a variant costs, counted on the meta device without running it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vosformer.errors import InputError
from vosformer.inference.objects import Cohort, hard_masks
from vosformer.memory import Memory
from vosformer.protocol import Features
from vosformer.registry import Variant

_SOURCE = (480, 854)


@dataclass(frozen=True)
class Cost:
    """What a variant costs on 480 x 854 frames, counted without running it.

    Attributes:
        name: of the variant.
        parameters: number of trainable and frozen parameters.
        gflop: 10^9 floating-point operations (a multiply-add is two) of one frame in the steady state: encode, read, write, with the
            memory that the policy holds in the end.
        mean_gflop: the same as the mean of all frames but the first, while the memory fills.
        memory_mb: 10^6 bytes of float32 that one remembered frame takes.
        summary: what it is.
    """

    name: str
    parameters: int
    gflop: float
    mean_gflop: float
    memory_mb: float
    summary: str


def cost(entry: Variant, objects: int = 1, frames: int = 12, **options: Any) -> Cost:
    """Count the cost of a variant on the meta device: shapes only, no arithmetic.

    Args:
        entry: the variant.
        objects: how many are followed.
        frames: how many are counted; in the end the memory should be in its steady state.
        options: arguments of the variant's builder.

    Raises:
        InputError: fewer than one object.
    """
    if objects < 1:
        raise InputError(f"--objects is {objects}, expected at least 1")
    with torch.device("meta"), torch.no_grad():
        # Counting hooks want no gradient, even of parameters that are passed on as arguments.
        model = entry.build(**options).eval().requires_grad_(False)
        placement = model.geometry.place(*_SOURCE, 480)
        image = torch.empty(1, 3, *placement.network)
        labels = torch.ones(placement.network, dtype=torch.int32)
        slots = [list(range(1 + s, 1 + min(s + model.slot_size, objects))) for s in range(0, objects, model.slot_size)]
        cohort = Cohort(Memory(model.policy), 0, [list[int | None](slot) for slot in slots])
        seen: list[float] = []
        for number in range(frames):
            with FlopCounterMode(display=False) as counter:
                features: Features = model.encode(image)
                reading = model.read(features, cohort.memory) if number else None
                masks = hard_masks(cohort, labels, model.slot_size, number == 0)
                written = model.write(features, masks, reading, cohort.memory if number else None)
                cohort.memory.add(written, number, number == 0)
            seen.append(counter.get_total_flops() / 1e9)
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(entry.name, parameters, seen[-1], fmean(seen[1:]), cohort.memory.frame_nbytes / 1e6, entry.summary)
