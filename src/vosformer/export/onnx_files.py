"""Graphs as ONNX files that share one file of weights."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from vosformer.errors import InputError
from vosformer.export.programs import refusals, trace
from vosformer.export.shapes import Free
from vosformer.export.signatures import Graph

if TYPE_CHECKING:
    import onnx_ir

WEIGHTS = "weights.bin"
OPSET = 20
_SMALL = 1 << 10  # bytes of a constant that stays in the graph's own file
_ALIGNED = 4096  # where weights begin, so that a runtime can map them into memory


def need_onnx() -> None:
    """Refuse to go on without the packages of the extra.

    Raises:
        InputError: one of them is missing.
    """
    try:
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"exporting to ONNX needs the package {error.name}: pip install 'vosformer[export]'") from None


def write_onnx(
    graphs: Mapping[str, Graph],
    folder: Path,
    needed: Mapping[str, Collection[str]],
    notes: Mapping[str, str],
    free: Free,
    say: Callable[[str], None],
) -> dict[str, dict[str, list[str]]]:
    """Write `NAME.onnx` for each graph, and `weights.bin` for all.

    Args:
        graphs: name -> graph.
        folder: there, and empty.
        needed: for each graph the outputs that are needed, by prefix; all others are left out.
        notes: key -> value, metadata of every file.
        free: what may vary.
        say: is called with what is being done.

    Returns:
        name -> "inputs" and "outputs", the names that the graph has in the end.

    Raises:
        InputError: one of them cannot be traced, or has an operation that ONNX has not.
    """
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    found: dict[str, dict[str, list[str]]] = {}
    with (folder / WEIGHTS).open("wb") as weights:
        stored: dict[str, tuple[int, int]] = {}
        for name, graph in graphs.items():
            say(f"exporting {name}")
            with refusals(name, free):
                model = _export(graph, free)
            kept = [out for out in model.graph.outputs if _begins(out.name or "", needed.get(name))]
            model.graph.outputs[:] = kept
            RemoveUnusedNodesPass()(model)
            model.graph.inputs[:] = [value for value in model.graph.inputs if value.uses() or value.is_graph_output()]
            _share(model, weights, stored, folder)
            model.metadata_props.update(notes)
            onnx_ir.save(model, folder / f"{name}.onnx")
            found[name] = {
                "inputs": [value.name or "" for value in model.graph.inputs],
                "outputs": [value.name or "" for value in model.graph.outputs],
            }
    return found


def _begins(name: str, prefixes: Collection[str] | None) -> bool:
    return prefixes is None or name.startswith(tuple(prefixes))


def _export(graph: Graph, free: Free) -> onnx_ir.Model:
    with _quiet():
        program = torch.onnx.export(
            trace(graph, free),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    model: onnx_ir.Model = program.model
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's hints for its own developers from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _share(model: onnx_ir.Model, weights: BinaryIO, stored: dict[str, tuple[int, int]], folder: Path) -> None:
    """Move what is large to the common file, the same values once for all graphs."""
    import onnx_ir

    for value in list(model.graph.initializers.values()):
        tensor: Any = value.const_value
        if tensor is None or tensor.nbytes < _SMALL:
            continue
        data = tensor.tobytes()
        key = hashlib.sha256(data).hexdigest()
        if key not in stored:
            weights.write(b"\0" * (-weights.tell() % _ALIGNED))
            stored[key] = (weights.tell(), len(data))
            weights.write(data)
            weights.flush()
        offset, length = stored[key]
        value.const_value = onnx_ir.ExternalTensor(
            WEIGHTS, offset, length, tensor.dtype, shape=tensor.shape, name=value.name or "", base_dir=folder
        )
