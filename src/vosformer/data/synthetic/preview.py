"""Contact sheets: clips as one picture, masks painted over the frames, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vosformer.data.augmentation.geometric import resize
from vosformer.data.datasets.video import Video
from vosformer.data.types import IGNORE, Clip, Image, to_clip
from vosformer.io.palette import DAVIS_PALETTE


def sheet_of_videos(videos: Sequence[Video], columns: int = 6, height: int = 160) -> Image:
    """Return a contact sheet of videos of one size: `columns` frames of each, evenly spaced, scaled to `height` pixels.

    Raises:
        DataError: a file cannot be read.
    """
    clips = []
    for video in videos:
        times = np.linspace(0, len(video) - 1, columns).round().astype(int)
        frames = [video.load(int(time)) for time in times]
        width = round(frames[0][1].shape[1] * height / frames[0][1].shape[0])
        small = [resize(image, labels, height, width) for image, labels in frames]
        clips.append(to_clip([image for image, _ in small], [labels for _, labels in small], 0))
    return contact_sheet(clips)


def contact_sheet(clips: Sequence[Clip], opacity: float = 0.45) -> Image:
    """One row a clip, one column a frame, masks painted over; uint8 [rows * H, T * W, 3]. Ignored pixels are white."""
    colors = DAVIS_PALETTE.copy()
    colors[IGNORE] = 255
    rows = []
    for clip in clips:
        images = clip.images.permute(0, 2, 3, 1).numpy()
        labels = clip.labels.numpy()
        painted = np.where(labels[..., None] > 0, (1 - opacity) * images + opacity * colors[labels], images)
        rows.append(np.concatenate(list(painted.astype(np.uint8)), 1))
    return np.concatenate(rows, 0)
