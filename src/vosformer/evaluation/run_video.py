"""One video of a benchmark through a model, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from vosformer.errors import DataError, InputError
from vosformer.evaluation.videos import BenchmarkVideo, LabelMaps, ObjectLayer
from vosformer.io import BackgroundSink, Frame, ImageFiles, LabelImages, Prefetch, Sink, write_bytes
from vosformer.io.files import make_folder

_WARM = 3  # steps of a session before its times count: kernels are chosen and memory is taken on the first ones


class Predicted(Protocol):
    """What a step returns: see `Prediction`."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 [height,width]: the id at each pixel, 0 = background."""
        ...


class Steps(Protocol):
    """What follows objects through a video: `Session`, or anything else with these two methods."""

    def step(self, frame: NDArray[np.uint8], labels: NDArray[np.int32] | None = None, **options: Any) -> Predicted:
        """Return the masks of the next frame, given the labels of objects that are new on it."""
        ...

    def reset(self) -> None:
        """Forget everything; another video begins."""
        ...


@dataclass(frozen=True)
class Timing:
    """How long a video took.

    Attributes:
        frames: that the model has seen; a video that is followed in several passes counts each.
        seconds: that the steps took, first frames, resizing and labels included, decoding and writing not.
        model_frames: frames whose time in the model counts: not the first of a video, nor the first steps of a session.
        model_seconds: that the model's encode, read and write took on these.
        objects: the most that were followed at once.
        gpu_bytes: the most memory that PyTorch held on the GPU; 0 without one.
        machine: the device and the number format.
    """

    frames: int = 0
    seconds: float = 0.0
    model_frames: int = 0
    model_seconds: float = 0.0
    objects: int = 0
    gpu_bytes: int = 0
    machine: str = ""

    def plus(self, other: Timing) -> Timing:
        """Return both after each other."""
        return Timing(
            self.frames + other.frames,
            round(self.seconds + other.seconds, 6),
            self.model_frames + other.model_frames,
            round(self.model_seconds + other.model_seconds, 6),
            max(self.objects, other.objects),
            max(self.gpu_bytes, other.gpu_bytes),
            other.machine or self.machine,
        )


class VideoRunner:
    """Runs videos with one session."""

    def __init__(self, session: Steps, options: Mapping[str, Any]) -> None:
        """Take a session.

        Args:
            session: that follows the objects.
            options: for every step.
        """
        self._session = session
        self._options = dict(options)
        self._steps = 0

    def run(self, video: BenchmarkVideo, folder: Path, advance: Callable[[int], None]) -> Timing:
        """Write the masks of one video into a folder.

        Args:
            video: to run.
            folder: for the masks.
            advance: called with the number of frames done.

        Raises:
            DataError: a frame or mask does not decode, or they do not fit.
            OutputError: a mask cannot be written.
        """
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        total = Timing()
        for given in video.passes:
            done = total.frames
            total = total.plus(self._run_pass(video, given, folder, lambda frames, done=done: advance(done + frames)))  # type: ignore[misc]
        held = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return total.plus(Timing(gpu_bytes=held, machine=_machine(self._session)))

    def _run_pass(
        self, video: BenchmarkVideo, given: LabelMaps | ObjectLayer, folder: Path, advance: Callable[[int], None]
    ) -> Timing:
        self._session.reset()
        names = [path.stem for path in video.images]
        source = ImageFiles(video.images, f"the video {video.name}")
        seconds, ids, size = 0.0, set[int](), None
        sink: Sink = LabelImages(folder) if isinstance(given, LabelMaps) else _ObjectFolders(folder, list(given.objects))
        with Prefetch(source.frames()) as frames, BackgroundSink(sink) as sinks, _timed(self._session) as clock:
            for number, (frame, labels) in enumerate(zip(frames, given.given(names), strict=True)):
                if frame.image is None:
                    raise DataError(f"frame {frame.name} of the video {video.name} does not decode: {frame.problem}")
                shape = frame.image.shape[:2]
                if labels is not None:
                    size = labels.shape if size is None else size
                    ids |= set(np.unique(labels).tolist()) - {0}
                if size is None:  # the objects of this pass enter later
                    found = np.zeros(shape, np.int32)
                else:
                    clock.counts = self._steps >= _WARM and number > 0
                    if labels is not None and labels.shape != shape and not video.larger:
                        raise DataError(_other_size(labels, shape, video, number))
                    found, taken = self._step(frame.image, labels, size if video.larger else None)
                    seconds += taken
                    clock.frames += clock.counts
                if frame.name in video.scored:
                    sinks.write(frame, labels if number == 0 and labels is not None else found, {}, _no_probability)
                advance(number + 1)
        return Timing(len(names), round(seconds, 6), clock.frames, round(clock.seconds, 6), len(ids))

    def _step(
        self, image: NDArray[np.uint8], labels: NDArray[np.int32] | None, mask_size: tuple[int, ...] | None
    ) -> tuple[NDArray[np.int32], float]:
        """Return the labels, and the seconds that they took."""
        size = {} if mask_size is None else {"mask_size": mask_size}
        _wait()  # for what the last step left to do on a GPU
        began = time.perf_counter()
        found = self._session.step(image, labels, **size, **self._options).labels
        _wait()
        self._steps += 1
        return found, time.perf_counter() - began


