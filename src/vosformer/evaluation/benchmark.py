"""`benchmark`: run a model over a data set by its protocol, keep the masks as its server wants them, and score them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vosformer.evaluation.handin import hand_in
from vosformer.evaluation.layout import first_of
from vosformer.evaluation.protocols import named_protocol
from vosformer.evaluation.report import Report
from vosformer.evaluation.run_folder import RunFolder
from vosformer.evaluation.run_video import Steps, Timing, VideoRunner
from vosformer.evaluation.runner import ProgressCallback, evaluate
from vosformer.evaluation.track_report import TrackScores, evaluate_tracks
from vosformer.evaluation.track_videos import find_tracks
from vosformer.evaluation.videos import BenchmarkVideo, find_videos, scorable, truth_folder
from vosformer.parallel import Advance, Outcome, run_all, shard


@dataclass(frozen=True)
class BenchmarkResult:
    """What a run over a benchmark left behind.

    Attributes:
        folder: of the masks: one folder of PNGs for each video.
        archive: the file that the benchmark's server takes (see `handin`); None while videos are missing (other shards').
        timing: of all videos that are done, those of former runs that were resumed included.
        report: the scores; None where the true masks are not public, or while videos are missing.
        missing: videos that are not done yet.
        notes: what could not be done, in words.
    """

    folder: Path
    archive: Path | None
    timing: Timing
    report: Report | TrackScores | None
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """Frames that the model has seen."""
        return self.timing.frames

    @property
    def fps(self) -> float:
        """Frames a second end to end: first frames, resizing and labels included; without decoding and writing."""
        return self.timing.frames / self.timing.seconds if self.timing.seconds else 0.0

    @property
    def model_fps(self) -> float:
        """Frames a second of the model alone, as papers give it: warm, without first frames and resizing; 0 if not known."""
        return self.timing.model_frames / self.timing.model_seconds if self.timing.model_seconds else 0.0

    def speed(self) -> dict[str, Any]:
        """Return how fast it was, on what, as plain values."""
        one = self.timing
        known = {"machine": one.machine, "objects": one.objects, "gpu_peak_mb": round(one.gpu_bytes / 1e6, 1)}
        return {"frames": one.frames, "seconds": one.seconds, "fps": self.fps, "model_fps": self.model_fps, **known}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        report = None if self.report is None else self.report.to_dict()
        place = {"folder": str(self.folder), "archive": None if self.archive is None else str(self.archive)}
        return {**place, **self.speed(), "missing": list(self.missing), "notes": list(self.notes), "report": report}


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
    workers: int = 1,
    cluster: str | None = None,
    part: str | None = None,
    progress: ProgressCallback | None = None,
) -> BenchmarkResult:
    """Run a benchmark by its official protocol.

    Written to `out`: ``Annotations/VIDEO/FRAME.png`` (the given first mask is copied; SA-V, BURST, YouTube-VIS:
    ``VIDEO/OBJECT/FRAME.png``), ``NAME.zip`` or what else its server takes, ``scores.json`` and ``scores.csv`` where the true masks
    are there, and ``run.json``. A video's folder appears when it is complete, so a run that was stopped can be resumed.

    Args:
        dataset: see `PROTOCOLS`: "davis2016-val", "davis2017-val", ..., or "folder" for own clips.
        root: the data set's folder.
        session_factory: makes the session; called once in each worker that has a video to run.
        out: folder for the results.
        split: another list of videos than the benchmark's: its name in ImageSets, or its file.
        resume: go on with a run in `out`; its settings must be the same.
        score: score the results; None = those of the videos whose true masks are there.
        settings: what the results depend on (variant, weights, size, ...): plain values, kept in run.json and compared on resuming.
        options: for every step, e.g. ``{"depth": 2}`` for AOST.
        workers: processes that share the videos; with more than one, `session_factory` must be picklable (at the top of a module).
        cluster: address of a Ray cluster whose nodes run the workers; they must share the folders.
        part: "i/n" runs only each n-th video from the i-th on (from 0), and goes on with a run of the same settings in `out`: several
            machines can share a folder. Who finds all videos done packs and scores them.
        progress: called with (frames done, frames in all).

    Raises:
        DataError: the data set is incomplete, a frame or mask does not decode, or there are no true masks to score with.
        InputError: an unknown benchmark, or `out` holds another run.
        OutputError: a result could not be written.
    """
    protocol = named_protocol(dataset)
    tracks = find_tracks(protocol, Path(root), None if split is None else str(split)) if protocol.tracks else None
    videos = find_videos(protocol, Path(root), split) if tracks is None else tracks.videos
    names = [video.name for video in videos]
    scored = names if score or tracks is not None else [] if score is False else scorable(protocol, Path(root), videos)
    place = {"dataset": dataset, "root": str(Path(root).resolve()), "split": None if split is None else str(split)}
    with RunFolder.alone(Path(out)):
        run = RunFolder.open(Path(out), {**place, "settings": dict(settings or {})}, resume or part is not None)
    spread = partial(run_all, workers=workers, cluster=cluster)
    _run_videos(run, shard(videos, part), partial(_start, session_factory, run, dict(options or {})), spread, progress)
    with RunFolder.alone(Path(out)):
        missing = tuple(name for name in names if not run.has(name))
        timings = run.timings(names)
        total = Timing()
        for timing in timings.values():
            total = total.plus(timing)
        result = BenchmarkResult(run.masks, None, total, None, missing)
        if not missing:
            packed = hand_in(protocol, Path(root), run.out, run.masks, names, tracks)
            report: Report | TrackScores | None = None
            if tracks is not None and tracks.truth is not None and packed.results is not None and score is not False:
                report = evaluate_tracks(packed.results, tracks.truth, rules=protocol.rules)
                report.write_json(run.out / "scores.json")
            elif tracks is None and scored:
                report = _score(run, truth_folder(protocol, Path(root)), protocol.rules, names, scored)
            result = replace(result, archive=packed.path, report=report, notes=packed.notes)
        run.summarize({"speed": result.speed()}, timings)
    return result


def _run_videos(
    run: RunFolder,
    videos: list[BenchmarkVideo],
    start: Callable[[], Callable[[BenchmarkVideo, Advance], None]],
    spread: Callable[..., Iterator[Outcome[None]]],
    progress: ProgressCallback | None,
) -> None:
    """Run the videos that are not done yet; the first error ends it."""
    total = sum(_length(video) for video in videos)
    left = [video for video in videos if not run.has(video.name)]
    done = {video.name: _length(video) for video in videos if run.has(video.name)}

    def advance(index: int, frames: int) -> None:
        done[left[index].name] = frames
        if progress is not None:
            progress(sum(done.values()), total)

    for outcome in spread(left, start, advance=advance):
        if outcome.error is not None:
            raise outcome.error
    if progress is not None:
        progress(total, total)


def _length(video: BenchmarkVideo) -> int:
    return len(video.images) * len(video.passes)


def _start(
    session_factory: Callable[[], Steps], run: RunFolder, options: dict[str, Any]
) -> Callable[[BenchmarkVideo, Advance], None]:
    runner = VideoRunner(session_factory(), options)

    def work(video: BenchmarkVideo, advance: Advance) -> None:
        run.add(video.name, lambda folder: runner.run(video, folder, advance))

    return work


def _score(run: RunFolder, truth: Path, rules: str, names: list[str], scored: list[str]) -> Report:
    report = evaluate(run.masks, truth, rules=rules, split=scored, missing="zero")
    left = [name for name in names if name not in scored]
    if left:
        report = replace(report, warnings=(*report.warnings, f"videos not scored, for lack of true masks: {first_of(left)}"))
    report.write_json(run.out / "scores.json")
    report.write_csv(run.out / "scores.csv")
    return report
