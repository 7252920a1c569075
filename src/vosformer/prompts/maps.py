"""What the click network gets besides the picture: marks, box and previous mask as maps at stride 4."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.prompts.distance import squared_distance

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels, ends exclusive."""

_REACHES = (2.0, 10.0, 50.0)  # deviations in pixels of the crop
CHANNELS = 2 * len(_REACHES) + 2 + 16
"""Maps that `prompt_maps` makes: closeness to marks of either kind, box, whether there is a previous mask, and that mask."""


def prompt_maps(marks: NDArray[np.int8], box: Box | None, previous: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Encode a prompt.

    A mark is encoded as exp(-d^2 / 2 s^2) of the distance d to the nearest one, for three widths s: where exactly, in which part, at
    all. The previous mask keeps all its pixels: the 4x4 of a cell are 16 channels.

    Args:
        marks: int8 [H,W]: 1 = the object, -1 = not the object, 0 = nothing said; sides are multiples of 4.
        box: around the object, or None.
        previous: probabilities [H,W] of 0..1, or None.

    Returns:
        [CHANNELS,H/4,W/4].
    """
    height, width = marks.shape
    if height % 4 or width % 4:
        raise InputError(f"marks of {height} x {width} pixels were given; sides must be multiples of 4")
    maps = np.zeros((CHANNELS, height // 4, width // 4), np.float32)
    for half, sign in enumerate((1, -1)):
        found = marks == sign
        if found.any():
            # The nearest of a cell's pixels, so that no mark falls between two cells.
            square = squared_distance(~found).reshape(height // 4, 4, width // 4, 4).min((1, 3))
            for place, reach in enumerate(_REACHES):
                maps[half * len(_REACHES) + place] = np.exp(square * np.float32(-0.5 / reach**2))
    at = 2 * len(_REACHES)
    if box is not None:
        x0, y0, x1, y1 = (side / 4 for side in box)
        rows, columns = np.arange(height // 4) + 0.5, np.arange(width // 4) + 0.5
        inside = ((rows >= y0) & (rows <= y1))[:, None] & ((columns >= x0) & (columns <= x1))
        maps[at] = np.where(inside, 1, -1)
    if previous is not None:
        maps[at + 1] = 1
        maps[at + 2 :] = (
            previous.reshape(height // 4, 4, width // 4, 4).transpose(1, 3, 0, 2).reshape(16, height // 4, width // 4)
        )
    return maps


def extent(mask: NDArray[np.bool_]) -> Box | None:
    """Return the box around the true pixels of [H,W], or None if there is none."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
