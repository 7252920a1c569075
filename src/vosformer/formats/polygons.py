"""Masks as polygons and back, by the two conventions of the field.

COCO and CVAT mean continuous coordinates: pixel x covers x to x + 1, and a pixel belongs to a polygon that holds its center. The
outline then runs along the edges of pixels. YOLO, labelme and OpenCV mean the centers of pixels: the outline runs through the
outermost pixels, which belong to it.

A polygon is one ring. Holes and further parts are joined to it by bridges that are walked there and back: they enclose nothing
between edges of pixels, so that COCO's and CVAT's polygons hold any mask exactly. Between centers a bridge is a line of one pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from vosformer.formats.labeled import Mask, check_sides

Ring = NDArray[np.int64]
"""Corners [n,2] as x, y; the last is joined to the first."""


def edge_rings(mask: Mask) -> list[Ring]:
    """Return the outlines of a mask along the edges of its pixels, each part and each hole a ring, corners only."""
    pixels = np.pad(mask.pixels(), 1)
    # Directed edges with the mask on their right: up left sides, right along tops, down right sides, left along bottoms.
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}

    inner = pixels[1:-1, 1:-1]
    sides = (
        (pixels[:-2, 1:-1], (0, 0), (1, 0)),
        (pixels[1:-1, 2:], (1, 0), (1, 1)),
        (pixels[2:, 1:-1], (1, 1), (0, 1)),
        (pixels[1:-1, :-2], (0, 1), (0, 0)),
    )
    for beyond, begin, end in sides:
        for y, x in np.argwhere(inner & ~beyond).tolist():
            following.setdefault((x + begin[0], y + begin[1]), []).append((x + end[0], y + end[1]))
    rings = []
    while following:
        start = next(iter(following))
        ring, corner, came = [], start, (0, 0)
        while True:
            ends = following[corner]
            # Where two pixels touch by a corner, turning right keeps them two rings.
            right = (corner[0] - came[1], corner[1] + came[0])
            end = right if right in ends else ends[0]
            ends.remove(end)
            if not ends:
                del following[corner]
            step = (end[0] - corner[0], end[1] - corner[1])
            if step != came:
                ring.append(corner)
            corner, came = end, step
            if corner == start:
                break
        rings.append(_merged(np.array(ring, np.int64)))
    return rings


def _merged(ring: Ring) -> Ring:
    """Return the ring without corners on straight lines."""
    former, latter = np.roll(ring, 1, 0), np.roll(ring, -1, 0)
    bends = (ring - former)[:, 0] * (latter - ring)[:, 1] != (ring - former)[:, 1] * (latter - ring)[:, 0]
    return np.asarray(ring[bends])


def center_rings(mask: Mask) -> tuple[list[Ring], list[Ring]]:
    """Return the outlines of a mask through the centers of its outermost pixels: those of its parts, and those around its
    holes.
    """
    contours, levels = cv2.findContours(mask.pixels().astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if levels is None:
        return [], []
    rings = [contour.reshape(-1, 2).astype(np.int64) for contour in contours]
    parents = np.asarray(levels).reshape(-1, 4)[:, 3]
    outer = [ring for ring, parent in zip(rings, parents, strict=True) if parent < 0]
    return outer, [ring for ring, parent in zip(rings, parents, strict=True) if parent >= 0]


def one_ring(rings: Sequence[Ring]) -> Ring:
    """Join rings to one by bridges between corners that are near each other, walked there and back."""
    joined = rings[0]
    rest = list(rings[1:])
    while rest:
        best = min(range(len(rest)), key=lambda at: _nearest(joined, rest[at])[0])
        _, here, there = _nearest(joined, rest[best])
        ring = rest.pop(best)
        detour = np.concatenate([ring[there:], ring[: there + 1]])
        joined = np.concatenate([joined[: here + 1], detour, joined[here:]])
    return joined


def _nearest(left: Ring, right: Ring) -> tuple[int, int, int]:
    """Return (squared distance, index in left, index in right) of the nearest corners."""
    best = (1 << 62, 0, 0)
    for at in range(0, len(left), 256):  # bounded memory for large rings
        distance = ((left[at : at + 256, None] - right[None]) ** 2).sum(-1)
        low = int(distance.argmin())
        found = (int(distance.flat[low]), at + low // len(right), low % len(right))
        best = min(best, found)
    return best


def fill_edges(polygons: Iterable[Sequence[float]], height: int, width: int) -> Mask:
    """Return the mask of polygons x1, y1, x2, y2, ... in continuous coordinates, by COCO's own rule; polygons are joined.

    Raises:
        ValueError: a polygon has fewer than three corners, or an odd number of values, or one that is no number.
    """
    check_sides(height, width)
    checked = [_checked(polygon, height, width) for polygon in polygons]
    if not checked:
        return Mask.of(np.zeros((height, width), np.uint8))
    merged = coco.merge(coco.frPyObjects([polygon.reshape(-1).tolist() for polygon in checked], height, width))
    return Mask(height, width, merged["counts"].decode())


def fill_centers(polygons: Iterable[Sequence[float]], height: int, width: int) -> Mask:
    """Return the mask of polygons x1, y1, x2, y2, ... through centers of pixels, which belong to it; polygons are joined.

    Raises:
        ValueError: see `fill_edges`.
    """
    check_sides(height, width)
    pixels = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        corners = np.rint(_checked(polygon, height, width, least=1)).astype(np.int32)
        cv2.fillPoly(pixels, [corners], 1)
    return Mask.of(pixels)


def _checked(polygon: Sequence[float], height: int, width: int, least: int = 3) -> NDArray[np.float64]:
    values = np.asarray(polygon, np.float64).reshape(-1)
    if len(values) % 2 or len(values) < 2 * least:
        raise ValueError(f"a polygon of {len(values)} values, expected x and y of at least {least} corners")
    if not np.isfinite(values).all():
        raise ValueError("a polygon with values that are no numbers")
    corners = values.reshape(-1, 2)
    reach = 4.0 * max(height, width)
    return np.asarray(corners.clip(-reach, reach))
