"""The parts that a mask consists of: what touches, if only by a corner, is one."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


class Parts(NamedTuple):
    """The parts of a mask.

    Attributes:
        around: the piece of the frame around it, rows and columns.
        places: int32, the number of the part at each pixel of that piece, 0 outside, parts from 1 on.
        boxes: int32 [parts,4], left, top, width and height of each part in the frame.
        areas: int32 [parts], pixels of each part.
    """

    around: tuple[slice, slice]
    places: NDArray[np.int32]
    boxes: NDArray[np.int32]
    areas: NDArray[np.int32]


def parts_of(mask: NDArray[np.bool_]) -> Parts:
    """Return the parts of a mask [height,width]."""
    pixels = mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(pixels)
    around = slice(top, top + height), slice(left, left + width)
    if not width:
        return Parts(around, np.zeros((0, 0), np.int32), np.zeros((0, 4), np.int32), np.zeros(0, np.int32))
    _, places, stats, _ = cv2.connectedComponentsWithStats(pixels[around], connectivity=8)
    stats[:, :2] += (left, top)
    return Parts(around, np.asarray(places), np.asarray(stats[1:, :4]), np.asarray(stats[1:, cv2.CC_STAT_AREA]))
