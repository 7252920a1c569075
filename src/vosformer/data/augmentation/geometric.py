"""Changes of shape that keep masks exact: pictures are interpolated, labels are taken from the nearest pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.data.types import Image, Labels

FILL = (124, 116, 104)
"""ImageNet's mean color, which the papers' code fills empty parts with."""

Interpolation = Literal["bicubic", "bilinear"]
_WAYS = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR}


def size_of(labels: Labels) -> tuple[int, int]:
    """Return (height, width) of a label map."""
    return labels.shape[0], labels.shape[1]


@dataclass(frozen=True)
class Box:
    """A part of a picture: rows top..top+height, columns left..left+width."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the part of a picture or label map."""
        return values[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Affine:
    """Random affine transforms about the picture's center.

    Attributes:
        degrees: rotation from -d to d.
        shift: translation from -s to s, as share of the side.
        scale: (smallest, largest) factor.
        shear: horizontal shear from -s to s, degrees.
    """

    degrees: float = 0.0
    shift: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
        """Return a matrix [2,3] from source pixels to target pixels."""
        height, width = size
        angle = math.radians(rng.uniform(-self.degrees, self.degrees))
        x, y = (round(rng.uniform(-self.shift, self.shift) * side) for side in (width, height))
        factor = rng.uniform(*self.scale)
        shear = math.tan(math.radians(rng.uniform(-self.shear, self.shear)))
        cos, sin = factor * math.cos(angle), factor * math.sin(angle)
        # First the shear, then rotation and scale, then the shift.
        turn = np.array([[cos, -sin - shear * cos], [sin, cos - shear * sin]])
        center = np.array([(width - 1) / 2, (height - 1) / 2])
        return np.column_stack([turn, center + np.array([x, y]) - turn @ center])


def warp(
    image: Image, labels: Labels, matrix: NDArray[np.float64], way: Interpolation = "bicubic", fill: tuple[int, int, int] = FILL
) -> tuple[Image, Labels]:
    """Apply an affine matrix [2,3]; parts without source get `fill` and label 0."""
    target = labels.shape[::-1]
    picture = cv2.warpAffine(image, matrix, target, flags=_WAYS[way], borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
    ids = cv2.warpAffine(labels, matrix, target, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(picture, np.uint8), np.asarray(ids, np.uint8)


def resize(image: Image, labels: Labels, height: int, width: int, way: Interpolation = "bicubic") -> tuple[Image, Labels]:
    """Scale both to height x width. Strong reductions average the picture's pixels, since sampling alone would alias."""
    if labels.shape == (height, width):
        return image, labels
    shrinks = min(height / labels.shape[0], width / labels.shape[1]) < 0.5
    picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else _WAYS[way])
    return np.asarray(picture, np.uint8), resize_labels(labels, height, width)


def resize_labels(labels: Labels, height: int, width: int) -> Labels:
    """Scale labels by nearest neighbor."""
    return np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def random_area(
    rng: np.random.Generator, size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float] = (3 / 4, 4 / 3)
) -> Box:
    """Return a random box with a share of the area in `area` and an aspect (width / height, log-uniform) in `aspect`.

    Ten tries, then the largest box in the middle whose aspect is allowed.
    """
    height, width = size
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        wide, tall = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            return Box(int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1)), tall, wide)
    ratio = min(max(width / height, aspect[0]), aspect[1])
    tall, wide = min(height, round(width / ratio)), min(width, round(height * ratio))
    return Box((height - tall) // 2, (width - wide) // 2, tall, wide)


def random_box(rng: np.random.Generator, size: tuple[int, int], side: int) -> Box:
    """Return a random square box of `side` pixels, or less where the picture is smaller."""
    height, width = size
    tall, wide = min(side, height), min(side, width)
    return Box(int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1)), tall, wide)


def pad_to(image: Image, labels: Labels, side: int, offset: tuple[float, float]) -> tuple[Image, Labels]:
    """Fill up to side x side with the mean color and label 0; `offset` in [0,1] says how much of it lies above and on the left."""
    height, width = labels.shape
    if (height, width) == (side, side):
        return image, labels
    # The offset is scaled to 0..gap, both included.
    top, left = (
        min(side - extent, int(share * (side - extent + 1))) for share, extent in zip(offset, (height, width), strict=True)
    )
    picture = np.empty((side, side, 3), np.uint8)
    picture[:] = FILL
    ids = np.zeros((side, side), np.uint8)
    picture[top : top + height, left : left + width] = image
    ids[top : top + height, left : left + width] = labels
    return picture, ids


def thin_plate(rng: np.random.Generator, size: tuple[int, int], scale: float, points: int = 16) -> NDArray[np.float32]:
    """Return a random thin-plate-spline warp: where each target pixel is taken from, float32 [height,width,2] as (x, y).

    `points` random control points are moved by normal offsets with a deviation of `scale` times the side.
    """
    height, width = size
    source = rng.uniform(0, 1, (points, 2))
    target = source + rng.normal(0, scale, (points, 2))
    side = 33
    at = np.stack(np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side)), -1)
    grid = (interpolate_plate(target, source, at) * [width - 1, height - 1]).astype(np.float32)
    # The corners of the grid are the centers of the corner pixels.
    x = np.linspace(0, side - 1, width, dtype=np.float32)[None].repeat(height, 0)
    y = np.linspace(0, side - 1, height, dtype=np.float32)[:, None].repeat(width, 1)
    return np.asarray(cv2.remap(grid, x, y, cv2.INTER_LINEAR), np.float32)


def interpolate_plate(
    centers: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate values by a thin-plate spline, the smoothest surface through them.

    Args:
        centers: [n,2], where the values are known.
        values: [n,c].
        at: [...,2], where they are computed.

    Returns:
        [...,c]. The spline is smooth: a coarse grid of it may be interpolated linearly.
    """
    points = len(centers)
    kernel = _radial(centers[:, None] - centers[None])
    plane = np.column_stack([np.ones(points), centers])
    system = np.block([[kernel, plane], [plane.T, np.zeros((3, 3))]])
    weights = np.linalg.lstsq(system, np.vstack([values, np.zeros((3, values.shape[1]))]), rcond=None)[0]
    flat = at.reshape(-1, 2)
    found = _radial(flat[:, None] - centers[None]) @ weights[:-3] + np.column_stack([np.ones(len(flat)), flat]) @ weights[-3:]
    return np.asarray(found.reshape(*at.shape[:-1], values.shape[1]), np.float64)


def remap(image: Image, labels: Labels, field: NDArray[np.float32]) -> tuple[Image, Labels]:
    """Apply a field of source positions [H,W,2]; parts without source get the mean color and label 0."""
    x, y = np.ascontiguousarray(field[..., 0]), np.ascontiguousarray(field[..., 1])
    picture = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=FILL)
    ids = cv2.remap(labels, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(picture, np.uint8), np.asarray(ids, np.uint8)


def _radial(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    square = (difference**2).sum(-1)
    return np.asarray(square * np.log(np.sqrt(square) + 1e-12), np.float64)
