"""Follow objects through a whole source: forward, backward or both ways, resumable after any interruption.

Frames are decoded and results are written in the background while the model runs; nothing here grows with the length of the video.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.inference.absence import Absence, Absences
from vosformer.inference.islands import left_out
from vosformer.inference.latency import LatencyBudget
from vosformer.inference.prediction import Prediction
from vosformer.inference.resume import RunProgress, RunState, survey
from vosformer.inference.session import Session
from vosformer.io import BackgroundSink, Frame, MaskFolder, Notes, Prefetch, Sink, Sinks, Source

_LEFT_OUT = "of object {}, parts that lay apart and were small were left out (--islands keep leaves them in) on frames"

Direction = Literal["forward", "backward", "both"]
Labels = NDArray[np.int32]
Tracked = tuple[Frame, Labels, dict[int, float], Callable[[int], NDArray[np.float32]]]
"""A frame, its labels [H,W], presence score of each object, and the probabilities [H,W] of an object by its id."""

CHECKPOINT_FRAMES = 50
DOUBT_BELOW = 0.5
_MOST_DOUBTS = 200


class Doubt(NamedTuple):
    """Consecutive frames on which an object's presence score was below 0.5: it left, or was lost.

    Attributes:
        object: its id.
        first: the first such frame in the order of tracking.
        last: the last one.
        score: the lowest score among them.
    """

    object: int
    first: int
    last: int
    score: float


@dataclass
class TrackReport:
    """What a user should know about a finished run.

    Attributes:
        frames: how many frames were written.
        bridged: numbers of the frames that did not decode; the masks before them were repeated.
        doubts: where to look first, in the order of tracking; at most 200 are kept.
        notes: what was guessed, left out, stretched or repaired while frames and masks were read.
    """

    frames: int = 0
    bridged: list[int] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Pass(NamedTuple):
    """One walk over the source. `silent` frames at its begin are tracked, but their results are written by another pass."""

    start: int
    stop: int | None
    step: int
    silent: int = 0


def track(
    source: Source,
    masks: Mapping[int, NDArray[Any]] | MaskFolder,
    session: Session,
    sinks: Sequence[Sink],
    *,
    direction: Direction = "forward",
    start: int | None = None,
    stop: int | None = None,
    state: str | Path | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    absent: Sequence[Absence] = (),
    exact: bool = False,
    latency: LatencyBudget | None = None,
) -> TrackReport:
    """Track objects through a source and write the results.

    Forward goes from the first mask to the end, backward from the last mask to the start; both goes forward from the first mask, then
    backward from it. All masks on the way are given to the session when their frame comes.

    Args:
        source: the frames.
        masks: frame number -> labels [H,W], integers, 0 = nothing said; or what `vosformer.io.read_masks` gives.
        session: is reset before each direction.
        sinks: where results go; closed at the end.
        direction: see above.
        start: the first frame to write (default: as far as the direction goes). Forward, objects that were marked before it are
            followed up to it.
        stop: the frame to stop before.
        state: folder for what `resume` needs; None: the run cannot be resumed.
        resume: go on where a run with the same `state` stopped; its results are those of a run that was never interrupted.
        settings: whatever else decides the results (outputs); a run of other settings, or of a session of another `origin` or
            `bounds`, is not resumed.
        options: of the model, for every step.
        progress: called with (frames done, frames in all or None).
        absent: where objects are known not to be: their masks are empty there. An object that is absent to the end is forgotten.
        exact: the masks speak for all objects: what one of them does not show is absent from its frame on, until a later one shows
            it. So does an empty mask of a `MaskFolder`.
        latency: the newest frame wins, and the age of each result is logged; recordings are played at their own speed. Such a run
            goes forward, and cannot be resumed.

    Raises:
        InputError: no mask in the range, a mask of another size than the frames or on one that does not decode or is not there,
            or a run that cannot be resumed.
        OutputError: a result could not be written; what was written stays valid.
    """
    if not isinstance(source, Source):
        raise InputError(f"the source is a {type(source).__name__}; open files and streams with vosformer.io.open_source")
    if latency is not None and (direction != "forward" or state is not None):
        raise InputError("a run with a latency budget depends on the clock: it goes forward, and cannot be resumed")
    given = _labels(masks)
    for note in masks.notes if isinstance(masks, MaskFolder) else ():
        source.notes.add(note)
    passes = _plan(source, sorted(given), direction, start, stop)
    total = None if source.live or source.count is None else sum(_length(p, source.count) for p in passes)
    known = Absences(absent, _exact_ids(masks, given) if exact else None)
    span = {"direction": direction, "start": start, "stop": stop, **({"absent": known.mark()} if absent or exact else {})}
    ids, mark = survey(source, given, {**session.origin, **session.bounds, **span, **(settings or {})})
    run = None if state is None else RunState(Path(state), mark)
    if resume and (run is None or source.live):
        raise InputError(f"a run can only be resumed if it keeps its state in a folder, and {source.name} can be read again")
    done = run.load(session) if resume and run is not None else RunProgress()
    report = TrackReport(done.written, list(done.bridged), [Doubt(*doubt) for doubt in done.doubts])
    source.notes.restore(done.notes)
    results = Sinks(sinks)
    if done.complete and results.present(done.written):
        results.clean()
        report.notes = list(source.notes)
        return report
    if done.complete:  # and its results are gone
        done, report = RunProgress(), TrackReport()
    walk = _Walk(session, given, dict(options or {}), report, source.notes, known, latency)
    sink = BackgroundSink(results)
    with ExitStack() as stack:
        stack.callback(sink.close, complete=False)
        sink.check_ids(ids)
        begun = False
        for number, at, tracked in stack.enter_context(closing(_tracked(walk, source, passes, done))):
            begun = begun or _take_over(run, sink, done, resume)
            if at > passes[number].silent:
                sink.write(*tracked)
                report.frames += 1
            if progress is not None:
                progress(report.frames, total)
            if run is not None and at % CHECKPOINT_FRAMES == 0:
                run.save(session, walk.progress(number, at, sink.checkpoint()))
        if not report.frames:
            raise InputError(f"{source.name} ended before frame {max(passes[0].start, start or 0)}, where the results begin")
        begun = begun or _take_over(run, sink, done, resume)
    # In this order: a run that is killed while its files are put together does that again, since it is not complete yet.
    if run is not None:
        run.finish(walk.progress(len(passes), 0, {}))
    sink.clean()
    report.notes = list(source.notes)
    return report


def _labels(masks: Mapping[int, NDArray[Any]] | MaskFolder) -> Mapping[int, NDArray[Any]]:
    if isinstance(masks, MaskFolder):
        return masks.labels
    if not isinstance(masks, Mapping) or not all(isinstance(number, Integral) for number in masks):
        raise InputError(f"masks are a {type(masks).__name__}, expected frame numbers and their labels, like {{0: labels}}")
    return cast(Mapping[int, NDArray[Any]], masks)


def _exact_ids(masks: Mapping[int, NDArray[Any]] | MaskFolder, given: Mapping[int, NDArray[Any]]) -> dict[int, set[int]]:
    empty = masks.empty if isinstance(masks, MaskFolder) else ()
    return {
        **{number: set() for number in empty},
        **{number: {int(i) for i in np.unique(given[number])} - {0} for number in given},
    }


def _tracked(walk: _Walk, source: Source, passes: Sequence[_Pass], done: RunProgress) -> Generator[tuple[int, int, Tracked]]:
    """Yield what is tracked in all passes that are not done yet: number of the pass, frames of it so far, and the frame's result."""
    for number, part in enumerate(passes):
        if number < done.part:
            continue
        behind = done.frames if number == done.part else 0
        if behind == 0:
            walk.begin()
        else:
            walk.resume(done, part.start + part.step * (behind - 1))
        with closing(walk.follow(_frames(source, part, behind), source.real_time, part.step)) as tracked:
            for at, one in enumerate(tracked, behind + 1):
                yield number, at, one


