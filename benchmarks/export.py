"""Exported graphs beside PyTorch: milliseconds a frame of a session, of onnxruntime and, where it is installed, of OpenVINO.

    python benchmarks/export.py                                  # the packaged weights, 480p, 3 objects
    python benchmarks/export.py --model aot-t --short 240 --frames 12

All take the same frames in turn, one frame each, so that whatever else the machine does hits all alike; medians over the frames after
the first two are printed, by the clock and in CPU time (of all threads), and the share of the pixels that have the session's labels.
fp32; graphs of a fixed size (`--dynamic`: of any). Variants without packaged weights get random ones: they do not change the time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from vosformer import Session
from vosformer.device import tune_process
from vosformer.export import export
from vosformer.export.runner import Session as Runner
from vosformer.weights import build


class OpenVINOGraph:
    """A graph in OpenVINO, as the runner takes it."""

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        core = openvino.Core()
        self._model = core.compile_model(
            core.read_model(path), "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        )
        self.shapes = {
            each.any_name: [side.get_length() if side.is_static else None for side in each.partial_shape]
            for each in self._model.inputs
        }
        self._kinds = {each.any_name: each.element_type.to_dtype() for each in self._model.inputs}

    def __call__(self, values: dict) -> dict:
        found = self._model({name: np.ascontiguousarray(values[name], kind) for name, kind in self._kinds.items()})
        return {output.any_name: found[output] for output in self._model.outputs}


def clip(frames: int, height: int, objects: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Discs that move over a noisy ground, and their masks on the first frame."""
    width = round(height * 16 / 9)
    y, x = np.mgrid[:height, :width] / height
    ground = np.random.default_rng(0).integers(0, 90, (height, width, 3), np.uint8)
    pictures, first = [], np.zeros((height, width), np.int32)
    for t in range(frames):
        picture = ground.copy()
        for i in range(objects):
            inside = (y - 0.3 - 0.1 * (i % 4)) ** 2 + (x - 0.2 - 0.4 * i % 1.4 - 0.004 * t) ** 2 < 0.12**2
            picture[inside] = (80 + 25 * i % 170, 255 - 40 * i % 200, 60 + 90 * i % 190)
            if t == 0:
                first[inside] = i + 1
        pictures.append(picture)
    return pictures, first


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--short", type=int, default=480, help="short side of the frames")
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--fixed-bank", action="store_true", help="the whole bank in every read, as far as it is filled or not")
    parser.add_argument("--tiny", action="store_true", help="the variant at tiny size: a rehearsal")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tune_process(torch.device("cpu"))
    frames, labels = clip(options.frames, options.short, options.objects)
    model = build(options.model, **({"tiny": True} if options.tiny else {})).eval()
    with tempfile.TemporaryDirectory() as folder:
        network = model.geometry.place(*labels.shape, options.short).network
        size = None if options.dynamic else network
        export(model, Path(folder) / "out", size=size, frame_size=options.short, fixed_bank=options.fixed_bank)
        session = Session(model, device="cpu", dtype="fp32", size=options.short, closer="off", islands="keep")
        tracks = {"PyTorch": session, "onnxruntime": Runner(Path(folder) / "out", size=options.short, threads=options.threads)}
        with suppress(ImportError):
            tracks["OpenVINO"] = Runner(
                Path(folder) / "out", size=options.short, load=lambda path: OpenVINOGraph(path, options.threads)
            )
        spent: dict[str, list[np.ndarray]] = {name: [] for name in tracks}
        same = dict.fromkeys(tracks, 0)
        for t, frame in enumerate(frames):
            found = {}
            for name, track in tracks.items():
                begin = np.array([time.perf_counter(), time.process_time()])
                found[name] = track.step(frame, labels if t == 0 else None).labels
                spent[name].append(1000 * (np.array([time.perf_counter(), time.process_time()]) - begin))
                same[name] += int((found[name] == found["PyTorch"]).sum())
    table = Table("runtime", "ms a frame", "of PyTorch's", "CPU ms", "of PyTorch's", "same labels")
    usual = np.median(spent["PyTorch"][2:], axis=0)
    for name, times in spent.items():
        middle = np.median(times[2:], axis=0)
        shares = [text for each, its in zip(middle, usual, strict=True) for text in (f"{each:.0f}", f"{each / its:.2f}")]
        table.add_row(name, *shares, f"{same[name] / labels.size / len(frames):.4%}")
    console = Console(width=100)
    console.print(
        f"{options.model}, {network[0]} x {network[1]}, {options.objects} objects, {options.threads} threads, "
        f"torch {torch.__version__}", highlight=False,
    )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
