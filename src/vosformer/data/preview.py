"""Contact sheets: clips as one picture, masks painted over the frames, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vosformer.data.types import IGNORE, Clip, Image


def palette() -> Image:
    """The colours [256,3] of DAVIS and PASCAL VOC label maps."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def contact_sheet(clips: Sequence[Clip], opacity: float = 0.45) -> Image:
    """One row a clip, one column a frame, masks painted over; uint8 [rows * H, T * W, 3]. Ignored pixels are white."""
    colours = palette()
    colours[IGNORE] = 255
    rows = []
    for clip in clips:
        images = clip.images.permute(0, 2, 3, 1).numpy()
        labels = clip.labels.numpy()
        painted = np.where(labels[..., None] > 0, (1 - opacity) * images + opacity * colours[labels], images)
        rows.append(np.concatenate(list(painted.astype(np.uint8)), 1))
    return np.concatenate(rows, 0)
