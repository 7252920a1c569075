"""Graphs as programs of torch.export (`.pt2`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from vosformer.errors import InputError
from vosformer.export.shapes import Free, axes
from vosformer.export.signatures import Graph
from vosformer.nn.graphs import as_graph


@contextmanager
def refusals(name: str, free: Free) -> Iterator[None]:
    """Turn what PyTorch raises when it cannot make a graph, errors of many kinds, into one of ours.

    Raises:
        InputError: says which graph, and what would help.
    """
    try:
        yield
    except Exception as error:
        hint = "for frames of any size; one size may work (--size HxW)" if free.size else "for frames of this size"
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise InputError(f"{name} of this model cannot be made a graph {hint}. PyTorch says: {lines[0]}") from error


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

    Raises:
        InputError: one of them cannot be traced.
    """
    found = {}
    for name, graph in graphs.items():
        say(f"tracing {name}")
        with refusals(name, free):
            program = trace(graph, free)
        torch.export.save(program, folder / f"{name}.pt2", extra_files={"notes.json": json.dumps(dict(notes))})
        found[name] = {"inputs": list(graph.inputs), "outputs": list(graph.outputs)}
    return found
