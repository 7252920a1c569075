"""Filling: the area of one color, and holes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def flood(image: Image, x: float, y: float, tolerance: int) -> Mask:
    """Return the connected pixels whose color differs from the one at (x, y) by at most `tolerance` a channel."""
    height, width = image.shape[:2]
    reached = np.zeros((height + 2, width + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    cv2.floodFill(image.copy(), reached, (int(x), int(y)), 0, (tolerance,) * 3, (tolerance,) * 3, flags)
    return reached[1:-1, 1:-1] > 0


def hole_at(mask: Mask, x: float, y: float) -> Mask | None:
    """Return the hole of a mask that (x, y) lies in: pixels enclosed by it; None if it lies in none."""
    if mask[int(y), int(x)]:
        return None
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, parts = cv2.connectedComponents(outside, connectivity=4)
    part = parts[int(y) + 1, int(x) + 1]
    return None if part == parts[0, 0] else np.asarray(parts[1:-1, 1:-1] == part)
