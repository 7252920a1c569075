"""Contact sheets: clips as one picture, masks painted over the frames, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vosformer.data.types import IGNORE, Clip, Image
from vosformer.io.palette import DAVIS_PALETTE


def contact_sheet(clips: Sequence[Clip], opacity: float = 0.45) -> Image:
    """One row a clip, one column a frame, masks painted over; uint8 [rows * H, T * W, 3]. Ignored pixels are white."""
    colours = DAVIS_PALETTE.copy()
    colours[IGNORE] = 255
    rows = []
    for clip in clips:
        images = clip.images.permute(0, 2, 3, 1).numpy()
        labels = clip.labels.numpy()
        painted = np.where(labels[..., None] > 0, (1 - opacity) * images + opacity * colours[labels], images)
        rows.append(np.concatenate(list(painted.astype(np.uint8)), 1))
    return np.concatenate(rows, 0)
