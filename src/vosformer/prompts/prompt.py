"""`Prompt`: what a user says about one object on one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vosformer.errors import InputError
from vosformer.prompts.maps import Box

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a user says about one object on one frame, in pixels of the frame, (x, y) from its top left corner.

    Attributes:
        points: clicks (x, y) in the order in which they were made; 0 <= x < width, 0 <= y < height.
        labels: of each point 1 (the object) or 0 (not the object); None: all 1.
        box: (x0, y0, x1, y1) around the object, or None.
        scribbles: integers [H,W]: 1 = the object, -1 = not the object, 0 = nothing said; bool: True = the object; or None.
        mask: bool [H,W], the object's mask so far, which the rest of the prompt repairs; alone it is the answer. Or None.
    """

    points: Sequence[tuple[float, float]] = ()
    labels: Sequence[int] | None = None
    box: Sequence[float] | None = None
    scribbles: ArrayLike | None = None
    mask: ArrayLike | None = None

    def checked(self, height: int, width: int) -> CheckedPrompt:
        """Return the same for a frame of this size.

        Raises:
            InputError: nothing is given, a point lies outside the frame, labels that are not 0 or 1 or not one for each point, a box
                without area or outside the frame, arrays of another size, or nothing that says where the object is.
        """
        points = _points(self.points, height, width)
        labels = _labels(self.labels, len(points))
        box = None if self.box is None else _box(self.box, height, width)
        scribbles = None if self.scribbles is None else _scribbles(self.scribbles, height, width)
        mask = None if self.mask is None else _mask(self.mask, height, width)
        if not len(points) and box is None and scribbles is None and mask is None:
            raise InputError("a prompt says nothing: give points, a box, scribbles or a mask")
        shown = labels.any() or box is not None or mask is not None or (scribbles is not None and (scribbles > 0).any())
        if not shown:
            raise InputError(
                "a prompt says only where the object is not: give a point with label 1, a box, a scribble on it, or a mask to repair"
            )
        return CheckedPrompt(points, labels, box, scribbles, mask)


class CheckedPrompt(NamedTuple):
    """A prompt that fits its frame.

    Attributes:
        points: int64 [n,2], (x, y).
        positive: bool [n].
        box: inside the frame, or None.
        scribbles: int8 [H,W] of -1, 0, 1, or None.
        mask: bool [H,W], or None.
    """

    points: NDArray[np.int64]
    positive: Mask
    box: Box | None
    scribbles: NDArray[np.int8] | None
    mask: Mask | None

    def marks(self, size: tuple[int, int], points: int | None = None) -> NDArray[np.int8]:
        """Draw the scribbles and the first `points` (None: all) of the points, later ones over earlier ones.

        Returns:
            int8 [H,W] of `size`: 1 = the object, -1 = not, 0 = nothing said.
        """
        marks = np.zeros(size, np.int8) if self.scribbles is None else self.scribbles.copy()
        for (x, y), positive in zip(self.points[:points], self.positive[:points], strict=True):
            marks[y, x] = 1 if positive else -1
        return marks


def _points(points: Any, height: int, width: int) -> NDArray[np.int64]:
    try:
        array = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"points are {points!r}, expected a list of pairs (x, y)") from None
    if array.size == 0:
        return np.zeros((0, 2), np.int64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"points have the shape {list(array.shape)}, expected a list of pairs (x, y)")
    outside = ~((array >= 0) & (array < (width, height))).all(1)
    if outside.any():
        x, y = array[outside][0]
        raise InputError(
            f"the point ({x:g}, {y:g}) is outside of the frame of {width} x {height} pixels; expected (x, y) in pixels of the frame"
        )
    return np.floor(array).astype(np.int64)


def _labels(labels: Any, count: int) -> Mask:
    if labels is None:
        return np.ones(count, bool)
    values = list(labels)
    if len(values) != count:
        raise InputError(f"{len(values)} labels were given for {count} points; expected one for each, 1 = object, 0 = not")
    strange = [value for value in values if not isinstance(value, Real | np.bool_) or value not in (0, 1)]
    if strange:
        raise InputError(f"a label is {strange[0]!r}, expected 1 (the object) or 0 (not the object)")
    return np.array(values, bool)


def _box(box: Any, height: int, width: int) -> Box:
    try:
        x0, y0, x1, y1 = (float(side) for side in box)
    except (TypeError, ValueError):
        raise InputError(f"the box is {box!r}, expected four numbers (x0, y0, x1, y1)") from None
    if not (x0 < x1 and y0 < y1):  # also with NaN
        raise InputError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has no area; expected (x0, y0, x1, y1) with x0 < x1 and y0 < y1"
        )
    inside = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
    if inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:
        raise InputError(f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has no pixel of the frame of {width} x {height} pixels")
    return inside


def _scribbles(scribbles: Any, height: int, width: int) -> NDArray[np.int8]:
    array = np.asarray(scribbles)
    if array.shape != (height, width):
        raise InputError(f"scribbles of shape {list(array.shape)} were given for a frame of {height} x {width} pixels")
    if array.dtype.kind not in "biu" or not np.isin(array, (-1, 0, 1)).all():
        raise InputError("scribbles must be integers of 1 (the object), -1 (not the object) and 0 (nothing said)")
    if not array.any():
        raise InputError("the scribbles are empty: all of their pixels are 0")
    return array.astype(np.int8)


def _mask(mask: Any, height: int, width: int) -> Mask:
    array = np.asarray(mask)
    if array.shape != (height, width):
        raise InputError(f"a mask of shape {list(array.shape)} was given for a frame of {height} x {width} pixels")
    if array.dtype.kind not in "biu":
        raise InputError(f"a mask of type {array.dtype} was given, expected bool, or integers with 0 = not the object")
    return np.asarray(array != 0)