def _take_over(run: RunState | None, sink: Sink, done: RunProgress, resume: bool) -> bool:
    """Replace what a former run left, or go on behind it; only once a frame was tracked, so that a mistake loses nothing."""
    if run is not None and done.sinks is None:
        run.forget()
    if not resume:
        sink.set_aside()
    sink.restore(done.sinks)
    return True


class _Walk:
    """Steps a session over frames, bridges those that did not decode, and notes what is doubtful."""

    def __init__(
        self,
        session: Session,
        masks: Mapping[int, NDArray[Any]],
        options: dict[str, Any],
        report: TrackReport,
        notes: Notes,
        absences: Absences,
        latency: LatencyBudget | None = None,
    ) -> None:
        self._latency = latency
        self._session, self._masks, self._options, self._absences = session, masks, options, absences
        self._report, self._notes = report, notes
        self._labels: Labels | None = None
        self._open: dict[int, int] = {}  # object -> index of its doubt in the report, while it lasts
        self._ended: set[int] = set()  # objects that were tracked and are absent for good

    def begin(self) -> None:
        """Forget the direction before: a new one begins."""
        self._session.reset()
        self._labels = None
        self._open.clear()
        self._ended.clear()

    def resume(self, done: RunProgress, last: int) -> None:
        """Go on after frame `last`; the session is where it was."""
        self._labels, self._ended = done.labels, set(done.ended)
        self._open = {doubt.object: at for at, doubt in enumerate(self._report.doubts) if doubt.last == last}

    def follow(self, frames: Iterator[Frame], real_time: bool, step: int) -> Generator[Tracked]:
        """Yield (frame, labels, scores, probability) of every frame; of a `real_time` source, of those that there is time
        for.
        """
        with self._ahead(frames, real_time) as ahead:
            for frame in ahead:
                given = self._masks.get(frame.number)
                if frame.image is None:
                    bridged = self._bridge(frame, given)
                    if self._latency is not None:
                        self._latency.done(frame)
                    yield bridged
                    continue
                out, gone = self._step(frame.image, frame.number, given, step)
                if given is not None:
                    for note in self._session.notes:
                        self._notes.add(note)
                for i in left_out(out.labels, out.islands, out.ids):
                    self._notes.add(_LEFT_OUT.format(i), frame.number)
                self._labels = out.labels
                if self._latency is not None:
                    self._latency.done(frame)
                scores = {i: out.score(i) for i in out.ids if i not in gone}
                self._note(frame.number, scores)
                yield frame, out.labels, {**scores, **dict.fromkeys(gone, 0.0)}, _probability(out, gone)

    def _ahead(self, frames: Iterator[Frame], real_time: bool) -> Prefetch:
        if self._latency is not None:
            return self._latency.newest(frames, real_time, self._masks)
        return Prefetch(frames, latest=real_time, keep=self._masks)

    def _step(
        self, image: NDArray[np.uint8], number: int, given: NDArray[Any] | None, step: int
    ) -> tuple[Prediction, set[int]]:
        """Return (prediction, ids that are known to be absent); what a mask shows is there, whatever else was said."""
        shown = set() if given is None else {int(i) for i in np.unique(given)} - {0}
        tracked = set(self._session.ids) - shown
        for i in self._absences.ended(number, step, tracked):
            self._session.remove(i)
            self._ended.add(i)
        self._ended -= shown
        absent = self._absences.absent(number, set(self._session.ids) - shown)
        if absent:
            given = np.zeros(image.shape[:2], np.int32) if given is None else given
            return self._session.step(image, given, ids=sorted(shown | absent), **self._options), absent | self._ended
        return self._session.step(image, given, **self._options), set(self._ended)

    def progress(self, part: int, frames: int, sinks: dict[str, Any]) -> RunProgress:
        """Return what a later process needs to go on from here."""
        report = self._report
        return RunProgress(
            part,
            frames,
            report.frames,
            list(report.bridged),
            [*map(tuple, report.doubts)],
            sinks,
            self._labels,
            notes=self._notes.state(),
            ended=sorted(self._ended),
        )

    def _bridge(self, frame: Frame, given: NDArray[Any] | None) -> Tracked:
        if given is not None or self._labels is None:
            raise InputError(
                f"frame {frame.number} has a mask but does not decode ({frame.problem}): give the mask on another one"
            )
        self._report.bridged.append(frame.number)
        gone = self._absences.absent(frame.number, self._session.ids)
        labels = np.where(np.isin(self._labels, list(gone)), 0, self._labels).astype(np.int32)
        return frame, labels, dict.fromkeys(self._session.ids, 0.0), lambda i: (labels == i).astype(np.float32)

    def _note(self, number: int, scores: Mapping[int, float]) -> None:
        doubts = self._report.doubts
        for i, score in scores.items():
            if score >= DOUBT_BELOW:
                self._open.pop(i, None)
            elif i in self._open:
                doubt = doubts[self._open[i]]
                doubts[self._open[i]] = doubt._replace(last=number, score=min(doubt.score, score))
            elif len(doubts) < _MOST_DOUBTS:
                self._open[i] = len(doubts)
                doubts.append(Doubt(i, number, number, score))


