"""Propagation in a project: forward, backward, or from both sides, blended by the distance to the given frames.

The frames between two neighboring given ones are seen by two passes. What the pass forward says counts the more, the nearer the given
frame is that it comes from; the pass backward likewise. Each frame is written as it comes, and stays whatever happens then.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.annotate.actions import LongAction
from vosformer.annotate.colors import Histogram, color_distance, color_histogram
from vosformer.annotate.project import Project
from vosformer.annotate.records import measure
from vosformer.errors import InputError
from vosformer.inference.prediction import Prediction
from vosformer.inference.session import Session
from vosformer.io import Prefetch
from vosformer.io.files import make_folder

Direction = Literal["forward", "backward", "both"]
Labels = NDArray[np.int32]
Maps = dict[int, NDArray[np.float32]]

_STORED_SIDE = 480  # short side of the probabilities that wait on disk for the other pass; the network sees no more by default


@dataclass(frozen=True)
class PropagationPlan:
    """What is computed anew.

    Attributes:
        low: the frames after this one; it counts as given itself, if its masks are known. -1 = from the first frame on.
        high: the frames before this one, likewise; the number of frames = up to the end.
        direction: one pass, or both.
        trusted: one more frame whose masks count as given, or None.
    """

    low: int
    high: int
    direction: Direction
    trusted: int | None = None


def plan_propagation(
    project: Project, direction: Direction, frame: int, start: int | None = None, stop: int | None = None
) -> PropagationPlan:
    """From this frame on in a direction; "both": the whole video, or the range `start` (included) to `stop` (excluded).

    Raises:
        InputError: there is no mask to begin with.
    """
    low, high = (-1 if start is None else start - 1), (project.frames if stop is None else min(stop, project.frames))
    if not low < high - 1:
        raise InputError(f"frames {start} to {stop} are no range: expected a start before the stop")
    if direction == "forward":
        low = max(low, frame)
    elif direction == "backward":
        high = min(high, frame)
    plan = PropagationPlan(low, high, direction, frame)
    if not _anchors(project, plan):
        raise InputError("there is no mask to begin with: mark an object on a frame first")
    return plan


def plan_repair(project: Project, frame: int) -> PropagationPlan:
    """Between the given frames next to this one, from both sides: what a correction on it changes.

    Raises:
        InputError: nothing is given on the frame.
    """
    given = project.given.get(frame)
    if given is None:
        raise InputError(f"nothing is given on frame {frame}: correct a mask there first")
    low, high = frame, frame
    for i in given.ids:
        own = sorted(n for n, other in project.given.items() if i in other.ids)
        before, after = bisect_left(own, frame), bisect_right(own, frame)
        low = min(low, own[before - 1] if before else -1)
        high = max(high, own[after] if after < len(own) else project.frames)
    return PropagationPlan(low, high, "both")


def _anchors(project: Project, plan: PropagationPlan) -> dict[int, tuple[int, ...]]:
    """Frame -> the objects whose masks there count as given, in the order of frames."""
    anchors = {n: given.ids for n, given in project.given.items() if plan.low <= n <= plan.high}
    for n in (plan.low, plan.high, plan.trusted):
        if n is not None and 0 <= n < project.frames and (ids := project.known(n)):
            anchors[n] = tuple(sorted(ids | set(anchors.get(n, ()))))
    return {n: ids for n, ids in sorted(anchors.items()) if ids}


class PropagatedFrame(NamedTuple):
    """How far a propagation is: the frame that was just written, and how many of how many are done."""

    frame: int
    done: int
    total: int


class _Seen(NamedTuple):
    """What a pass says about a frame."""

    frame: int
    image: NDArray[np.uint8] | None
    labels: Labels
    scores: dict[int, float]
    probability: Callable[[int], NDArray[np.float32]]


class Propagation:
    """One run of a plan over a project.

    Args:
        project: whose masks are written.
        session: is reset first.
        plan: what to do.
        work: folder for what waits for the other pass; removed at the end.
        options: of the model, for every step.
    """

    def __init__(
        self, project: Project, session: Session, plan: PropagationPlan, work: Path, options: Mapping[str, Any] | None = None
    ) -> None:
        self._project, self._session, self._plan, self._work = project, session, plan, work
        self._options = dict(options or {})
        self._anchors = _anchors(project, plan)
        self._of_object: dict[int, list[int]] = {}
        self._colors: dict[int, dict[int, Histogram]] = {}  # object -> frame on which it is given -> its colors there
        for n, ids in self._anchors.items():
            for i in ids:
                self._of_object.setdefault(i, []).append(n)

    def run(self, action: LongAction, stopped: Callable[[], bool]) -> Iterator[PropagatedFrame]:
        """Do it frame by frame, until it is done or `stopped`."""
        passes = self._passes()
        total, done = sum(len(numbers) for numbers in passes), 0
        try:
            for at, numbers in enumerate(passes):
                last = at == len(passes) - 1
                with closing(self._walk(numbers)) as walk:
                    for seen in walk:
                        if self._plan.low < seen.frame < self._plan.high:
                            self._write(action, seen, first=not last and seen.frame < passes[-1][0], blend=at > 0)
                        done += 1
                        yield PropagatedFrame(seen.frame, done, total)
                        if stopped():
                            return
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def _passes(self) -> list[range]:
        """Return the frames of each pass, from the first one with an anchor."""
        frames, plan, passes = list(self._anchors), self._plan, []
        if not frames:
            raise InputError("there is no mask to begin with: mark an object on a frame first")
        if plan.direction != "backward":
            passes.append(range(frames[0], min(plan.high, self._project.frames)))
        # Backward there is something to say only if an anchor lies behind some frame.
        if plan.direction != "forward" and frames[-1] > max(plan.low, 0):
            passes.append(range(frames[-1], max(plan.low, -1), -1))
        return [numbers for numbers in passes if len(numbers)]

    def _walk(self, numbers: range) -> Generator[_Seen]:
        """Step the session over the frames, with what counts as given on the way."""
        project, session = self._project, self._session
        session.reset()
        labels = np.zeros(project.size, np.int32)
        with Prefetch(project.source.frames(numbers.start, numbers.stop, numbers.step)) as ahead:
            for frame in ahead:
                if frame.image is None:
                    yield _Seen(frame.number, None, labels, dict.fromkeys(session.ids, 0.0), _mask_of(labels))
                    continue
                given, ids = self._given(frame.number, numbers.step)
                if not session.ids and not ids:
                    continue
                out = session.step(frame.image, given, ids=ids or None, **self._options)
                labels = out.labels
                if given is not None:
                    self._learn_colors(frame.number, frame.image, given)
                yield _Seen(frame.number, frame.image, labels, {i: out.score(i) for i in out.ids}, _probability(out))

    def _given(self, frame: int, step: int) -> tuple[Labels | None, tuple[int, ...]]:
        """Return what the session gets on a frame: masks that count as given there, and objects that leave."""
        project, known = self._project, set(self._session.ids)
        ids = [i for i in self._anchors.get(frame, ()) if i in project.objects]
        leaving = [
            i for i in known if i in project.objects and project.objects[i].is_absent(frame)
            and not project.objects[i].is_absent(frame - step)
        ]  # fmt: skip
        labels = np.zeros(project.size, np.int32)
        if ids:
            labels = project.labels(frame)
            labels = np.where(np.isin(labels, ids), labels, 0)
        present = set(np.unique(labels).tolist())
        # What has no pixel here and was never seen cannot be given to a session; it is absent there anyway.
        spoken = tuple(i for i in [*ids, *(i for i in leaving if i not in ids)] if i in present or i in known)
        return (labels.astype(np.int32), spoken) if spoken else (None, ())

    def _write(self, action: LongAction, seen: _Seen, first: bool, blend: bool) -> None:
        """Put what a pass says about a frame together with what stays there, and with what the other pass said."""
        project, frame = self._project, seen.frame
        if first:
            self._store(seen)
        stored = self._load(frame) if blend else {}
        labels, scores, agreement = seen.labels, dict(seen.scores), dict[int, float]()
        if stored:
            labels, scores, agreement = self._blended(seen, stored)
        with project.lock:
            old, rows = project.labels(frame), project.measures.at(frame)
            given = project.given.get(frame)
            fixed = [i for i, thing in project.objects.items() if thing.locked or (given is not None and i in given.ids)]
            labels = np.where(np.isin(labels, [*fixed, *(set(scores) - set(project.objects))]), 0, labels)
            for i, thing in project.objects.items():
                if thing.is_absent(frame):
                    labels[labels == i], scores[i] = 0, 0.0
            kept = [i for i in rows if i not in scores and i in project.objects]
            labels = np.where((labels == 0) & np.isin(old, kept), old, labels)
            labels = np.where(np.isin(old, fixed), old, labels).astype(np.int32)
            scores = {i: score for i, score in scores.items() if i in project.objects}
            scores.update({i: rows[i].score for i in [*kept, *fixed] if i in rows})
            action.set_mask(frame, labels, measure(labels, scores, agreement, self._color_changes(seen.image, labels, scores)))

    def _learn_colors(self, frame: int, image: NDArray[np.uint8], given: Labels) -> None:
        """Keep the colors of what counts as given on a frame."""
        for i in self._anchors.get(frame, ()):
            colors = color_histogram(image, given == i)
            if colors is not None:
                self._colors.setdefault(i, {})[frame] = colors

    def _color_changes(self, image: NDArray[np.uint8] | None, labels: Labels, ids: Iterable[int]) -> dict[int, float]:
        """Return object -> distance of its colors from the most similar given ones that a pass has met so far."""
        changes = {}
        for i in ids:
            colors = None if image is None or i not in self._colors else color_histogram(image, labels == i)
            if colors is not None:
                changes[i] = min(color_distance(colors, known) for known in self._colors[i].values())
        return changes

    def _blended(
        self, seen: _Seen, stored: dict[int, tuple[float, NDArray[np.uint8]]]
    ) -> tuple[Labels, dict[int, float], dict[int, float]]:
        """Return both passes together, each object weighed by how near the given frames are that its masks come from."""
        maps: Maps = {}
        scores, agreement = dict[int, float](), dict[int, float]()
        size = next(iter(stored.values()))[1].shape
        for i in sorted({*seen.scores, *stored}):
            weight = self._weight_backward(i, seen.frame)
            backward = _small(seen.probability(i), size) if i in seen.scores else None
            forward = np.asarray(stored[i][1] / np.float32(255), np.float32) if i in stored else None
            if forward is None or backward is None:
                one = forward if backward is None else backward
                assert one is not None
                maps[i], scores[i] = one, stored[i][0] if backward is None else seen.scores[i]
                continue
            scores[i] = _presence(stored[i][0], seen.scores[i], weight)
            if scores[i] > 0.5:  # it is there: a pass that has lost it says little of where
                backed = weight * seen.scores[i]
                weight = backed / (backed + (1 - weight) * stored[i][0])
            maps[i] = ((1 - weight) * forward + weight * backward).astype(np.float32)
            agreement[i] = _agreement(forward > 0.5, backward > 0.5)
        return _winners(maps, self._project.size), scores, agreement

    def _weight_backward(self, i: int, frame: int) -> float:
        """1 at the given frame that the pass backward comes from, 0 at the one of the pass forward."""
        own = self._of_object.get(i, [])
        at = bisect_left(own, frame)
        if at < len(own) and own[at] == frame:
            return 0.5
        before, after = own[at - 1] if at else None, own[at] if at < len(own) else None
        if before is None or after is None:
            return 1.0 if before is None else 0.0
        return (frame - before) / (after - before)

    def _store(self, seen: _Seen) -> None:
        """Keep on disk what this pass says, for the other one."""
        make_folder(self._work)
        size = _stored_size(self._project.size)
        packed: dict[str, Any] = {}
        for i, score in seen.scores.items():
            small = np.rint(_small(seen.probability(i), size) * 255).astype(np.uint8)
            packed[f"map {i}"] = cv2.imencode(".png", small, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
            packed[f"score {i}"] = np.float64(score)
        np.savez(self._work / f"{seen.frame}.npz", allow_pickle=False, **packed)

    def _load(self, frame: int) -> dict[int, tuple[float, NDArray[np.uint8]]]:
        path = self._work / f"{frame}.npz"
        if not path.exists():
            return {}
        with np.load(path) as packed:
            ids = [int(name.split()[1]) for name in packed.files if name.startswith("map")]
            return {
                i: (float(packed[f"score {i}"]), np.asarray(cv2.imdecode(packed[f"map {i}"], cv2.IMREAD_GRAYSCALE), np.uint8))
                for i in ids
            }


def _presence(forward: float, backward: float, weight: float) -> float:
    """Return the presence that two passes agree on: the weighted mean of their log-odds, so that who is sure counts more."""
    scores = np.clip([forward, backward], 1e-3, 1 - 1e-3)
    first, second = np.log(scores / (1 - scores))
    return float(1 / (1 + np.exp(-((1 - weight) * first + weight * second))))


def _agreement(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 if both are empty."""
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 1.0


def _stored_size(size: tuple[int, int]) -> tuple[int, int]:
    factor = min(1.0, _STORED_SIDE / min(size))
    return round(size[0] * factor), round(size[1] * factor)


def _small(probability: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    if probability.shape == size:
        return probability
    return np.asarray(cv2.resize(probability, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.float32)


def _winners(maps: Mapping[int, NDArray[np.float32]], size: tuple[int, int]) -> Labels:
    """Return the most probable id of each pixel; one map at a time is held at the frame's size."""

    def large(values: NDArray[np.float32]) -> NDArray[np.float32]:
        if values.shape == size:
            return values
        return np.asarray(cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.float32)

    best = large(np.clip(1 - sum(maps.values()), 0, 1).astype(np.float32))
    labels = np.zeros(size, np.int32)
    for i, values in maps.items():
        own = large(values)
        labels[own > best] = i
        best = np.maximum(best, own)
    return labels


def _probability(out: Prediction) -> Callable[[int], NDArray[np.float32]]:
    return out.probability


def _mask_of(labels: Labels) -> Callable[[int], NDArray[np.float32]]:
    return lambda i: (labels == i).astype(np.float32)
