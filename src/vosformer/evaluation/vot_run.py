"""Run VOT's multi-start protocol: from every anchor to an end of its sequence, with results as the vot-toolkit writes them.

In real time ("realtime" in the toolkit) frames that come while the tracker is still busy with an earlier one are not shown to it; its
last answer stands for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import DataError
from vosformer.evaluation.run_folder import RunFolder
from vosformer.evaluation.run_video import Steps
from vosformer.evaluation.runner import ProgressCallback
from vosformer.evaluation.vot import ST2020, VotReport
from vosformer.evaluation.vot_files import VotVideo, evaluate_vot, read_vot, run_file, run_text
from vosformer.io import ImageFiles, write_bytes
from vosformer.io.files import make_folder
from vosformer.parallel import Advance, run_all, shard

Experiment = Literal["baseline", "realtime"]
_GRACE = 3  # late answers that real time forgives


class RealTime:
    """Says which frames of a run a tracker misses, from the seconds that its steps take (as the toolkit simulates it).

    Args:
        fps: frames per second.
        grace: answers that may be late at the start of a run.
    """

    def __init__(self, fps: float, grace: int = _GRACE) -> None:
        self._interval = 1 / fps
        self._grace = grace
        self._behind = 0.0

    def misses(self) -> bool:
        """Tell whether the next frame comes while the tracker is busy."""
        if self._behind > self._interval:
            self._behind -= self._interval
            return True
        self._behind = 0.0
        return False

    def took(self, seconds: float) -> None:
        """Note how long the step on a frame took."""
        self._behind = 0.0
        if seconds > self._interval:
            if self._grace:
                self._grace -= 1
            else:
                self._behind = seconds - self._interval


@dataclass(frozen=True)
class _Start:
    """One run to do: a sequence from one of its anchors."""

    video: VotVideo
    anchor: int

    @property
    def length(self) -> int:
        return len(self.video.order(self.anchor))

    def path(self, folder: Path) -> Path:
        return folder / self.video.name / run_file(self.video.name, self.anchor)


def run_vot(
    root: str | Path,
    session_factory: Callable[[], Steps],
    out: str | Path,
    *,
    experiment: Experiment = "baseline",
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    lengths: tuple[int, int] = ST2020,
    workers: int = 1,
    part: str | None = None,
    cluster: str | None = None,
    progress: ProgressCallback | None = None,
) -> VotReport | None:
    """Run a model over the sequences of a workspace, and score it.

    Written to `out`: ``vosformer/EXPERIMENT/SEQUENCE/SEQUENCE_ANCHOR.txt`` and the seconds of each frame, as the toolkit has them
    below ``results`` in a workspace. A run's file appears when the run is complete, so that what was stopped can be resumed.

    Args:
        root: the workspace, or its folder ``sequences``.
        session_factory: makes the session; called once in each worker that has a run to do.
        out: folder for the results.
        experiment: "baseline": every frame is seen; "realtime": frames come at the sequence's rate, and what is late is missed.
        resume: go on with runs in `out`; their settings must be the same.
        settings: what the results depend on, kept in ``run-EXPERIMENT.json``.
        options: for every step.
        lengths: between which the expected overlap is averaged.
        workers: processes that share the runs; `session_factory` must be picklable then. Times in real time suffer from neighbors.
        part: "i/n" does only each n-th run from the i-th on; several machines may share `out`.
        cluster: address of a Ray cluster whose nodes run the workers.
        progress: called with (frames done, frames in all).

    Returns:
        The scores; None while runs are left to other shards.

    Raises:
        DataError: a file is missing or has another form, or a frame does not decode.
        InputError: `out` holds runs of other settings, or some that are not to be resumed.
        OutputError: a result could not be written.
    """
    videos = read_vot(Path(root))
    starts = [_Start(video, anchor) for video in videos for anchor in video.anchors]
    given = {"root": str(Path(root).resolve()), "experiment": experiment, "settings": dict(settings or {})}
    inside = f"vosformer/{experiment}"
    with RunFolder.alone(Path(out)):
        run = RunFolder.open(Path(out), given, resume or part is not None, inside, f"run-{experiment}.json")
    mine = shard(starts, part)
    left = [one for one in mine if not one.path(run.masks).is_file()]
    done = dict.fromkeys(range(len(left)), 0)
    before = sum(one.length for one in mine) - sum(one.length for one in left)

    def advance(index: int, frames: int) -> None:
        done[index] = frames
        if progress is not None:
            progress(before + sum(done.values()), sum(one.length for one in mine))

    start = partial(_begin, session_factory, run.masks, experiment, dict(options or {}))
    for outcome in run_all(left, start, workers=workers, cluster=cluster, advance=advance):
        if outcome.error is not None:
            raise outcome.error
    if any(not one.path(run.masks).is_file() for one in starts):
        return None
    return evaluate_vot(run.masks, root, *lengths)


def _begin(
    session_factory: Callable[[], Steps], folder: Path, experiment: Experiment, options: dict[str, Any]
) -> Callable[[_Start, Advance], None]:
    session = session_factory()

    def work(one: _Start, advance: Advance) -> None:
        seconds: list[float] = []
        clock = RealTime(one.video.fps) if experiment == "realtime" else None
        text = "".join(run_text(_masks(one, session, options, seconds, clock, advance)))
        path = one.path(folder)
        make_folder(path.parent)
        times = "".join(f"{value:.6f}\n" for value in seconds)
        write_bytes(path.with_name(f"{path.stem}_time.value"), times.encode())
        write_bytes(path, text.encode())

    return work


def _masks(
    one: _Start,
    session: Steps,
    options: dict[str, Any],
    seconds: list[float],
    clock: RealTime | None,
    advance: Advance,
) -> Iterator[NDArray[np.bool_]]:
    """Yield the masks of one run in its order, the given one first."""
    video = one.video
    images = video.images()
    frames = ImageFiles([images[t] for t in video.order(one.anchor)], f"the sequence {video.name}").frames()
    (given,) = video.truth([one.anchor])
    found = given
    session.reset()
    for number in range(one.length):
        began = time.perf_counter()  # the toolkit's clock counts the reading of the picture, too
        frame = next(frames)
        if frame.image is None:
            raise DataError(f"frame {frame.name} of the sequence {video.name} does not decode: {frame.problem}")
        taken = 0.0
        if clock is None or not number or not clock.misses():
            labels = session.step(frame.image, None if number else given.astype(np.int32), **options).labels
            found = np.asarray(labels == 1, np.bool_)
            taken = time.perf_counter() - began
            if clock is not None:
                clock.took(taken)
        seconds.append(taken)
        advance(number + 1)
        yield found
