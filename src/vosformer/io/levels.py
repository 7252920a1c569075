"""Pixels of any depth as 8 bits: one range for a whole source, so that no frame is brighter than another because of its content."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.frames import Image

SAMPLES = 16
"""Frames of a source that are looked at to find its range."""

_TAIL_PERCENT = 0.05  # of the pixels at either end may be dead, hot or glinting ones
_SAMPLED_VALUES = 200_000  # of each floating-point picture


class Levels(NamedTuple):
    """The values that become black and white.

    Attributes:
        low: becomes 0.
        high: becomes 255.
        stretched: the values fill only a part of what their type can hold, which is worth a note.
    """

    low: float
    high: float
    stretched: bool = False

    def apply(self, values: NDArray[np.generic]) -> Image:
        """Scale and round values of any shape to uint8; what lies outside becomes 0 or 255, and so does what is no number (0)."""
        if values.dtype in (np.uint8, np.uint16):
            table = (np.arange(1 << 8 * values.itemsize) - self.low) * (255 / (self.high - self.low))
            return np.asarray(np.rint(table).clip(0, 255).astype(np.uint8)[values])
        scaled = (np.nan_to_num(values.astype(np.float32), nan=self.low) - self.low) * np.float32(255 / (self.high - self.low))
        return np.asarray(np.rint(scaled.clip(0, 255)).astype(np.uint8))

    def describe(self, sampled: int, scale: float = 1) -> str:
        """Say what was stretched, for `Notes`; `scale` turns the values into those of the file."""
        low, high = f"{self.low * scale:.5g}", f"{self.high * scale:.5g}"
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


def find_levels(samples: Iterable[NDArray[np.generic]]) -> Levels:
    """Find the range of a source from some of its frames.

    Values that fill half of what their type can hold (65535; 1 or 255 for floating-point ones) keep their scale, as 8-bit pictures
    do. Others are stretched: all but 0.05 % of the pixels at either end lie between the levels.

    Args:
        samples: uint16 or float32 arrays of any shape.
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
