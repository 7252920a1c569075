"""`vosformer variants`."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict

from rich.table import Table

from vosformer.cli.terminal import show_table
from vosformer.inspection.cost import cost
from vosformer.registry import variant
from vosformer.registry import variants as all_variants


def variants(names: tuple[str, ...] = (), *, objects: int = 1, json: bool = False, brief: bool = False) -> None:
    """List the variants with their parameters, arithmetic and memory.

    Args:
        names: only these (default: all).
        objects: number of objects followed; the arithmetic of per-object systems grows with it.
        json: print JSON instead of a table.
        brief: names and summaries only, at once.
    """
    chosen = [variant(name) for name in names] or list(all_variants())
    if brief:
        for entry in chosen:
            print(f"{entry.name:16} {entry.summary}")
        return
    costs = [cost(entry, objects) for entry in chosen]
    if json:
        print(jsonlib.dumps([asdict(c) for c in costs], indent=1))
        return
    table = Table(title=f"480 x 854, {objects} object{'s' * (objects > 1)}, memory as in the papers after 12 frames")
    for heading in ("variant", "parameters", "GFLOP a frame", "memory a frame", ""):
        table.add_column(heading, justify="left" if heading in ("variant", "") else "right")
    for c in costs:
        table.add_row(c.name, f"{c.parameters / 1e6:.2f} M", f"{c.gflop:.0f}", f"{c.memory_mb:.1f} MB", c.summary)
    show_table(table)
