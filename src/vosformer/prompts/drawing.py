"""Masks by hand: brush, eraser, polygon, and a lasso that holds on to edges."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError

Mask = NDArray[np.bool_]
Path = Sequence[tuple[float, float]]
"""Places (x, y) in pixels."""

_FRACTION = 4  # bits behind the point of OpenCV's coordinates: sixteenths of a pixel


def polygon(points: Path, height: int, width: int) -> Mask:
    """Fill a polygon; it is closed by itself and may leave the frame.

    Args:
        points: at least three corners (x, y), in pixels of the frame; (0, 0) is the middle of the first pixel.
        height: of the frame.
        width: of the frame.

    Returns:
        bool [height,width].

    Raises:
        InputError: fewer than three corners.
    """
    if len(points) < 3:
        raise InputError(f"a polygon of {len(points)} corners was given; expected at least 3")
    filled = np.zeros((height, width), np.uint8)
    cv2.fillPoly(filled, [_fixed(points)], 1, shift=_FRACTION)
    return filled > 0


def brush(mask: Mask, path: Path, radius: float, erase: bool = False) -> Mask:
    """Paint along a path, or erase along it.

    Args:
        mask: bool [H,W]; it stays as it is.
        path: at least one place (x, y).
        radius: of the brush, pixels.
        erase: take away instead of adding.

    Returns:
        bool [H,W].

    Raises:
        InputError: an empty path, or a radius that is not above 0.
    """
    covered = stroke(path, radius, *mask.shape)
    return mask & ~covered if erase else mask | covered


def stroke(path: Path, radius: float, height: int, width: int) -> Mask:
    """Return the pixels [height,width] that a round brush covers on its way; see `brush`. Of use for scribbles."""
    if not len(path):
        raise InputError("a brush stroke needs at least one place (x, y)")
    if not radius > 0:
        raise InputError(f"the brush has a radius of {radius:g} pixels, expected more than 0")
    covered = np.zeros((height, width), np.uint8)
    if len(path) > 1:
        cv2.polylines(covered, [_fixed(path)], False, 1, max(1, round(2 * radius)), shift=_FRACTION)
    for x, y in path:
        cv2.circle(
            covered, (round(x * 2**_FRACTION), round(y * 2**_FRACTION)), round(radius * 2**_FRACTION), 1, -1, shift=_FRACTION
        )
    return covered > 0


class Scissors:
    """Intelligent scissors (Mortensen and Barrett 1995, as OpenCV has them): paths that hold on to edges.

    Args:
        frame: uint8 RGB [H,W,3].
    """

    def __init__(self, frame: NDArray[np.uint8]) -> None:
        self._height, self._width = frame.shape[:2]
        self._tool = cv2.segmentation.IntelligentScissorsMB()
        self._tool.setEdgeFeatureCannyParameters(32, 100)
        self._tool.setGradientMagnitudeMaxLimit(200)
        self._tool.applyImage(np.ascontiguousarray(frame[..., ::-1]))
        self._start: tuple[int, int] | None = None

    def start(self, x: float, y: float) -> None:
        """Put the end of the thread down; what follows leads from here.

        Raises:
            InputError: outside the frame.
        """
        self._start = self._inside(x, y)
        self._tool.buildMap(self._start)

    def to(self, x: float, y: float) -> list[tuple[int, int]]:
        """Return the path (x, y), ... along edges from the start to here, both included; the corners of a `polygon`.

        Raises:
            InputError: outside the frame, or there was no `start`.
        """
        if self._start is None:
            raise InputError("the scissors have no start yet: call start(x, y) first")
        end = self._inside(x, y)
        if end == self._start:
            return [end]
        return [(int(px), int(py)) for px, py in self._tool.getContour(end).reshape(-1, 2)]

    def _inside(self, x: float, y: float) -> tuple[int, int]:
        if not (0 <= x < self._width and 0 <= y < self._height):
            raise InputError(f"the point ({x:g}, {y:g}) is outside of the frame of {self._width} x {self._height} pixels")
        return int(x), int(y)


def _fixed(points: Path) -> NDArray[np.int32]:
    return np.asarray(np.round(np.asarray(points, np.float64).reshape(-1, 1, 2) * 2**_FRACTION), np.int32)
