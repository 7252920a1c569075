"""A clip with moving discs for the tests of exported graphs, what is given on it, and graphs that run as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vosformer.export.exporting import bounded_policy, describe
from vosformer.export.runner import Session as Runner
from vosformer.export.signatures import make_graphs
from vosformer.inference.session import Session
from vosformer.nn.norm import for_inference
from vosformer.protocol import VOSModel

SIZE = 96
HEIGHT, WIDTH = 100, 133


class Step(NamedTuple):
    """One frame: what is given, for which ids, and who leaves before it."""

    frame: NDArray[np.uint8]
    labels: NDArray[np.int32] | None
    ids: list[int] | None
    gone: tuple[int, ...]


def clip(frames: int, height: int = HEIGHT, width: int = WIDTH) -> Iterator[Step]:
    """Two objects (one of them very small), a third at a third of the clip, a correction at a half, one leaves at two thirds."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    unit = height / 100
    for t in range(frames):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[..., 0], frame[..., 1] = (x * 2 + t) % 255, (y * 3) % 255
        labels = np.zeros((height, width), np.int32)
        discs = [(30 + t % 30, 30 + t % 50, 14), (60, 80 - t % 40, 17), (40 + t % 20, 100, 3)]
        for i, (row, column, radius) in enumerate(discs, 1):
            inside = (y / unit - row) ** 2 + (x / unit - column) ** 2 < radius**2
            labels[inside], frame[inside] = i, (60 * i, 255 - 50 * i, 40 * i)
        frame += rng.integers(0, 9, frame.shape, np.uint8)
        given: NDArray[np.int32] | None = None
        ids: list[int] | None = None
        if t == 0:
            given = np.where(labels == 2, 0, labels)
        elif t == frames // 3:
            given = np.where(labels == 2, 2, 0).astype(np.int32)
        elif t == frames // 2:
            given, ids = np.where(labels == 1, 1, 0).astype(np.int32), [1]
        yield Step(frame, given, ids, (3,) if t == 2 * frames // 3 else ())


class EagerGraph:
    """A graph of `make_graphs` that runs as it is: what the exporters are given, without the exporters."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.shapes = {name: tuple(tensor.shape) for name, tensor in graph.inputs.items()}

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        tensors = []
        for name, like in self._graph.inputs.items():
            array = torch.from_numpy(np.ascontiguousarray(values[name]))
            assert array.shape == like.shape, (name, array.shape, like.shape)
            tensors.append(array.to(like.dtype))
        with torch.no_grad():
            found = self._graph(*tensors)
        return {name: tensor.numpy() for name, tensor in zip(self._graph.outputs, found, strict=True)}


def eager_runner(model: VOSModel, folder: Path, memory: str = "default", **options: Any) -> Runner:
    """Return a runner over graphs that were not exported."""
    network = model.geometry.place(HEIGHT, WIDTH, SIZE).network
    policy = bounded_policy(model, memory, None)
    graphs = make_graphs(for_inference(model), network, policy.capacity or 8, torch.float32, 4, options)
    about = describe(model, graphs, policy, "tiny", torch.float32, network, SIZE, options)
    about["graphs"] = {name: {"file": name} for name in graphs.graphs}
    (folder / "model.json").write_text(json.dumps(about))
    return Runner(folder, size=SIZE, load=lambda path: EagerGraph(graphs.graphs[path.name]))


def agreement(session: Session, runner: Any, frames: int, **options: Any) -> float:
    """Run both over the clip; return the share of the pixels with the same label."""
    same = total = 0
    for step in clip(frames):
        for i in step.gone:
            session.remove(i)
            runner.remove(i)
        expected = session.step(step.frame, step.labels, ids=step.ids, **options)
        found = runner.step(step.frame, step.labels, ids=step.ids)
        assert found.ids == expected.ids
        assert found.given == expected.given
        same += int((found.labels == expected.labels).sum())
        total += expected.labels.size
        for i in expected.ids:
            assert abs(found.score(i) - expected.score(i)) < 0.02
            np.testing.assert_allclose(found.probability(i), expected.probability(i), atol=0.05)
    return same / total
