"""Batches of clips, which sample each step takes, and the processes that prepare them.

Which clip a step sees follows from the seed and the step alone: nothing about the data has to be saved to resume a run exactly, and
N processes see the same global batch as one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from vosformer.data.types import Clip, new_ids
from vosformer.errors import InputError, VOSError


class Clips(Protocol):
    """A training data set without end: clip i is a function of the set's seed and of i alone."""

    def __getitem__(self, index: int, /) -> Clip:
        """Clip `index`, for any index from 0."""
        ...


class Batch(NamedTuple):
    """Clips of one step.

    Attributes:
        images: uint8 [B,T,3,H,W], RGB.
        labels: uint8 [B,T,H,W], 0 = background, 1..count = objects, 255 = no truth.
        counts: int64 [B].
        indices: int64 [B], the clips' numbers: everything random about a clip follows from them.
    """

    images: Tensor
    labels: Tensor
    counts: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device (pinned memory goes over without waiting)."""
        return Batch(*(part.to(device, non_blocking=True) for part in self))


class Shares(NamedTuple):
    """Who computes which clips of a step: `batch` clips over `world` processes with `accumulate` parts each."""

    batch: int
    accumulate: int = 1
    rank: int = 0
    world: int = 1

    @property
    def part(self) -> int:
        """Clips of one part on one process."""
        return self.batch // (self.accumulate * self.world)

    def checked(self) -> Shares:
        """Itself.

        Raises:
            InputError: the clips cannot be shared out evenly.
        """
        parts = self.accumulate * self.world
        if self.batch < 1 or self.accumulate < 1 or self.batch % parts:
            raise InputError(
                f"run.batch = {self.batch} cannot be shared evenly by {self.world} processes x run.accumulate = {self.accumulate}:"
                f" choose a multiple of {parts}"
            )
        return self

    def indices(self, step: int, part: int) -> list[int]:
        """Return the clips of this process for one part of a step."""
        first = step * self.batch + (part * self.world + self.rank) * self.part
        return list(range(first, first + self.part))


class _Order(Sampler[list[int]]):
    """All parts of all steps from `start` to `stop`."""

    def __init__(self, shares: Shares, start: int, stop: int) -> None:
        self._shares, self._start, self._stop = shares, start, stop

    def __len__(self) -> int:
        return max(0, self._stop - self._start) * self._shares.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._start, self._stop):
            for part in range(self._shares.accumulate):
                yield self._shares.indices(step, part)


ClipItem = tuple[Tensor, Tensor, int, int]
"""Images, labels, count and number of a clip."""


class _Numbered:
    """A map-style data set whose items carry their number, with at most `max_objects` objects."""

    def __init__(self, clips: Clips, seed: int, max_objects: int) -> None:
        self._clips, self._seed, self._max = clips, seed, max_objects

    def __getitem__(self, index: int) -> ClipItem | VOSError:
        # Errors travel as values: what a worker raises arrives with the worker's traceback for a message.
        try:
            clip = self._clips[index]
        except VOSError as error:
            return error
        images, labels = torch.as_tensor(clip.images), torch.as_tensor(clip.labels)
        count = int(clip.count)
        if count > self._max:
            labels, count = limit_objects(labels, count, self._max, generator(self._seed, 1, index)), self._max
        return images, labels.to(torch.uint8), count, index


def limit_objects(labels: Tensor, count: int, most: int, random: np.random.Generator) -> Tensor:
    """Labels with only `most` random objects of the first frame's left, numbered 1..most; the others become background."""
    present = [i for i in torch.unique(labels[0]).tolist() if 0 < i <= count]
    absent = [i for i in range(1, count + 1) if i not in present]
    order = [*random.permutation(present).tolist(), *random.permutation(absent).tolist()]
    return torch.from_numpy(new_ids([int(i) for i in order[:most]]))[labels.long()]


def collate(items: Sequence[ClipItem | VOSError]) -> Batch | VOSError:
    """Clips of equal size -> one batch; or the first error among them."""
    error = next((item for item in items if isinstance(item, VOSError)), None)
    if error is not None:
        return error
    images, labels, counts, indices = zip(*cast(Sequence[ClipItem], items), strict=True)
    return Batch(torch.stack(images), torch.stack(labels), torch.tensor(counts), torch.tensor(indices))


def generator(seed: int, *path: int) -> np.random.Generator:
    """Return a random generator that depends on the seed and on where it is used, and on nothing else."""
    return np.random.default_rng((seed, *path))


def torch_seed(seed: int, *path: int) -> int:
    """Return a seed for torch in the same sense."""
    return int(np.random.SeedSequence((seed, *path)).generate_state(1, np.uint64)[0] >> np.uint64(1))


_GRACE_S = 900
"""How long a worker outlives SIGTERM: longer than a step takes. The training process ends it before; without one it ends itself."""


def _start_worker(_: int) -> None:
    # One thread each: the training process needs the others.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    # Ctrl-C and batch systems signal every process of a run, but the step under way still needs its data.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))


def loader(
    clips: Clips, shares: Shares, start: int, stop: int, *, seed: int, max_objects: int, workers: int, pin: bool
) -> DataLoader[Batch | VOSError]:
    """Batches of this process for the steps `start` to `stop`, `shares.accumulate` a step, prepared by `workers` processes.

    What the clips raise as a `VOSError` comes out in place of the batch.
    """
    options: dict[str, Any] = (
        {"persistent_workers": True, "prefetch_factor": 4, "worker_init_fn": _start_worker} if workers else {}
    )
    return DataLoader(
        _Numbered(clips, seed, max_objects),  # type: ignore[arg-type]
        batch_sampler=_Order(shares, start, stop),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin,
        **options,
    )
