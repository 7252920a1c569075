"""`vosformer track`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from vosformer.cli.job import Job, follow
from vosformer.cli.prompting import Marks
from vosformer.cli.session_options import SessionOptions
from vosformer.cli.source_options import SourceOptions
from vosformer.cli.terminal import messages, show_notes
from vosformer.inference.latency import parse_seconds
from vosformer.inference.tracking import TrackReport
from vosformer.io.edges import Edges


def track(
    video: Annotated[str, tyro.conf.Positional],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    mask: Path | None = None,
    mask_frame: int = 0,
    legend: Path | None = None,
    marks: Annotated[Marks, tyro.conf.arg(name="")] = Marks(),
    names: Path | None = None,
    outputs: tuple[str, ...] = ("masks", "overlay", "scores"),
    direction: Literal["forward", "backward", "both"] = "forward",
    start: int | None = None,
    stop: int | None = None,
    pictures: bool = False,
    edges: Annotated[Edges, tyro.conf.arg(name="")] = Edges(),
    absent: tuple[str, ...] = (),
    exact: bool = False,
    run: Annotated[SessionOptions, tyro.conf.arg(name="")] = SessionOptions(),
    reading: Annotated[SourceOptions, tyro.conf.arg(name="")] = SourceOptions(),
    latency_budget: str | None = None,
    resume: bool = False,
) -> None:
    """Follow marked objects through a video.

    Args:
        video: video file, folder, list or pattern of images, stream (rtsp://..., http://...), camera:0, or a recording of a robot
            (bag:run.mcap?topic=/camera/image).
        out: folder for the results.
        mask: label image of one frame, folder with one PNG an object, folder of masks named like their frames (first masks, new
            objects and corrections), or an annotation file (COCO, CVAT, labelme and others: see `vosformer formats`). Without
            it, mark objects with --point, --box, --scribble or --polygon.
        mask_frame: the frame that a single mask belongs to, and that objects are marked on; the first is 0.
        legend: which color of the masks stands for which object: JSON {"1": [255, 0, 0], "2": "#00ff00"}, or lines name:R,G,B:: as
            CVAT has them (default: legend.json, colors.json or labelmap.txt beside the masks; else colors are numbered).
        marks: what is said about objects on that frame.
        names: objects.json with names, categories and colors of objects, for every output that has a place for them:
            {"7": {"name": "left dog", "category": "dog", "color": "#ff8800"}}.
        outputs: what to write. masks: indexed PNG; masks16: 16-bit PNG for ids above 255; overlay: overlay.mp4; scores, scores-json:
            how surely each object is in each frame; objects: a black and white PNG an object; rgba: cut-outs with soft edges;
            cutout: cutout.mov, a ProRes 4444 video of all objects on a transparent ground; rle: COCO run-length JSON;
            matte: a gray ProRes film an object for video editors; matte-ffv1: the same, lossless; matte-png: the same as pictures;
            ros: a ROS bag of label images;
            and every annotation format that `vosformer formats` lists (coco, yolo, cvat-video, ...).
        pictures: write the frames' pictures, too, in formats that have a place for them (yolo, labelme, ...).
        edges: what is done to the edges of mattes and cut-outs.
        direction: from the masks to the end, to the start, or both ways.
        start: first frame to write.
        stop: the frame to stop before.
        absent: frames on which an object is not there: 7:40-55 (both included), 7:40- (from 40 on), all:40-55, or a JSON file of
            such; absent.json in the folder of masks is read, too.
        exact: the masks speak for all objects: what one does not show is absent from its frame on, until a later one shows it.
        run: how the model runs.
        reading: how the frames are read.
        latency_budget: how old a result may be, e.g. 100ms: the newest frame wins, others are passed over; recordings are played at
            their own speed. latency.csv has the age of every result and every frame that was passed over, run.json a summary.
        resume: go on with a run that was stopped, even by force; the result is the same as of a run that was not.
    """
    run.prepare()
    begin = time.perf_counter()
    job = Job(
        video, mask, out, mask_frame, legend, marks, names, outputs, direction, start, stop, pictures,
        absent, exact, edges, None if latency_budget is None else parse_seconds(latency_budget),
    )  # fmt: skip
    job.check()
    known: list[str] = []

    def tell(notes: list[str]) -> None:
        known.extend(notes)
        show_notes(notes)

    with _Bar() as progress:
        report = follow(job, run.session, run, reading, resume=resume, progress=progress, tell=tell)
    _tell(report, out, time.perf_counter() - begin)
    show_notes([note for note in report.notes if note not in known])


class _Bar:
    """A progress bar, as the callback that `track` wants."""

    def __init__(self) -> None:
        rate = TextColumn("{task.fields[rate]}")
        self._bar = Progress(
            TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn(), console=messages()
        )
        self._task = self._bar.add_task("tracking", total=None, rate="")
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int | None) -> None:
        now = time.perf_counter()
        if self._first is None:
            self._first = (done, now)
        elapsed = now - self._first[1]
        rate = f"{(done - self._first[0]) / elapsed:.1f} frames/s" if elapsed > 0 else ""
        self._bar.update(self._task, completed=done, total=total, rate=rate)


def _tell(report: TrackReport, out: Path, seconds: float) -> None:
    """Print what came of it, and where to look."""
    console = messages()
    console.print(f"{report.frames} frames in {seconds:.1f} s, written to {out}")
    if report.bridged:
        numbers = ", ".join(map(str, report.bridged[:10])) + (", ..." if len(report.bridged) > 10 else "")
        heading = f"{len(report.bridged)} frames did not decode; the masks before them were repeated:"
        console.print(Text(heading, style="yellow"), numbers)
    if report.doubts:
        console.print("look here first, an object was lost or had left:", style="yellow")
        for doubt in report.doubts[:10]:
            console.print(f"  object {doubt.object}, frames {doubt.first} to {doubt.last} (score down to {doubt.score:.2f})")
        if len(report.doubts) > 10:
            console.print(f"  ... and {len(report.doubts) - 10} more")
