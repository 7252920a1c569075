"""What a user does to the masks of one frame, and to objects: every gesture is one action that can be undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vosformer.annotate.actions import Action, Labels
from vosformer.annotate.filling import flood, hole_at
from vosformer.annotate.project import Project
from vosformer.annotate.records import GivenFrame, TrackedObject, measure
from vosformer.errors import InputError
from vosformer.io.random_access import RandomAccess
from vosformer.prompts import Marker, Prompt, Scissors, polygon, stroke

Mask = NDArray[np.bool_]
Mode = Literal["add", "subtract", "replace"]
Points = Sequence[tuple[float, float]]

_MOST_POINTS = 100_000


class Editor:
    """Edits a project.

    Args:
        project: that is edited.
        frames: its frames.
    """

    def __init__(self, project: Project, frames: RandomAccess) -> None:
        self._project, self._frames = project, frames
        self._scissors: tuple[int, Scissors] | None = None
        self._marker: tuple[int, Marker] | None = None  # of the last frame: it remembers what it computed

    def image(self, frame: int) -> NDArray[np.uint8]:
        """Return the frame, uint8 RGB [H,W,3].

        Raises:
            InputError: there is no such frame, or it does not decode.
        """
        found = self._frames.read(frame)
        if found.image is None:
            raise InputError(f"frame {frame} cannot be marked: {found.problem}")
        return found.image

    def click(self, frame: int, i: int, points: Points, labels: Sequence[int], box: Sequence[float] | None = None) -> None:
        """Mark by clicks (1 = on the object, 0 = not on it) and a box, in addition to those that are there from before."""
        self._check_points(points)
        if len(points) != len(labels) or not set(labels) <= {0, 1} or (not points and box is None):
            raise InputError("clicks need a label each, 1 = on the object, 0 = not on it; or give a box")
        if box is not None and not (len(box) == 4 and box[0] < box[2] and box[1] < box[3]):
            raise InputError(f"the box is {list(box)}, expected x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        project = self._project
        with project.lock:
            self._object(i)
            if self._marker is None or self._marker[0] != frame:
                self._marker = (frame, Marker(self.image(frame)))
            given = project.given.get(frame, GivenFrame(()))
            before = dict(given.prompts.get(i, {}))
            base = None if before.get("base") is None else project.base(before["base"])
            if not before or (before["base"] is not None and base is None):
                now = project.labels(frame) == i
                base = now if now.any() else None
                before = {"points": [], "labels": [], "base": None if base is None else project.keep_base(base)}
            if box is not None:
                base, before = None, {"points": [], "labels": [], "base": None, "box": [float(v) for v in box]}
            before["points"] = [*before["points"], *([float(x), float(y)] for x, y in points)]
            before["labels"] = [*before["labels"], *labels]
            places = [(x, y) for x, y in before["points"]]
            mask = self._marker[1].mark(Prompt(places, before["labels"], before.get("box"), mask=base))
            self._put(frame, i, mask, "click" if box is None else "box", before)

    def draw(self, frame: int, i: int, mask: Mask, mode: Mode, what: str) -> None:
        """Add pixels to the object's mask, take them away, or make them all of it."""
        with self._project.lock:
            self._object(i)
            now = self._project.labels(frame) == i
            new = now | mask if mode == "add" else now & ~mask if mode == "subtract" else mask
            self._put(frame, i, new, what)

    def stroke(self, frame: int, i: int, path: Points, radius: float, erase: bool = False) -> None:
        """Paint, or erase, with a round brush along a path."""
        self._check_points(path)
        if not path or not 0 < radius < 10_000:
            raise InputError(
                f"a stroke of {len(path)} points with a radius of {radius} pixels: expected a point, a radius above 0"
            )
        mask = stroke(path, radius, *self._project.size)
        self.draw(frame, i, mask, "subtract" if erase else "add", "erase" if erase else "brush")

    def polygon(self, frame: int, i: int, points: Points, mode: Mode = "add") -> None:
        """Add, subtract or set the inside of a polygon."""
        self._check_points(points)
        self.draw(frame, i, polygon(points, *self._project.size), mode, "polygon")

    def fill(self, frame: int, i: int, x: float, y: float, tolerance: int = 12) -> None:
        """Fill the hole of the object's mask that (x, y) lies in; if it lies in none, the area of one color around it."""
        self._check_points([(x, y)], inside=True)
        now = self._project.labels(frame) == i
        found = hole_at(now, x, y)
        if found is None:
            found = flood(self.image(frame), x, y, max(0, min(int(tolerance), 255)))
        self.draw(frame, i, found, "add", "fill")

    def move(self, frame: int, i: int, dx: int, dy: int) -> None:
        """Shift the object's mask by whole pixels."""
        height, width = self._project.size
        if abs(dx) >= width or abs(dy) >= height:
            raise InputError(f"a shift by ({dx}, {dy}) leaves the frame of {width} x {height} pixels")
        now = self._project.labels(frame) == i
        moved = np.zeros_like(now)
        moved[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)] = now[
            max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)
        ]
        self.draw(frame, i, moved, "replace", "move")

    def copy(self, frame: int, i: int) -> int:
        """Take the object's mask from the nearest frame before this one that has it; return that frame.

        Raises:
            InputError: there is none.
        """
        project = self._project
        for n in np.flatnonzero(project.masked()[:frame])[::-1].tolist():
            known = project.measures.column(i, "pixels")[n]
            mask = project.labels(n) == i if known else None
            if mask is not None and mask.any():
                self.draw(frame, i, mask, "replace", f"copy from frame {n}")
                return int(n)
        raise InputError(f"no frame before {frame} has a mask of {self._object(i).name}")

    def absent(self, frame: int, i: int) -> None:
        """Say that the object is not in this frame."""
        self.draw(frame, i, np.zeros(self._project.size, np.bool_), "replace", "absent here")

    def clear(self, frame: int, i: int | None = None) -> None:
        """Forget what was given on a frame, and its masks: of one object, or of all that are not locked."""
        project = self._project
        with project.lock, project.action("clear") as action:
            given = project.given.get(frame, GivenFrame(()))
            gone = [i] if i is not None else [n for n, thing in project.objects.items() if not thing.locked]
            if i is not None and self._object(i).locked:
                raise InputError(f"{self._object(i).name} is locked: unlock it first")
            labels = project.labels(frame)
            labels = np.where(np.isin(labels, gone), 0, labels).astype(np.int32)
            rows = {n: row for n, row in project.measures.at(frame).items() if n not in gone}
            ids = tuple(n for n in given.ids if n not in gone)
            self._set_given(action, frame, labels, GivenFrame(ids, {n: p for n, p in given.prompts.items() if n in ids}))
            action.set_mask(frame, labels if rows else None, rows)

    def scissors(self, frame: int, start: tuple[float, float], end: tuple[float, float]) -> list[tuple[int, int]]:
        """Return the path along edges between two places; both must be inside the frame."""
        self._check_points([start, end], inside=True)
        if self._scissors is None or self._scissors[0] != frame:
            self._scissors = (frame, Scissors(self.image(frame)))
        tool = self._scissors[1]
        tool.start(*start)
        return tool.to(*end)

    def add_object(self, name: str | None = None, category: str = "object") -> TrackedObject:
        """Return a new object without a mask."""
        with self._project.lock, self._project.action("new object") as action:
            thing = self._project.new_object(name, category)
            action.set_object(thing)
        return thing

    def change_object(self, i: int, **changes: Any) -> TrackedObject:
        """Another name, category, color, visibility or lock."""
        with self._project.lock:
            thing = replace(self._object(i), **changes)
            with self._project.action(f"change of {', '.join(changes)}") as action:
                action.set_object(thing)
        return thing

    def here_again(self, frame: int, i: int) -> None:
        """Let an object that was absent be there again from this frame on."""
        with self._project.lock, self._project.action("here again") as action:
            action.set_object(self._object(i).returning(frame))

    def absent_from(self, frame: int, i: int, on_progress: Callable[[int, int], None] | None = None) -> None:
        """End an object at this frame: its masks from here on are removed, and none are tracked there."""
        thing = self._object(i)
        self._relabel({i: 0}, frame, None, f"{thing.name} absent from frame {frame}", thing.leaving(frame, None), on_progress)

    def remove_object(self, i: int, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Remove an object and all of its masks."""
        self._relabel({i: 0}, 0, None, f"removal of {self._object(i).name}", i, on_progress)

    def merge(self, kept: int, gone: int, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Two objects are one: the masks of `gone` become those of `kept`, and it vanishes."""
        if kept == gone:
            raise InputError("an object cannot be merged with itself: choose another one")
        what = f"merge of {self._object(gone).name} into {self._object(kept).name}"
        self._relabel({gone: kept}, 0, None, what, gone, on_progress)

    def swap(self, one: int, other: int, frame: int, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Two objects were mistaken for each other from this frame on: exchange their masks."""
        if one == other:
            raise InputError("an object cannot be swapped with itself: choose another one")
        what = f"swap of {self._object(one).name} and {self._object(other).name} from frame {frame}"
        self._relabel({one: other, other: one}, frame, None, what, None, on_progress)

    def _relabel(
        self,
        mapping: dict[int, int],
        start: int,
        stop: int | None,
        what: str,
        change: TrackedObject | int | None,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        """Replace ids in given and tracked masks of a range, frame by frame; then change an object, or drop it (its id)."""
        project = self._project
        masked = project.masked()
        frames = [n for n in range(start, project.frames if stop is None else stop) if masked[n] or n in project.given]
        with project.begin(what) as action:
            for at, n in enumerate(frames, 1):
                with project.lock:
                    self._relabel_frame(action, n, mapping)
                if on_progress is not None:
                    on_progress(at, len(frames))
            if isinstance(change, TrackedObject):
                action.set_object(change)
            elif change is not None:
                action.drop_object(change)

    def _relabel_frame(self, action: Action, n: int, mapping: dict[int, int]) -> None:
        project = self._project
        labels, rows, given = project.labels(n), project.measures.at(n), project.given.get(n)
        if not set(mapping) & {*rows, *(given.ids if given else ()), *np.unique(labels).tolist()}:
            return
        table = np.arange(max(int(labels.max()), *mapping, *mapping.values()) + 1)
        for old, new in mapping.items():
            table[old] = new
        labels = table[labels].astype(np.int32)
        scores = dict[int, float]()
        for i, row in rows.items():
            new = mapping.get(i, i)
            if new:
                scores[new] = max(row.score, scores.get(new, 0.0))
        if given is not None:
            ids = tuple(sorted({mapping.get(i, i) for i in given.ids} - {0}))
            kept = {i: prompt for i, prompt in given.prompts.items() if i not in mapping and i not in mapping.values()}
            self._set_given(action, n, labels, GivenFrame(ids, kept))
        if project.masked()[n]:
            action.set_mask(n, labels if scores else None, measure(labels, scores))

    def _put(self, frame: int, i: int, mask: Mask, what: str, prompts: dict[str, Any] | None = None) -> None:
        """Make this the given mask of the object on the frame; other objects lose the pixels, locked ones keep them."""
        project = self._project
        thing = self._object(i)
        if thing.locked:
            raise InputError(f"{thing.name} is locked: unlock it first")
        labels = project.labels(frame)
        locked = [n for n, other in project.objects.items() if other.locked]
        labels = np.where(labels == i, 0, labels)
        labels = np.where(mask & ~np.isin(labels, locked), i, labels).astype(np.int32)
        given = project.given.get(frame, GivenFrame(()))
        said = {n: prompt for n, prompt in given.prompts.items() if n != i}
        if prompts is not None:
            said[i] = prompts
        scores = {n: row.score for n, row in project.measures.at(frame).items()}
        scores[i] = float(bool(mask.any()))
        with project.action(what) as action:
            self._set_given(action, frame, labels, GivenFrame(tuple(sorted({*given.ids, i})), said))
            action.set_mask(frame, labels, measure(labels, scores))
            if thing.is_absent(frame) and mask.any():
                action.set_object(thing.returning(frame))

    def _set_given(self, action: Action, frame: int, labels: Labels, given: GivenFrame) -> None:
        """Given masks are the shown ones of the objects that are spoken for: what was painted over is no longer given there."""
        action.set_given(frame, np.where(np.isin(labels, given.ids), labels, 0).astype(np.int32), given)

    def _object(self, i: int) -> TrackedObject:
        if i not in self._project.objects:
            raise InputError(f"there is no object {i}; there are {sorted(self._project.objects)}")
        return self._project.objects[i]

    def _check_points(self, points: Points, inside: bool = False) -> None:
        height, width = self._project.size
        if len(points) > _MOST_POINTS:
            raise InputError(f"{len(points)} points were given, expected at most {_MOST_POINTS}")
        reach = 0 if inside else max(height, width)
        if not all(-reach <= x < width + reach and -reach <= y < height + reach for x, y in points):
            raise InputError(f"a point lies outside of the frame of {width} x {height} pixels")
