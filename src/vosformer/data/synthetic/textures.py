"""Procedural pictures: textures for backgrounds and shapes for objects, so that composed video needs no download."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.data.types import Image


def noise(rng: np.random.Generator, height: int, width: int, coarsest: int) -> NDArray[np.float32]:
    """Smooth noise [height,width] of about zero mean and unit deviation: octaves whose cells halve from `coarsest` pixels."""
    total = np.zeros((height, width), np.float32)
    cell, weight = float(max(2, coarsest)), 1.0
    falloff = float(rng.uniform(0.35, 0.8))
    while cell >= 2:
        grid = rng.standard_normal((max(2, math.ceil(height / cell) + 1), max(2, math.ceil(width / cell) + 1)), np.float32)
        total += weight * np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC))
        cell, weight = cell / 2.5, weight * falloff
    return total / max(float(total.std()), 1e-6)


def texture(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a random texture uint8 [height,width,3]: clouds, stripes, checks or blobs, in a palette of two to four colors."""
    field = noise(rng, height, width, int(min(height, width) * rng.uniform(0.1, 0.8)))
    kind = int(rng.integers(4))
    if kind == 1:
        field = 0.4 * field + 1.4 * _stripes(rng, height, width)
    elif kind == 2:
        field = 0.3 * field + np.sign(_stripes(rng, height, width)) * np.sign(_stripes(rng, height, width))
    elif kind == 3:
        field = np.sin(field * rng.uniform(1, 5)) * 1.5
    colors = palette(rng, int(rng.integers(2, 5)))
    ramp = np.stack(
        [np.interp(np.linspace(-2, 2, 256), np.linspace(-1.6, 1.6, len(colors)), colors[:, c]) for c in range(3)], 1
    )
    index = np.clip((field + 2) * 63.75, 0, 255).astype(np.uint8)
    image = ramp.astype(np.float32)[index]
    grain = float(rng.uniform(0, 12))
    image += grain * rng.standard_normal((height, width, 1), np.float32)
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def palette(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """`count` colors [count,3] in 0..255 around a common tone."""
    tone = rng.uniform(20, 235, 3)
    return np.clip(tone + rng.normal(0, 60, (count, 3)), 0, 255)


def outline(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Return the alpha [side,side] of a random shape: blob, star, ellipse, polygon, limbed figure or bar."""
    canvas = np.zeros((side, side), np.uint8)
    kind = int(rng.integers(5))
    if kind == 4:
        return _figure(rng, canvas)
    angles = np.linspace(0, math.tau, 96, endpoint=False)
    if kind == 0:
        radius = np.ones_like(angles)
        for order in range(2, 7):
            radius += rng.normal(0, 0.5 / order) * np.cos(order * angles + rng.uniform(0, math.tau))
    elif kind == 1:
        radius = 1 + rng.uniform(0.2, 0.6) * np.cos(int(rng.integers(3, 9)) * angles)
    elif kind == 2:
        radius = np.ones_like(angles)
    else:
        corners = np.sort(rng.uniform(0, math.tau, int(rng.integers(3, 8))))
        lengths = rng.uniform(0.5, 1.0, len(corners))
        radius = np.interp(angles, corners, lengths, period=math.tau)
    radius = np.maximum(radius, 0.15)
    points = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1) * [1.0, rng.uniform(0.35, 1.0)]
    points *= 0.47 * side / np.abs(points).max()
    cv2.fillPoly(canvas, [np.round((points + side / 2) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return canvas


def shape(rng: np.random.Generator, side: int, skin: Image | None = None) -> NDArray[np.uint8]:
    """Return a random textured object, RGBA uint8 [side,side,4]; its skin is a texture, or `skin` scaled to the side."""
    colors = (
        texture(rng, side, side) if skin is None else np.asarray(cv2.resize(skin, (side, side), interpolation=cv2.INTER_AREA))
    )
    return np.dstack([colors, outline(rng, side)])


def _stripes(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    angle, wavelength = rng.uniform(0, math.pi), min(height, width) * rng.uniform(0.03, 0.3)
    rows = np.arange(height, dtype=np.float32)[:, None] * np.float32(math.sin(angle) * math.tau / wavelength)
    columns = np.arange(width, dtype=np.float32)[None] * np.float32(math.cos(angle) * math.tau / wavelength)
    return np.sin(rows + columns + np.float32(rng.uniform(0, math.tau)))


def _figure(rng: np.random.Generator, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a body with a head and limbs drawn as thick lines: thin parts and holes between them."""
    side = canvas.shape[0]
    thick = int(side * rng.uniform(0.05, 0.16))
    hip, neck = np.array([0.5, 0.6]), np.array([0.5 + rng.normal(0, 0.06), 0.32])

    def line(start: NDArray[np.float64], end: NDArray[np.float64], width: int) -> None:
        first, last = (np.clip(p, 0.1, 0.9) * side for p in (start, end))
        cv2.line(canvas, tuple(map(int, first)), tuple(map(int, last)), 255, max(2, width), cv2.LINE_AA)

    line(hip, neck, thick * 2)
    for joint, low in ((hip, 0.35), (neck, 0.25)):
        for way in (-1.0, 1.0):
            knee = joint + np.array([way * rng.uniform(0.05, 0.2), rng.uniform(-0.05, low / 2)])
            line(joint, knee, thick)
            line(knee, knee + np.array([way * rng.uniform(-0.1, 0.15), rng.uniform(0.05, low)]), thick)
    head = neck - [rng.normal(0, 0.03), 0.12]
    cv2.circle(canvas, tuple(map(int, head * side)), int(side * rng.uniform(0.06, 0.11)), 255, -1, cv2.LINE_AA)
    return canvas
