"""`benchmark`: run a model over a data set by its protocol, keep the masks as its server wants them, and score them."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vosformer.errors import DataError, InputError
from vosformer.evaluation.layout import first_of
from vosformer.evaluation.protocols import Video, find_videos, masks_folder, named_protocol, scorable
from vosformer.evaluation.report import Report
from vosformer.evaluation.runner import Progress, evaluate
from vosformer.io import BackgroundSink, ImageFiles, LabelImages, Prefetch, write_bytes
from vosformer.io.files import make_folder, output_errors, remove, replacing

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same results give the same bytes


class Predicted(Protocol):
    """What a step returns: see `Prediction`."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 [height,width]: the id at each pixel, 0 = background."""
        ...


class Steps(Protocol):
    """What follows objects through a video: `Session`, or anything else with these two methods."""

    def step(self, frame: NDArray[np.uint8], labels: NDArray[np.int32] | None = None, **options: Any) -> Predicted:
        """The masks of the next frame, given the labels of objects that are new on it."""
        ...

    def reset(self) -> None:
        """Forget everything; another video begins."""
        ...


@dataclass(frozen=True)
class BenchmarkResult:
    """What a run over a benchmark left behind.

    Attributes:
        folder: of the masks: one folder of indexed PNGs for each video.
        archive: the same as the zip file that the benchmark's server takes.
        frames: that the model has seen, those of former runs that were resumed included.
        seconds: that its steps took, decoding and writing not included.
        report: the scores; None where the true masks are not public.
    """

    folder: Path
    archive: Path
    frames: int
    seconds: float
    report: Report | None

    @property
    def fps(self) -> float:
        """Frames a second of the model alone."""
        return self.frames / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        report = None if self.report is None else self.report.to_dict()
        numbers = {"frames": self.frames, "seconds": self.seconds, "fps": self.fps}
        return {"folder": str(self.folder), "archive": str(self.archive), **numbers, "report": report}