def _other_size(labels: NDArray[np.int32], size: tuple[int, ...], video: BenchmarkVideo, number: int) -> str:
    return (
        f"the mask {video.name}/{video.images[number].stem}.png is {labels.shape[1]} x {labels.shape[0]} pixels, its frame "
        f"{video.images[number]} {size[1]} x {size[0]}"
    )


class _Clock:
    """Seconds that a model's encode, read and write took on frames that count."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.frames = 0
        self.counts = False

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*values: Any, **options: Any) -> Any:
            _wait()
            began = time.perf_counter()
            out = method(*values, **options)
            _wait()
            self.seconds += (time.perf_counter() - began) if self.counts else 0.0
            return out

        return timed


@contextmanager
def _timed(session: Steps) -> Iterator[_Clock]:
    """Look at the clock around the model's own part, if the session has a model: what papers give as frames a second."""
    clock, model = _Clock(), getattr(session, "model", None)
    names = ("encode", "read", "write") if model is not None else ()
    try:
        for name in names:
            setattr(model, name, clock.around(getattr(model, name)))
        yield clock
    finally:
        for name in names:
            model.__dict__.pop(name, None)


class _ObjectFolders(Sink):
    """One black and white PNG an object and frame, ``folder/<object>/<frame>.png``; the n-th object, from 1, has the label n."""

    def __init__(self, folder: Path, objects: list[str]) -> None:
        self.name = folder.name
        self._folders = [make_folder(make_folder(folder) / name) for name in objects]

    def write(self, frame: Frame, labels: NDArray[Any], scores: Mapping[int, float], probability: Callable[[int], Any]) -> None:
        """See `Sink.write`."""
        for number, folder in enumerate(self._folders, 1):
            _, data = cv2.imencode(".png", np.where(labels == number, np.uint8(255), np.uint8(0)))
            write_bytes(folder / f"{frame.name}.png", data.tobytes())


def _machine(session: Steps) -> str:
    """Name the device and the number format that the session runs with."""
    model = getattr(session, "model", None)
    if not isinstance(model, torch.nn.Module):
        return ""
    one = next(iter(model.parameters()))
    name = torch.cuda.get_device_name(one.device) if one.device.type == "cuda" else one.device.type
    return f"{name}, {str(one.dtype).removeprefix('torch.')}"


def _wait() -> None:
    """Until the GPU, if there is one, has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _no_probability(_: int) -> NDArray[np.float32]:
    raise InputError("label images need no probabilities")
