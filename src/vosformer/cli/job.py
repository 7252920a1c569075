"""One video, tracked from its files to its files: what `track` does once and `batch` does for every row."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vosformer.cli.prompting import Marks, given_masks
from vosformer.cli.session_options import SessionOptions
from vosformer.cli.source_options import SourceOptions
from vosformer.cli.summary import write_summary
from vosformer.errors import InputError
from vosformer.formats import ObjectInfo, read_names
from vosformer.formats.outputs import Setting, check_edges, check_outputs, make_sinks, place_of
from vosformer.inference.absence import Absence, parse_absences, read_absences
from vosformer.inference.latency import LatencyBudget
from vosformer.inference.session import Session
from vosformer.inference.tracking import Direction, TrackReport, track
from vosformer.io import Source
from vosformer.io.edges import Edges


@dataclass(frozen=True)
class Job:
    """What to track, and where the results go.

    Attributes:
        video: file, folder, pattern, stream or camera.
        mask: picture, folder or annotation file.
        out: folder for the results.
        mask_frame: the frame that a single mask belongs to, and that objects are marked on.
        legend: which color of mask pictures stands for which object, a file; or None.
        marks: what is marked by clicks and the like.
        names: objects.json, or None.
        outputs: names of sinks and formats.
        direction: from the masks to the end, to the start, or both ways.
        start: first frame to write.
        stop: the frame to stop before.
        pictures: whether formats that can hold the frames' pictures get them.
        absent: where objects are absent, as texts.
        exact: whether masks speak for all objects.
        latency: seconds that a result may be old, the newest frame wins; None: every frame is tracked.
        edges: what is done to the edges of mattes and cut-outs.
    """

    video: str
    mask: Path | None
    out: Path
    mask_frame: int = 0
    legend: Path | None = None
    marks: Marks = field(default_factory=Marks)
    names: Path | None = None
    outputs: tuple[str, ...] = ("masks", "overlay", "scores")
    direction: Direction = "forward"
    start: int | None = None
    stop: int | None = None
    pictures: bool = False
    absent: tuple[str, ...] = ()
    exact: bool = False
    edges: Edges = field(default_factory=Edges)
    latency: float | None = None

    def check(self) -> None:
        """Refuse outputs that there are not, and to write over what is read.

        Raises:
            InputError: such an output, or an input lies where results go.
        """
        check_outputs(self.outputs)
        check_edges(self.outputs, self.edges)
        places = [(self.out / place_of(output)).resolve() for output in self.outputs]
        for path in (Path(self.video), *([] if self.mask is None else [self.mask])):
            real = path.resolve()
            if path.exists() and any(place == real or place in real.parents for place in places):
                raise InputError(
                    f"{path} is where results go (-o {self.out}), so it would be overwritten; choose another folder with -o"
                )


def follow(
    job: Job,
    session: Callable[[], Session],
    run: SessionOptions,
    reading: SourceOptions,
    *,
    resume: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    tell: Callable[[list[str]], None] | None = None,
) -> TrackReport:
    """Track one video and write its results and `run.json`.

    Args:
        job: what to track.
        session: gives the session, which is reset; called once the inputs are known to be good.
        run: how the model runs.
        reading: how the frames are read.
        resume: go on with a run that was stopped.
        progress: called with (frames done, frames in all or None).
        tell: called with what was noted about the inputs, before the work begins.

    Raises:
        VOSError: see `vosformer.track`.
    """
    begin = time.perf_counter()
    job.check()
    named = {} if job.names is None else read_names(job.names)
    with reading.open(job.video) as source:
        given = given_masks(source, job.mask, job.mask_frame, job.marks, job.legend)
        if tell is not None:
            tell([*source.notes, *given.notes])
        objects = {**given.objects, **named}
        setting = Setting(source, Path(job.video).stem, given.palette, objects, job.pictures, job.edges)
        sinks = make_sinks(job.outputs, job.out, setting)
        tracker = session()
        latency = None if job.latency is None else LatencyBudget(job.latency, job.out / "latency.csv")
        report = track(
            source,
            given.labels,
            tracker,
            sinks,
            direction=job.direction,
            start=job.start,
            stop=job.stop,
            state=None if source.live or latency is not None else job.out / ".vosformer",
            resume=resume,
            settings=_settings(job, run, objects),
            options=run.read_options,
            progress=progress,
            absent=_absences(job, source),
            exact=job.exact,
            latency=latency,
        )
    if tracker.sizes is not None and tracker.sizes[0] != tracker.sizes[1]:
        (height, width), (rows, columns) = tracker.sizes
        report.notes.append(f"the model saw the {width} x {height} frames as {columns} x {rows} (--size {run.size})")
    report.notes.extend(note for sink in sinks for note in sink.notes)
    seconds = round(time.perf_counter() - begin, 2)
    about: dict[str, object] = {
        "video": job.video,
        "mask": None if job.mask is None else str(job.mask),
        "outputs": job.outputs,
        "seconds": seconds,
    }
    if latency is not None:
        latency.close()
        report.notes.append(latency.describe())
        about["latency"] = latency.summary
    write_summary(job.out / "run.json", report, **about)
    return report


def _absences(job: Job, source: Source) -> tuple[Absence, ...]:
    beside = None if job.mask is None else job.mask / "absent.json"
    if beside is not None and beside.is_file():
        source.notes.add(f"{beside} says where objects are absent")
        return (*read_absences(beside), *parse_absences(job.absent))
    return parse_absences(job.absent)


def _settings(job: Job, run: SessionOptions, objects: dict[int, ObjectInfo]) -> dict[str, object]:
    """Return what decides the results besides the session's own settings."""
    return {
        "options": list(run.option),
        "outputs": job.outputs,
        "names": sorted(objects.values()),
        "pictures": job.pictures,
        "edges": [job.edges.refine, job.edges.band, job.edges.grow, job.edges.feather],
    }