def _probability(out: Prediction, gone: Collection[int]) -> Callable[[int], NDArray[np.float32]]:
    return lambda i: np.zeros(out.labels.shape, np.float32) if i in gone else out.probability(i)


def _plan(source: Source, given: list[int], direction: Direction, start: int | None, stop: int | None) -> list[_Pass]:
    """Return the passes over the source, in order."""
    strange = [number for number in given if number < 0 or (source.count is not None and number >= source.count)]
    if strange:
        raise InputError(f"masks are on the frames {strange[:5]}, but {source.name} has {source.count} frames, from 0 on")
    low = 0 if start is None else start
    if low < 0 or (stop is not None and stop <= low):
        raise InputError(f"frames {low} to {stop} are no range: expected a start of 0 or more and a stop after it")
    if source.count is not None and low >= source.count:
        raise InputError(f"{source.name} has {source.count} frames, 0 to {source.count - 1}: it cannot start at {low}")
    if direction not in get_args(Direction):
        raise InputError(f"direction is {direction!r}, expected one of {', '.join(get_args(Direction))}")
    early = direction == "forward"  # what is marked before the start is followed up to it in silence
    inside = [number for number in given if (early or number >= low) and (stop is None or number < stop)]
    if not inside:
        span = (
            "" if start is None and stop is None else f" between the frames {low} and {stop if stop is not None else 'the end'}"
        )
        raise InputError(f"there is no mask{span}: at least one frame needs one (masks are on the frames {given[:5]})")
    if source.live and direction != "forward":
        raise InputError(f"{source.name} is live and cannot be tracked {direction}; only forward")
    forward = _Pass(inside[0], stop, 1, silent=max(0, low - inside[0]))
    if direction == "forward":
        return [forward]
    floor = None if low == 0 else low - 1
    if direction == "backward":
        return [_Pass(inside[-1], floor, -1)]
    return [forward] if inside[0] == low else [forward, _Pass(inside[0], floor, -1, silent=1)]


def _length(part: _Pass, count: int) -> int:
    if part.step > 0:
        return min(part.stop if part.stop is not None else count, count) - part.start - part.silent
    return part.start - (part.stop if part.stop is not None else -1) - part.silent


def _frames(source: Source, part: _Pass, begun: int) -> Iterator[Frame]:
    """Return the frames of a pass of which `begun` are done."""
    if source.live:
        return (frame for frame in source.frames(stop=part.stop) if frame.number >= part.start)
    first = part.start + part.step * begun
    ends = (source.count if source.count is not None else None) if part.step > 0 else -1
    last = part.stop if part.stop is not None else ends
    if last is not None and (last - first) * part.step <= 0:
        return iter(())
    return source.frames(first, part.stop, part.step)
