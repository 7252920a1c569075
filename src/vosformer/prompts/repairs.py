"""Masks that a mark changes where it asks for it, and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.prompts.maps import Box, extent
from vosformer.prompts.prompt import Mask

_TOUCH = 2  # pixels around a click in which a change counts as asked for
_SPECK = 0.002  # an island of less than this share of the mask, or of what it was cut off from, is a speck


def merged(old: Mask, new: Mask, marks: NDArray[np.int8], box: Box | None) -> Mask:
    """Return the old mask with those changes alone that a mark asks for or that lie in the box (FocalClick's progressive
    merge).

    A positive mark asks for the added piece that it touches, a negative one for the piece that goes.
    """
    merged = old.copy()
    for change, is_object in ((new & ~old, True), (old & ~new, False)):
        asked = cv2.dilate((marks == (1 if is_object else -1)).astype(np.uint8), np.ones((2 * _TOUCH + 1,) * 2, np.uint8)) > 0
        if not (change & asked).any():
            continue
        _, parts = cv2.connectedComponents(change.astype(np.uint8), connectivity=8)
        touched = np.zeros(int(parts.max()) + 1, bool)
        touched[np.unique(parts[asked & change])] = True
        touched[0] = False
        merged[touched[parts]] = is_object
    if box is not None:
        x0, y0, x1, y1 = (round(side) for side in box)
        merged[y0:y1, x0:x1] = new[y0:y1, x0:x1]
    return np.asarray(merged)


def without_specks(found: Mask, old: Mask | None, marks: NDArray[np.int8]) -> Mask:
    """Return the mask without tiny islands that no mark asks for; what a repair cuts off is one, what it does not touch is none."""
    held = extent(found if old is None else found | old)
    if held is None:
        return found
    x0, y0, x1, y1 = (int(side) for side in held)
    part = (slice(max(0, y0 - _TOUCH), y1 + _TOUCH), slice(max(0, x0 - _TOUCH), x1 + _TOUCH))
    cleaned = found.copy()
    cleaned[part] &= ~_specks(found[part], None if old is None else old[part], marks[part])
    return cleaned


def _specks(found: Mask, old: Mask | None, marks: NDArray[np.int8]) -> Mask:
    """Return the pixels of the islands that `without_specks` leaves out."""
    count, parts, about, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    areas = about[:, cv2.CC_STAT_AREA]
    whole = np.full(count, found.sum())
    if old is not None:
        _, before, about, _ = cv2.connectedComponentsWithStats(old.astype(np.uint8), connectivity=8)
        shared = found & old
        source = np.zeros(count, np.intp)  # the old mask's piece that each is of
        source[parts[shared]] = before[shared]
        whole = np.where(source > 0, about[source, cv2.CC_STAT_AREA], whole)
    tiny = (areas < _SPECK * whole) & (areas != whole)
    tiny[0] = False
    tiny[np.unique(parts[cv2.dilate((marks > 0).astype(np.uint8), np.ones((2 * _TOUCH + 1,) * 2, np.uint8)) > 0])] = False
    return np.asarray(tiny[parts])


def seeded(mask: Mask, marks: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return marks with the mask's sure parts added: all but its edge and the surroundings of the marks, which are what is wrong."""
    size = max(3, int(np.sqrt(mask.sum()) * 0.05))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * size + 1,) * 2)
    inner, outer = cv2.erode(mask.astype(np.uint8), kernel), cv2.dilate(mask.astype(np.uint8), kernel)
    reach = 4 * size
    free = cv2.dilate((marks != 0).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)) > 0
    seeded = np.where(free, 0, np.where(inner > 0, 1, np.where(outer == 0, -1, 0))).astype(np.int8)
    return np.where(marks != 0, marks, seeded).astype(np.int8)
