"""The colours of label maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def _voc_palette() -> NDArray[np.uint8]:
    """The bit formula of PASCAL VOC: the bits of an id go in turn to red, green and blue, the highest bits of each colour first."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    palette.flags.writeable = False
    return palette


DAVIS_PALETTE: NDArray[np.uint8] = _voc_palette()
"""uint8 RGB [256,3], read-only: the palette of DAVIS, YouTube-VOS and PASCAL VOC."""


def colours(ids: NDArray[np.int64], palette: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """uint8 RGB [n,3] for any ids >= 0; ids above 255 repeat the colours of 1 to 255."""
    table = DAVIS_PALETTE if palette is None else palette
    return np.asarray(table[np.where(ids > 255, (ids - 1) % 255 + 1, ids)])
