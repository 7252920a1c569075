"""The colors inside a mask, and how far two masks are apart by them: what tells a mask that has gone to another thing."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Histogram = NDArray[np.float64]

_SIDE = 240  # short side in pixels at which colors are counted
_LEAST = 20  # pixels there, of which colors say something
_BINS = (2, 8, 8)  # of L, a and b: shadows and exposure change the lightness, and should not count for much


def color_histogram(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Histogram | None:
    """Return the shares of colors inside a mask, in CIE Lab, blurred by one bin so that no color falls between two of them.

    Args:
        image: uint8 RGB [H,W,3].
        mask: bool [H,W].

    Returns:
        [128] of sum 1; None if the mask has too few pixels.
    """
    step = max(1, min(mask.shape) // _SIDE)
    inside = mask[::step, ::step]
    pixels = np.ascontiguousarray(image[::step, ::step][inside])
    if len(pixels) < _LEAST:
        return None
    lab = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2LAB)[0].astype(np.int64)
    place = np.ravel_multi_index(tuple(lab[:, c] * _BINS[c] // 256 for c in range(3)), _BINS)
    shares = np.bincount(place, minlength=int(np.prod(_BINS))).reshape(_BINS).astype(np.float64)
    for axis in range(3):
        wide = np.pad(shares, [(1, 1) if a == axis else (0, 0) for a in range(3)])
        left, middle, right = (np.take(wide, np.arange(k, k + _BINS[axis]), axis) for k in range(3))
        shares = left / 4 + middle / 2 + right / 4
    return np.asarray(shares.ravel() / shares.sum())


def color_distance(one: Histogram, other: Histogram) -> float:
    """Return the Hellinger distance of two histograms, in [0,1]: 0 for the same colors, 1 where none is shared."""
    return float(np.sqrt(max(0.0, 1 - np.sqrt(one * other).sum())))
