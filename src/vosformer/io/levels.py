"""Pixels of any depth as 8 bits: one range for a whole source, so that no frame is brighter than another because of its content."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.frames import Image
from vosformer.io.hdr import roll_off, srgb

SAMPLES = 16
"""Frames of a source that are looked at to find its range."""

_TAIL_PERCENT = 0.05  # of the pixels at either end may be dead, hot or glinting ones
_SAMPLED_VALUES = 200_000  # of each floating-point picture
# Of linear light: between these a picture is exposed as usual; others get the gray that half of all scenes average to.
_DARKEST, _BRIGHTEST, _MIDDLE_GRAY = 0.02, 0.5, 0.18


class Levels(NamedTuple):
    """The values that become black and white.

    Attributes:
        low: becomes 0.
        high: becomes 255.
        stretched: the values fill only a part of what their type can hold, or more than white, which is worth a note.
        linear: the values are linear light, which is encoded as sRGB.
        peak: of linear light, in units of `high`: what is brighter than white is rolled off so that this becomes 255.
    """

    low: float
    high: float
    stretched: bool = False
    linear: bool = False
    peak: float = 1.0

    def apply(self, values: NDArray[np.generic]) -> Image:
        """Scale and round values of any shape to uint8; what lies outside becomes 0 or 255, and so does what is no number (0)."""
        if values.dtype in (np.uint8, np.uint16):
            table = (np.arange(1 << 8 * values.itemsize) - self.low) * (255 / (self.high - self.low))
            return np.asarray(np.rint(table).clip(0, 255).astype(np.uint8)[values])
        known = np.nan_to_num(values.astype(np.float32), nan=self.low)
        if self.linear:
            light = np.maximum((known - np.float32(self.low)) * np.float32(1 / (self.high - self.low)), 0)
            if self.peak > 1:
                most = light.max(-1, keepdims=True) if light.ndim == 3 else light  # one factor for a pixel keeps its hue
                light = light * (roll_off(most, self.peak) / np.maximum(most, np.float32(1e-9)))
            return np.asarray(np.rint(srgb(light.clip(0, 1)) * 255).astype(np.uint8))
        scaled = (known - self.low) * np.float32(255 / (self.high - self.low))
        return np.asarray(np.rint(scaled.clip(0, 255)).astype(np.uint8))

    def describe(self, sampled: int, scale: float = 1) -> str:
        """Say what was stretched, for `Notes`; `scale` turns the values into those of the file."""
        low, high = f"{self.low * scale:.5g}", f"{self.high * scale:.5g}"
        if self.linear:
            top = f"{self.high * self.peak * scale:.5g}"
            return (
                f"its linear light was toned down: {high} is white, up to 0.7 of it light stays as it is, and {top} becomes 255, the "
                f"same for every frame; --range LOW:HIGH chooses what is black and white"
            )
        return (
            f"the values {low} to {high} (all but {_TAIL_PERCENT} % at either end, in {sampled} "
            f"{'frame' if sampled == 1 else 'frames'}) were stretched to 0 to 255, the same for every frame; "
            f"--range LOW:HIGH chooses others"
        )


def parse_range(text: str) -> Levels:
    """Read "LOW:HIGH", two numbers.

    Raises:
        InputError: it is something else, or LOW is not below HIGH.
    """
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"the range {text!r} is not understood: expected LOW:HIGH, two numbers of which the first is lower")
    return Levels(low, high)


def find_levels(samples: Iterable[NDArray[np.generic]], linear: bool = False) -> Levels:
    """Find the range of a source from some of its frames.

    Linear light (`linear`: EXR, Radiance) has its white at 1, where an ordinary exposure has it; pictures whose geometric mean is
    below 0.02 or above 0.5, as files in other units have it, are exposed so that it becomes 0.18 (Reinhard and others 2002).

    Values that fill half of what their type can hold (65535; 1 or 255 for floating-point ones) keep their scale, as 8-bit pictures
    do. Others are stretched: all but 0.05 % of the pixels at either end lie between the levels.

    Args:
        samples: uint16 or float32 arrays of any shape.
        linear: whether floating-point values are linear light.
    """
    counts = np.zeros(65536, np.int64)
    numbers = []
    for values in samples:
        if values.dtype == np.uint16:
            counts += np.bincount(values.ravel(), minlength=65536)
        else:
            known = values[np.isfinite(values)].astype(np.float64)
            numbers.append(known[:: max(1, known.size // _SAMPLED_VALUES)])
    if counts.any():
        share = np.cumsum(counts) / counts.sum() * 100
        low, high = np.searchsorted(share, _TAIL_PERCENT, side="right"), np.searchsorted(share, 100 - _TAIL_PERCENT)
        used = np.flatnonzero(counts)
        return _levels(float(low), float(high), float(used[0]), float(used[-1]), 65535)
    pooled = np.concatenate(numbers) if numbers else np.zeros(0)
    if linear:
        return _exposure(pooled[pooled > 0])
    if not pooled.size:
        return Levels(0, 1)
    low, high = np.percentile(pooled, [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    least, most = float(pooled.min()), float(pooled.max())
    top = 1.0 if least >= 0 and most <= 1 else 255.0 if least >= 0 and most <= 255 else math.inf
    return _levels(float(low), float(high), least, most, top)


def _levels(low: float, high: float, least: float, most: float, top: float) -> Levels:
    if high - low >= top / 2:
        return Levels(0, top)
    if high <= low:  # a small object on an even ground
        low, high = least, most
    return Levels(low, high, True) if high > low else Levels(low, low + 1, True)


def _exposure(light: NDArray[np.float64]) -> Levels:
    """Return the levels of linear light above 0."""
    if not light.size:
        return Levels(0, 1, linear=True)
    mean, peak = float(np.exp(np.log(light).mean())), float(np.percentile(light, 100 - _TAIL_PERCENT))
    white = 1.0 if _DARKEST <= mean <= _BRIGHTEST else mean / _MIDDLE_GRAY
    return Levels(0, white, white != 1 or peak > 1, True, max(1.0, peak / white))