def benchmark(
    dataset: str,
    root: str | Path,
    session_factory: Callable[[], Steps],
    out: str | Path,
    *,
    split: str | Path | None = None,
    resume: bool = False,
    score: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> BenchmarkResult:
    """Run a benchmark by its official protocol.

    Written to `out`: ``Annotations/VIDEO/FRAME.png`` (the given first mask is copied), ``NAME.zip`` for the server, ``scores.json``
    and ``scores.csv`` where the true masks are there, and ``run.json``. A video's folder appears when it is complete, so a run
    that was stopped can be resumed.

    Args:
        dataset: see `PROTOCOLS`: "davis2016-val", "davis2017-val", "davis2017-test-dev", "youtube2018-val", "youtube2019-val" (both
            also with "-all-frames"), "mose-val", "lvos-val", "vost-val", or "folder" for own clips.
        root: the data set's folder.
        session_factory: makes the session; called once, when there is a video to run.
        out: folder for the results.
        split: another list of videos than the benchmark's: its name in ImageSets, or its file.
        resume: go on with a run in `out`; its settings must be the same.
        score: score the results; None = those of the videos whose true masks are there.
        settings: what the results depend on (variant, weights, size, ...): plain values, kept in run.json and compared on resuming.
        options: for every step, e.g. ``{"depth": 2}`` for AOST.
        progress: called with (frames done, frames in all).

    Raises:
        DataError: the data set is incomplete, a frame or mask does not decode, or there are no true masks to score with.
        InputError: an unknown benchmark, or `out` holds another run.
        OutputError: a result could not be written.
    """
    protocol = named_protocol(dataset)
    videos = find_videos(protocol, Path(root), split)
    names = [video.name for video in videos]
    scored = scorable(protocol, videos) if score is None else names if score else []
    place = {"dataset": dataset, "root": str(Path(root).resolve()), "split": None if split is None else str(split)}
    given = {**place, "settings": dict(settings or {})}
    run = _Run.open(Path(out), given, resume)
    session: Steps | None = None
    total, done = sum(len(video.images) for video in videos), 0
    for video in videos:
        if not run.has(video.name):
            session = session or session_factory()
            before = done

            def advance(frames: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + frames, total)

            run.add(video, session, dict(options or {}), advance)
        done += len(video.images)
        if progress is not None:
            progress(done, total)
    archive = run.pack(dataset, names, protocol.zip_prefix)
    report = _score(run, masks_folder(protocol, Path(root)), protocol.rules, names, scored) if scored else None
    frames, seconds = run.totals(names)
    return BenchmarkResult(run.masks, archive, frames, seconds, report)


def _score(run: _Run, truth: Path, rules: str, names: list[str], scored: list[str]) -> Report:
    report = evaluate(run.masks, truth, rules=rules, split=scored, missing="zero")
    left = [name for name in names if name not in scored]
    if left:
        report = replace(report, warnings=(*report.warnings, f"videos not scored, for lack of true masks: {first_of(left)}"))
    report.write_json(run.out / "scores.json")
    report.write_csv(run.out / "scores.csv")
    return report


@dataclass(frozen=True)
class _Run:
    """The folder of a run, and its run.json: what was asked for, and frames and seconds of each video."""

    out: Path
    given: dict[str, Any]
    timing: dict[str, dict[str, float]]

    @property
    def masks(self) -> Path:
        return self.out / "Annotations"

    @staticmethod
    def open(out: Path, given: dict[str, Any], resume: bool) -> _Run:
        path = make_folder(out) / "run.json"
        given = json.loads(json.dumps(given))
        timing: dict[str, dict[str, float]] = {}
        if path.is_file():
            try:
                former = json.loads(path.read_text(encoding="utf-8"))
                timing = former.pop("videos")
            except (OSError, ValueError, KeyError, AttributeError) as error:
                raise InputError(f"{path} cannot be read, so the run cannot be resumed: {error}") from error
            # A run without any video yet, e.g. for a mistake in its settings, is in nobody's way.
            begun = bool(timing) or any(entry.name[0] != "." for entry in (out / "Annotations").glob("*"))
            if begun and not resume:
                raise InputError(f"{out} already holds the results of a run; resume it, or choose another folder")
            if begun and former != given:
                raise InputError(f"{out} holds a run of other settings: {former}; asked for are {given}")
        elif (out / "Annotations").exists():
            raise InputError(
                f"{out / 'Annotations'} is in the way: it is of no run that could be resumed; choose another folder"
            )
        run = _Run(out, given, timing)
        run._save()
        make_folder(run.masks)
        return run

    def has(self, name: str) -> bool:
        return (self.masks / name).is_dir()

    def add(self, video: Video, session: Steps, options: dict[str, Any], advance: Callable[[int], None]) -> None:
        part = self.masks / f".part-{video.name}"
        remove(part)
        seconds = _run_video(video, session, part, options, advance)
        with output_errors(part):
            part.rename(self.masks / video.name)
        self.timing[video.name] = {"frames": len(video.images), "seconds": round(seconds, 6)}
        self._save()

    def totals(self, names: list[str]) -> tuple[int, float]:
        known = [self.timing[name] for name in names if name in self.timing]
        return int(sum(one["frames"] for one in known)), sum(one["seconds"] for one in known)

    def pack(self, dataset: str, names: list[str], prefix: str) -> Path:
        """The zip file; PNGs do not get smaller, so they are only stored."""
        path = self.out / f"{dataset}.zip"
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for file in chain.from_iterable(sorted((self.masks / name).glob("*.png")) for name in names):
                entry = zipfile.ZipInfo(f"{prefix}{file.parent.name}/{file.name}", _ZIP_TIME)
                archive.writestr(entry, file.read_bytes())
        return path

    def _save(self) -> None:
        text = json.dumps({**self.given, "videos": self.timing}, indent=1)
        write_bytes(self.out / "run.json", (text + "\n").encode())


def _run_video(video: Video, session: Steps, folder: Path, options: dict[str, Any], advance: Callable[[int], None]) -> float:
    """Write the masks of one video; returns the seconds that the model took."""
    session.reset()
    source = ImageFiles(video.images, f"the video {video.name}")
    seconds = 0.0
    with Prefetch(source.frames()) as frames, BackgroundSink(LabelImages(folder)) as sink:
        for number, (frame, given) in enumerate(zip(frames, video.given(), strict=True)):
            if frame.image is None:
                raise DataError(f"frame {frame.name} of the video {video.name} does not decode: {frame.problem}")
            if given is not None and given.shape != frame.image.shape[:2]:
                raise DataError(
                    f"the mask {video.masks[frame.name]} is {given.shape[1]} x {given.shape[0]} pixels, its frame "
                    f"{video.images[number]} {frame.image.shape[1]} x {frame.image.shape[0]}"
                )
            _wait()  # for what the last step left to do on a GPU
            began = time.perf_counter()
            labels = session.step(frame.image, given, **options).labels
            _wait()
            seconds += time.perf_counter() - began
            if frame.name in video.wanted:
                copied = given if number == 0 and given is not None else labels
                sink.write(frame, copied, {}, _no_probability)
            advance(number + 1)
    return seconds


def _wait() -> None:
    """Until the GPU, if there is one, has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _no_probability(_: int) -> NDArray[np.float32]:
    raise InputError("label images need no probabilities")
