"""From gestures to masks: clicks, boxes, strokes, polygons, fills, paths along edges."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

import vosformer
from vosformer.errors import InputError

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Path = Sequence[tuple[float, float]]

_FRACTION = 4  # bits behind the point of OpenCV's coordinates
_CONTEXT = 0.2  # of the frame's sides: around clicks without a box


def marked(image: Image, points: Path, labels: Sequence[int], box: Sequence[float] | None, mask: Mask | None) -> Mask:
    """The mask of one object by clicks (1 = on it, 0 = not), a box (x0, y0, x1, y1), and a mask to repair.

    Raises:
        InputError: nothing is found.
    """
    mark = getattr(vosformer, "mark", None)
    if mark is not None:
        return np.asarray(mark(image, points=[*points], labels=[*labels], box=box, mask=mask), np.bool_)
    return _grabcut(image, points, labels, box, mask)


def _grabcut(image: Image, points: Path, labels: Sequence[int], box: Sequence[float] | None, mask: Mask | None) -> Mask:
    """GrabCut, seeded by the box, the mask, and disks around the clicks."""
    height, width = image.shape[:2]
    factor = min(1.0, 480 / min(height, width))
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    seeds = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    if box is not None:
        x0, y0, x1, y1 = (round(v * factor) for v in box)
        seeds[max(0, y0) : max(1, y1), max(0, x0) : max(1, x1)] = cv2.GC_PR_FGD
    elif mask is None:
        for (x, y), label in zip(points, labels, strict=True):
            if label:
                radius = round(_CONTEXT * min(size))
                cv2.circle(seeds, (round(x * factor), round(y * factor)), radius, cv2.GC_PR_FGD, -1)
    if mask is not None:
        inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        near = cv2.dilate(inside.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        seeds[near] = cv2.GC_PR_BGD
        seeds[inside] = cv2.GC_PR_FGD
    for (x, y), label in zip(points, labels, strict=True):
        cv2.circle(seeds, (round(x * factor), round(y * factor)), 3, cv2.GC_FGD if label else cv2.GC_BGD, -1)
    if not np.isin(seeds, [cv2.GC_FGD, cv2.GC_PR_FGD]).any() or np.isin(seeds, [cv2.GC_FGD, cv2.GC_PR_FGD]).all():
        raise InputError("there is nothing to mark there: draw a box around the object, or click on it")
    cv2.setRNGSeed(0)
    cv2.grabCut(small, seeds, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    found = np.isin(seeds, [cv2.GC_FGD, cv2.GC_PR_FGD]).astype(np.float32)
    return np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5)


def polygon(points: Path, height: int, width: int) -> Mask:
    """Fill a polygon [height,width] of at least three corners (x, y)."""
    if len(points) < 3:
        raise InputError(f"a polygon of {len(points)} corners was given; expected at least 3")
    filled = np.zeros((height, width), np.uint8)
    cv2.fillPoly(filled, [_fixed(points)], 1, shift=_FRACTION)
    return filled > 0


def stroke(path: Path, radius: float, height: int, width: int) -> Mask:
    """The pixels [height,width] that a round brush covers on its way."""
    covered = np.zeros((height, width), np.uint8)
    cv2.polylines(covered, [_fixed(path)], False, 1, max(1, round(2 * radius)), shift=_FRACTION)
    for place in _fixed(path).reshape(-1, 2).tolist():
        cv2.circle(covered, tuple(place), round(radius * 2**_FRACTION), 1, -1, shift=_FRACTION)
    return covered > 0


class Scissors:
    """Intelligent scissors (Mortensen and Barrett 1995, as OpenCV has them): paths that hold on to edges."""

    def __init__(self, frame: Image) -> None:
        self._tool = cv2.segmentation.IntelligentScissorsMB()
        self._tool.setEdgeFeatureCannyParameters(32, 100)
        self._tool.setGradientMagnitudeMaxLimit(200)
        self._tool.applyImage(np.ascontiguousarray(frame[..., ::-1]))

    def start(self, x: float, y: float) -> None:
        """Where paths begin."""
        self._tool.buildMap((int(x), int(y)))

    def to(self, x: float, y: float) -> list[tuple[int, int]]:
        """The path (x, y), ... from the start to here."""
        return [(int(px), int(py)) for px, py in self._tool.getContour((int(x), int(y))).reshape(-1, 2)]


def flood(image: Image, x: float, y: float, tolerance: int) -> Mask:
    """The connected pixels whose color differs from the one at (x, y) by at most `tolerance` a channel."""
    height, width = image.shape[:2]
    reached = np.zeros((height + 2, width + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    cv2.floodFill(image.copy(), reached, (int(x), int(y)), 0, (tolerance,) * 3, (tolerance,) * 3, flags)
    return reached[1:-1, 1:-1] > 0


def hole_at(mask: Mask, x: float, y: float) -> Mask | None:
    """The hole of a mask that (x, y) lies in: pixels enclosed by it; None if it lies in none."""
    if mask[int(y), int(x)]:
        return None
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, parts = cv2.connectedComponents(outside, connectivity=4)
    part = parts[int(y) + 1, int(x) + 1]
    return None if part == parts[0, 0] else np.asarray(parts[1:-1, 1:-1] == part)


def _fixed(points: Path) -> NDArray[np.int32]:
    return np.asarray(np.round(np.asarray(points, np.float64).reshape(-1, 1, 2) * 2**_FRACTION), np.int32)
