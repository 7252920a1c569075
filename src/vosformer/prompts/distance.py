"""Exact distances to the nearest pixel of a kind."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def squared_distance(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the squared distance of every pixel to the nearest one that is False: whole numbers, 0 at those; [H,W] -> [H,W].

    OpenCV's own result depends on where the arrays lie in memory, in its last bit (5.0.0, `DIST_MASK_PRECISE`). Squares are whole
    numbers, so rounding makes them exact as long as they are below some 10^6, and two runs of a training equal.
    """
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.rint(np.square(distance, dtype=np.float64)), np.float32)
