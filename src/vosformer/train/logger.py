"""What a run tells: a progress line, `log.jsonl`, TensorBoard scalars and picture strips."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from vosformer.io.files import make_folder
from vosformer.io.palette import DAVIS_PALETTE
from vosformer.train.batch import Batch


class TrainingLog:
    """The log of a run; one that is not `active` (a process that does not lead) does nothing.

    Args:
        folder: where `log.jsonl`, `tensorboard/` and `pictures/` go.
        steps: steps of the whole run.
        done: steps done before.
        active: whether to write at all.
    """

    def __init__(self, folder: Path, steps: int, done: int, active: bool) -> None:
        self._folder, self._active = folder, active
        self._console = Console(stderr=True)
        self._writer: Any = None
        self._incomplete = False
        self._live = active and sys.stderr.isatty()
        self._begun, self._first, self._steps = time.perf_counter(), done, steps
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._progress.add_task("train", total=steps, completed=done, note="")

    def __enter__(self) -> TrainingLog:
        if self._active:
            make_folder(self._folder)
            self._writer = _tensorboard(self._folder / "tensorboard")
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._active:
            self._progress.stop()
            if self._writer is not None:
                self._writer.close()

    def say(self, text: str) -> None:
        """Print a line for the reader."""
        if self._active:
            self._console.print(text, highlight=False, markup=False)

    def note(self, **values: Any) -> None:
        """Write a line of `log.jsonl` alone."""
        if self._active:
            with self._bearing(), open(self._folder / "log.jsonl", "a") as file:
                file.write(json.dumps({"time": round(time.time(), 1), **values}) + "\n")

    def step(self, step: int, values: dict[str, float] | None) -> None:
        """`step` steps are done; `values` if they are to be logged."""
        if not self._active:
            return
        self._progress.update(self._task, completed=step)
        if values is None:
            return
        self.note(step=step, **{name: float(f"{value:.6g}") for name, value in values.items()})
        if self._writer is not None:
            with self._bearing():
                for name, value in values.items():
                    self._writer.add_scalar(f"train/{name}", value, step)
        line = f"loss {values['loss']:.3f}  {values['seconds']:.2f} s/step  data {values['data_wait']:.0%}"
        self._progress.update(self._task, note=line)
        if not self._live:
            seconds = (time.perf_counter() - self._begun) / max(1, step - self._first) * (self._steps - step)
            self.say(f"step {step}/{self._steps}  {line}  ETA {_clock(seconds)}")

    def picture(self, step: int, batch: Batch, predicted: Tensor) -> None:
        """Write a picture of the batch's first clip: rows frame, truth, prediction; columns time."""
        if not self._active:
            return
        image = strip(batch, predicted)
        folder = self._folder / "pictures"
        with self._bearing():
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"step-{step:08d}.jpg"), image[..., ::-1])
            if self._writer is not None:
                self._writer.add_image("clip", image, step, dataformats="HWC")

    @contextmanager
    def _bearing(self) -> Iterator[None]:
        """Let a full disk cost lines and pictures of the log, but not the run; a warning says so once."""
        try:
            yield
        except OSError as error:
            if not self._incomplete:
                self._incomplete = True
                self.say(f"the log in {self._folder} is incomplete ({error}); training goes on")


def strip(batch: Batch, predicted: Tensor) -> NDArray[np.uint8]:
    """uint8 RGB picture [3H,TW,3] of the first clip: frames, true masks, predicted masks (labels [B,T,H,W])."""
    frames = batch.images[0].cpu().permute(0, 2, 3, 1).numpy()
    rows = [frames, _paint(frames, batch.labels[0]), _paint(frames, predicted[0])]
    return np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)


def _paint(frames: NDArray[np.uint8], labels: Tensor) -> NDArray[np.uint8]:
    known = labels.cpu().numpy()
    colors = DAVIS_PALETTE[known]
    mixed = frames * 0.4 + colors * 0.6
    return np.where((known > 0)[..., None], mixed, frames * 0.6).astype(np.uint8)


def gpu_memory_gib(device: torch.device) -> float:
    """Most memory that tensors took on the device so far; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0


def _tensorboard(folder: Path) -> Any:
    """Return a writer, or None where TensorBoard is not installed (it is part of `vosformer[train]`)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))


def _clock(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes // 60}:{minutes % 60:02d}:{int(seconds) % 60:02d}"
