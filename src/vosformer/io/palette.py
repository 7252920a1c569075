"""The colors of label maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def _voc_palette() -> NDArray[np.uint8]:
    """Return the bit formula of PASCAL VOC: the bits of an id go in turn to red, green and blue, the highest bits of each
    color first.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    palette.flags.writeable = False
    return palette


DAVIS_PALETTE: NDArray[np.uint8] = _voc_palette()
"""uint8 RGB [256,3], read-only: the palette of DAVIS, YouTube-VOS and PASCAL VOC."""


VOID = 255
"""The label of pixels that are neither object nor background: no loss and no score counts them."""


def colors(ids: NDArray[np.int64], palette: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """uint8 RGB [n,3] for any ids >= 0; ids above 255 repeat the colors of 1 to 255."""
    table = DAVIS_PALETTE if palette is None else palette
    return np.asarray(table[np.where(ids > 255, (ids - 1) % 255 + 1, ids)])


def pack(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colors uint8 RGB [...,3] as one number each, int32 [...]: red << 16 | green << 8 | blue."""
    wide = rgb.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def painted_ids(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.int32], int]:
    """Return the ids of a label map that was saved as a color picture, and how many of its colors `DAVIS_PALETTE` lacks.

    Args:
        rgb: uint8 [H,W,3].

    Returns:
        The index in the palette of each pixel's color, int32 [H,W] (anything where it has none); the number of colors without one.
    """
    known = pack(DAVIS_PALETTE)
    order = np.argsort(known)
    used, inverse = np.unique(pack(rgb), return_inverse=True)
    ids = order[np.searchsorted(known[order], used).clip(max=len(order) - 1)]
    return ids[inverse].reshape(rgb.shape[:2]).astype(np.int32), int((known[ids] != used).sum())
