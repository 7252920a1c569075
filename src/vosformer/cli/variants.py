"""`vosformer variants`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, cast

import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from vosformer.cli.common import show_table
from vosformer.errors import InputError
from vosformer.memory import Memory
from vosformer.objects import Cohort, hard_targets
from vosformer.registry import Variant, variant
from vosformer.registry import variants as all_variants
from vosformer.types import Features, VOSModel

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
        network = entry.build(**options).eval()
        model = cast(VOSModel, network)
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
                targets = hard_targets(cohort, labels, model.slot_size, number == 0)
                written = model.write(features, targets, reading, cohort.memory if number else None)
                cohort.memory.add(written, number, number == 0)
            seen.append(counter.get_total_flops() / 1e9)
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(entry.name, parameters, seen[-1], fmean(seen[1:]), cohort.memory.frame_nbytes / 1e6, entry.summary)


def variants(names: tuple[str, ...] = (), *, objects: int = 1, as_json: bool = False, brief: bool = False) -> None:
    """List the variants with their parameters, arithmetic and memory.

    Args:
        names: only these (default: all).
        objects: number of objects followed; the arithmetic of per-object systems grows with it.
        as_json: print JSON instead of a table.
        brief: names and summaries only, at once.
    """
    chosen = [variant(name) for name in names] or list(all_variants())
    if brief:
        for entry in chosen:
            print(f"{entry.name:16} {entry.summary}")
        return
    costs = [cost(entry, objects) for entry in chosen]
    if as_json:
        print(json.dumps([asdict(c) for c in costs], indent=1))
        return
    table = Table(title=f"480 x 854, {objects} object{'s' * (objects > 1)}, memory as in the papers after 12 frames")
    for heading in ("variant", "parameters", "GFLOP a frame", "memory a frame", ""):
        table.add_column(heading, justify="left" if heading in ("variant", "") else "right")
    for c in costs:
        table.add_row(c.name, f"{c.parameters / 1e6:.2f} M", f"{c.gflop:.0f}", f"{c.memory_mb:.1f} MB", c.summary)
    show_table(table)
