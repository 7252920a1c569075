"""Graphs as programs of torch.export (`.pt2`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from vosformer.export.shapes import Free, axes
from vosformer.export.signatures import Graph
from vosformer.nn.graphs import as_graph


def trace(graph: Graph, free: Free) -> torch.export.ExportedProgram:
    """Trace a graph; all that is not free to vary has the shape of its example."""
    shapes = axes(graph.inputs, free)
    with torch.no_grad(), as_graph():
        return torch.export.export(
            graph,
            tuple(graph.inputs.values()),
            dynamic_shapes=None if shapes is None else (tuple(shapes.values()),),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=shapes is not None,
        )


def write_programs(
    graphs: Mapping[str, Graph], folder: Path, notes: Mapping[str, str], free: Free, say: Callable[[str], None]
) -> dict[str, dict[str, list[str]]]:
    """Write `NAME.pt2` for each graph: functions of tensors by position, whose names are in model.json.

    Returns:
        name -> "inputs" and "outputs", in the order in which the program takes and gives them.
    """
    found = {}
    for name, graph in graphs.items():
        say(f"tracing {name}")
        torch.export.save(trace(graph, free), folder / f"{name}.pt2", extra_files={"notes.json": json.dumps(dict(notes))})
        found[name] = {"inputs": list(graph.inputs), "outputs": list(graph.outputs)}
    return found
