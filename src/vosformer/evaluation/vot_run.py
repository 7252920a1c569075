"""Run VOT's multi-start protocol: from every anchor to an end of its sequence, with results as the vot-toolkit writes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import DataError
from vosformer.evaluation.run_video import Steps
from vosformer.evaluation.runner import ProgressCallback
from vosformer.evaluation.vot import ST2020, VotReport
from vosformer.evaluation.vot_files import VotVideo, evaluate_vot, read_vot, run_file, run_text
from vosformer.io import ImageFiles, write_bytes
from vosformer.io.files import make_folder


def run_vot(
    root: str | Path,
    session_factory: Callable[[], Steps],
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    lengths: tuple[int, int] = ST2020,
    progress: ProgressCallback | None = None,
) -> VotReport:
    """Run a model over the sequences of a workspace, and score it.

    Runs whose file is in `out` already are not run again, so that a run that was stopped goes on.

    Args:
        root: the workspace, or its folder ``sequences``.
        session_factory: makes the session; called once, when there is a run to do.
        out: for SEQUENCE/SEQUENCE_ANCHOR.txt and the seconds of each frame, as in ``results/TRACKER/baseline`` of a workspace.
        options: for every step.
        lengths: between which the expected overlap is averaged.
        progress: called with (frames done, frames in all).

    Raises:
        DataError: a file is missing or has another form, or a frame does not decode.
        OutputError: a result could not be written.
    """
    session: Steps | None = None
    videos = read_vot(Path(root))
    total = sum(len(video.order(anchor)) for video in videos for anchor in video.anchors)
    done = 0
    for video in videos:
        folder = make_folder(make_folder(Path(out)) / video.name)
        for anchor in video.anchors:
            path = folder / run_file(video.name, anchor)
            if not path.is_file():
                session = session or session_factory()
                seconds: list[float] = []
                text = "".join(run_text(_masks(video, anchor, session, dict(options or {}), seconds)))
                times = "".join(f"{value:.6f}\n" for value in seconds)
                write_bytes(path.with_name(f"{path.stem}_time.value"), times.encode())
                write_bytes(path, text.encode())
            done += len(video.order(anchor))
            if progress is not None:
                progress(done, total)
    return evaluate_vot(out, root, *lengths)


def _masks(
    video: VotVideo, anchor: int, session: Steps, options: dict[str, Any], seconds: list[float]
) -> Iterator[NDArray[np.bool_]]:
    """Yield the masks of one run in its order, the given one first."""
    frames = video.order(anchor)
    images = video.images()
    source = ImageFiles([images[t] for t in frames], f"the sequence {video.name}")
    (given,) = video.truth([anchor])
    session.reset()
    for number, frame in enumerate(source.frames()):
        if frame.image is None:
            raise DataError(f"frame {frame.name} of the sequence {video.name} does not decode: {frame.problem}")
        began = time.perf_counter()
        labels = session.step(frame.image, None if number else given.astype(np.int32), **options).labels
        seconds.append(time.perf_counter() - began)
        yield np.asarray(labels == 1, np.bool_)
